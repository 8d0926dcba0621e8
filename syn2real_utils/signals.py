"""A command that is told to end (kill, timeout, a closed terminal) ends as with Ctrl-C: tidily, and its jobs with it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import psutil

ENDS = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block where a signal would end the process; one that is ignored (nohup) stays so."""
    here = threading.current_thread() is threading.main_thread()  # Python sets handlers in no other
    taken = [number for number in ENDS if here and signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(*_: object) -> None:
    """Tell what this process started as well: Ctrl-C tells a terminal's whole group, kill one process alone."""
    own = os.getpgrp()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(child.pid) == own:  # a kernel has a group of its own: its notebook ends it
                child.send_signal(signal.SIGINT)
    raise KeyboardInterrupt
