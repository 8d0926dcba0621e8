"""What the benches share: sides, goals, the report, and the peers that are measured against.

Adding a bench: a module here with `measure() -> Measured` (or a Measured for each part), and an entry in `BENCHES`. Both sides are measured in one call on one
machine, on the same work, which the bench asserts. Peers that the project does not need otherwise are installed apart at first
use, so that the user's environment stays as it is.
"""

import gc
import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from syn2real_utils import machine
from syn2real_utils.errors import JobError, UserError, names
from syn2real_utils.progress import say
from syn2real_utils.store import Store

# name: module of this package
BENCHES = {
    "train": "train",
    "decode": "decode",
    "lam-sweep": "lam_sweep",
    "vector": "vector",
    "synthesize": "synthesize",
    "quickstart": "quickstart",
    "executor": "executor",
}
PEERS = "data/peers"


@dataclass(frozen=True)
class Side:
    """One way of doing the work."""

    name: str
    seconds: float  # for one unit of the work; the median where it was repeated
    repeats: list[float] = field(default_factory=list)  # seconds of each repetition
    more: Mapping[str, Any] = field(default_factory=dict)  # what else was measured, e.g. {"wer": 30.1}


@dataclass(frozen=True)
class Goal:
    """What the bench should reach."""

    text: str
    found: float
    met: bool


@dataclass(frozen=True)
class Measured:
    """What a bench found."""

    unit: str  # of the work, e.g. "clip and training step"
    ours: Side
    peers: list[Side]
    goals: list[Goal]
    work: Mapping[str, Any]  # what both sides did; asserted to be equal


def run(name: str) -> dict[str, Any]:
    """Run a bench and return its report as plain data.

    Raises:
        UserError: no such bench, or a peer that cannot be installed.
        JobError: the sides did not do the same work.
    """
    if name not in BENCHES:
        raise UserError(f"no bench '{name}': use one of {names(BENCHES)}")
    found: Measured | Mapping[str, Measured]
    found = importlib.import_module(f"syn2real_utils.bench.{BENCHES[name]}").measure()
    if isinstance(found, Measured):
        report = _report(found)
    else:
        report = {"parts": {part: _report(measured) for part, measured in found.items()}}
    return {"bench": name} | report | {"about": machine.about() | {"computes in": machine.precision("auto")}}


def _report(found: Measured) -> dict[str, Any]:
    ratios = {peer.name: round(peer.seconds / found.ours.seconds, 2) for peer in found.peers}
    return asdict(found) | {"ratio": ratios}


def timed(name: str, work: Callable[[], Any], units: int, repeats: int = 3, warm: bool = True) -> tuple[Side, Any]:
    """Do `work` a few times and return its side, seconds for one of `units`, and what the last call gave."""
    result = work() if warm else None  # the first call pays for shapes, caches and threads
    took = []
    for number in range(repeats):
        gc.collect()
        start = time.perf_counter()
        result = work()
        took.append((time.perf_counter() - start) / units)
        say(f"  {name}: {took[-1]:.4f} s, {number + 1} of {repeats}")
    return Side(name, statistics.median(took), took), result


def check_equal(what: str, ours: object, theirs: object) -> None:
    """Raise JobError unless both sides did the same work."""
    if ours != theirs:
        raise JobError(f"unequal work, the bench says nothing: {what} is {ours!r} here and {theirs!r} there")


def on_the_processor(bench: str) -> None:
    """Raise UserError where ours would compute on a GPU and the peers, as they are called, on the processor."""
    if machine.gpu():
        raise UserError(
            f"bench {bench} compares on the processor: hide the GPU with CUDA_VISIBLE_DEVICES= and call again"
        )


def peer(name: str, requirements: list[str]) -> Path:
    """A folder for PYTHONPATH with exactly these pinned packages; what they need else is in our environment.

    Raises:
        UserError: pip cannot have them.
    """

    def install(into: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*command, "--target", str(into), *requirements], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UserError(f"pip cannot install {names(requirements)}: {done.stderr.strip().splitlines()[-1]}")

    say(f"peer {name}: {names(requirements)}")
    return Store().build(PEERS, name, {"requirements": requirements}, install).path
