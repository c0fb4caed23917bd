"""Entry point of ``python -m stseg3d.synthesis.phantoms``."""

from stseg3d.synthesis.phantoms.dataset import main

main()
