"""A command that is told to end (kill, timeout, a closed terminal) ends as with Ctrl-C: tidily, and its jobs with it."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import psutil

ENDS = (signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = (
    ctypes.CDLL(None) if sys.platform == "linux" else None
)  # opened here: between fork and exec it could wait for ever


@contextlib.contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block where a signal would end the process; one that is ignored (nohup) stays so."""
    here = threading.current_thread() is threading.main_thread()  # Python sets handlers in no other
    taken = [number for number in ENDS if here and signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def call(command: Sequence[str]) -> int:
    """Run a command and return its exit status; where this process is interrupted, the command and all its jobs are too.

    They are a group of their own, for kill tells one process alone, and what a script starts behind `&` ignores Ctrl-C's signal.
    Where this process is killed outright the command is told to end: Snakemake then starts no other job.
    """
    with subprocess.Popen(command, process_group=0, preexec_fn=_begin) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            process.wait()  # it takes its jobs back from a cluster
            raise


@contextlib.contextmanager
def ending_children() -> Iterator[None]:
    """End the processes that the block has started where it is interrupted."""
    before = psutil.Process().children()
    try:
        yield
    except KeyboardInterrupt:
        for child in psutil.Process().children():
            if child not in before:
                with contextlib.suppress(psutil.Error):  # it has ended by itself
                    child.terminate()
        raise


def end_with_parent() -> None:
    """Let this process be told to end when the one that started it ends, however that was: on Linux, which alone can do so."""
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()
