"""Check that names of output files stay in their folder."""

from __future__ import annotations

import os
import re

# Windows keeps these for devices, with any suffix: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.DOTALL)
FORBIDDEN = re.compile(r"[/\\\x00-\x1f\x7f]")
FORBIDDEN_ON_WINDOWS = re.compile(r"[/\\\x00-\x1f\x7f<>:\"|?*]")  # a colon there starts the name of a stream
# File systems take 255 bytes; the rest is for `_seg.nii.gz` and for temporary names.
MAX_NAME_BYTES = 220


def ensure_file_name(name: str) -> str:
    """The name of a case, after checking that its files stay in their folder: no path, not hidden, no option, no device.

    Args:
        name: Name of a case, such as ``patient_7``.

    Raises:
        ValueError: If it is not such a name.
    """
    found = (FORBIDDEN_ON_WINDOWS if os.name == "nt" else FORBIDDEN).search(name)
    if found:
        why = f"without {found[0]!r}"
    elif not name or name[0] in ".-":
        why = "of at least one letter, and begin with neither '.' nor '-'"
    elif RESERVED.fullmatch(name):
        why = "that is no device of Windows"
    elif len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        why = f"of at most {MAX_NAME_BYTES} bytes"
    else:
        return name
    msg = f"case must have a name {why}, for its files to stay in their folder, got {name[:100]!r}"
    raise ValueError(msg)
