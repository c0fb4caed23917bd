"""``python -m stseg3d``, the same as the command ``stseg3d``."""

from stseg3d.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
