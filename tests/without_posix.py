"""A Python that lacks what Windows lacks: ``python -m tests.without_posix [ARGUMENT ...]`` imports the package and runs the command."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import mmap
import os
import pkgutil
import signal
import sys
from types import ModuleType

MODULES = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
ATTRIBUTES = {
    mmap: "MADV_DONTNEED MADV_NOHUGEPAGE MAP_ANONYMOUS MAP_PRIVATE MAP_SHARED PROT_READ PROT_WRITE",
    os: "O_CLOEXEC O_NOFOLLOW chown fchmod fork forkpty geteuid getloadavg getpgid getuid killpg mkfifo nice pread pwrite "
    "register_at_fork sched_getaffinity sched_setaffinity setsid statvfs sysconf sysconf_names uname",
    signal: "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 alarm pthread_kill pthread_sigmask setitimer sigwait",
}
# They know by `sys.platform` where they are, and so are imported before attributes are missing.
OTHERS = ("numpy", "scipy.ndimage", "torch", "monai.bundle", "ignite.engine", "nibabel", "SimpleITK", "itk", "tqdm")
EXTRAS = {"matplotlib", "openvino", "ray", "tensorboard"}


class Hidden(importlib.abc.MetaPathFinder):
    """Finds no module of POSIX."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Refuse those."""
        if fullname in MODULES:
            msg = f"No module named {fullname!r}"
            raise ModuleNotFoundError(msg, name=fullname)


def hide() -> None:
    """Let modules and attributes be missing from now on."""
    importlib.import_module("psutil")  # of its own for each system: the one for POSIX needs what is missing from now on
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Hidden())
    os.environ.setdefault("USERNAME", "somebody")  # else MONAI asks `pwd`
    for name in OTHERS:
        importlib.import_module(name)
    for module, names in ATTRIBUTES.items():
        for name in names.split():
            with contextlib.suppress(AttributeError):
                delattr(module, name)
    if os.name != "nt":
        _add_locks()


def _add_locks() -> None:
    """Add what Windows has instead of ``fcntl``, if only for one process; no file system here lets a file stand that far."""
    lseek, locks = os.lseek, ModuleType("msvcrt")
    locks.__dict__.update(LK_UNLCK=0, LK_NBLCK=2, locking=lambda file, mode, n_bytes: None)
    sys.modules["msvcrt"] = locks
    os.lseek = lambda file, offset, whence: offset if offset >= 1 << 40 else lseek(file, offset, whence)


def import_all() -> int:
    """Import every module of the package; those that need an extra that is not installed are left out."""
    import stseg3d

    names = [m.name for m in pkgutil.walk_packages(stseg3d.__path__, "stseg3d.") if not m.name.endswith(".__main__")]
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
    return len(names)


if __name__ == "__main__":
    hide()
    found = import_all()
    assert not MODULES & sys.modules.keys()
    assert not hasattr(os, "fork")
    print(found, "modules")
    from stseg3d.cli import main

    sys.exit(main())
