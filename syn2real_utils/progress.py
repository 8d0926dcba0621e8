"""Progress of long work: a bar in a terminal or a notebook, plain lines where neither can draw."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm.auto import tqdm

LINES = "SYN2REAL_PROGRESS_LINES"  # set by the papermill runner: widgets do not survive in an executed notebook
SECONDS_BETWEEN_LINES = 5.0

T = TypeVar("T")


def say(line: str) -> None:
    """Print one line of what is being done, at once."""
    print(line, flush=True)


def track(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield `items`, showing how many of them are done as `what`."""
    with Progress(what, len(items)) as progress:
        for item in items:
            yield item
            progress.step()


class Progress:
    """A context in which `step()` counts towards `total`."""

    def __init__(self, what: str, total: int):
        self.what, self.total, self.done = what, total, 0
        self._start = self._last = time.monotonic()
        self._bar = tqdm(total=total, desc=what, leave=False) if draws_bars() else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self) -> None:
        """Count one more."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES and self.done < self.total:
            left = (now - self._start) / self.done * (self.total - self.done)
            say(f"  {self.what}: {self.done}/{self.total}, {left:.0f} s left")
            self._last = now


def draws_bars() -> bool:
    """Whether a bar can be drawn: an interactive terminal, or a notebook that a person has open."""
    if os.environ.get(LINES):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules
