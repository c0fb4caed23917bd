"""Output on the terminal: errors in one sentence, progress, log messages; and the exit status."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stseg3d.volumes import Case

BAD_INPUT = (ValueError, OSError)  # all other exceptions are failures of the program
DONE, FAILED, BAD, STOPPED = 0, 1, 2, 130


def fail(error: Exception, args: argparse.Namespace, case: Case | None = None) -> int:
    """Print an error in one sentence, and return its exit status."""
    bad = isinstance(error, BAD_INPUT)
    text = sentence(error) or "no reason given"
    if case and not any(path.name in text for path in case.images):
        text = f"{case.id}: {text}"
    say(f"stseg3d: error: {text if bad else f'{type(error).__name__}: {text}'}")
    if args.traceback:
        say("".join(traceback.format_exception(error)).rstrip())
    return BAD if bad else FAILED


@contextmanager
def loading() -> Iterator[None]:
    """Context for imports without garbage collection, which would take a fifth of the time and find nothing."""
    # timed with tests/benchmarks/bench_startup.py
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()  # else the first collections would look at all of it
        gc.enable()


def sentence(text: object) -> str:
    """A text on one line."""
    return " ".join(str(text).split())


def say(text: str) -> None:
    """Print to stderr, above a progress bar if there is one; bytes of a path that are no UTF-8 are escaped."""
    text = text.encode(errors="backslashreplace").decode()
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


def progress(items: Iterable[Any], unit: str, *, total: int | None = None) -> Any:
    """Iterate over ``items`` with a bar on stderr, where that is a terminal; ``total`` tells how many come, if they do not."""
    from tqdm import tqdm

    return tqdm(items, unit=unit.removesuffix("s"), total=total, file=sys.stderr, disable=None)


class _Say(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"stseg3d: {sentence(record.getMessage())}")


def log_to_stderr() -> None:
    """Print the package's log messages, warnings and above, to stderr."""
    logger = logging.getLogger("stseg3d")
    if not any(isinstance(handler, _Say) for handler in logger.handlers):
        logger.addHandler(_Say())
    logger.setLevel(logging.WARNING)
