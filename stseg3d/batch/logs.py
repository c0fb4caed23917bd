"""What workers in other processes log, on its way to the driver."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from logging.handlers import QueueHandler
from typing import Any

from tqdm import tqdm


def send_logs(send: Callable[[logging.LogRecord], object]) -> None:
    """Make this the process of a worker: what the package logs is sent, ready to be pickled, and what third parties say goes nowhere."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # third parties' deprecations, as on the command line
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process would leave behind
    package = logging.getLogger("stseg3d")
    package.addHandler(_Sender(send))  # type: ignore[arg-type]
    package.propagate = False


class _Sender(QueueHandler):
    queue: Any

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue(record)
