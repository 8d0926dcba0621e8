"""The quickstart in an empty project: time and memory by notebook, and what twice and four times the utterances cost."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

import psutil

from syn2real_utils.bench.base import Goal, Measured, Side
from syn2real_utils.bench.material import profile
from syn2real_utils.errors import JobError
from syn2real_utils.progress import say
from syn2real_utils.store import home

GOAL_MINUTES, GOAL_GB = 8.0, 4.0
SIZES = (12, 24, 48)  # real clips of each of four domains
BEND = 1.33  # the slope may change by so much from 1x-2x to 2x-4x and still count as linear
EVERY = 1.0  # seconds between two looks at the memory
FETCHED = ("sources", "backbones", "tts")
SCALED = """
import sys
from syn2real_utils import results
from syn2real_utils.profile import load_profile
n = int(sys.argv[1])
results.write_run(load_profile("quickstart", {
    "corpus.max_utterances": n, "tts": [{"name": "pico"}],
    "evaluation.lam_grid": [0.0, 0.5, 1.0], "evaluation.selection_grid": [0.0, 0.5],
}))
"""


def measure() -> Measured:
    """Run the profile where nothing is there yet, fetching included; then a small form of it at three sizes."""
    with tempfile.TemporaryDirectory(prefix="syn2real-") as folder:
        place = _project(Path(folder))
        whole, peak, stages = _run(place)
        slopes, seconds = _slopes(Path(folder))
    bend = slopes[1] / slopes[0]
    ours = Side("syn2real run quickstart", whole, more={"peak GB": peak, "stages": stages})
    return Measured(
        unit="run, after the install, fetching included",
        ours=ours,
        peers=[],
        goals=[
            Goal(f"at most {GOAL_MINUTES:g} minutes", round(whole / 60, 2), whole <= 60 * GOAL_MINUTES),
            Goal(f"at most {GOAL_GB:g} GB", peak, peak <= GOAL_GB),
            Goal(
                f"linear: slope of 2x-4x over that of 1x-2x within {BEND:g}", round(bend, 2), 1 / BEND <= bend <= BEND
            ),
        ],
        work={
            "profile": profile().name,
            "utterances": profile().corpus.max_utterances,
            "sizes": [4 * size for size in SIZES],
            "seconds at the sizes": seconds,
            "seconds for one utterance more": slopes,
        },
    )


def _project(folder: Path) -> Path:
    """An empty project that shares nothing but the notebooks."""
    place = folder / "project"
    place.mkdir(parents=True)
    (place / "notebooks").symlink_to(home() / "notebooks")
    return place


def _run(place: Path) -> tuple[float, float, dict[str, dict[str, float]]]:
    """Seconds of the whole, peak memory in GB, and both by notebook."""
    command = [sys.executable, "-m", "syn2real_utils.cli", "run", profile().name]
    start, began = time.perf_counter(), time.time()
    process = subprocess.Popen(command, env=os.environ | {"SYN2REAL_HOME": str(place)}, cwd=place, stdout=sys.stderr)
    seen: list[tuple[float, float]] = []
    watch = threading.Thread(target=_watch, args=(process, seen))
    watch.start()
    if process.wait():
        raise JobError("the run failed: see the lines above")
    whole = time.perf_counter() - start
    watch.join()
    stages = {"fetch": {"seconds": 0.0, "peak GB": 0.0}}
    for name, (first, last) in sorted(_times(place).items(), key=lambda item: item[1]):
        within = [gb for when, gb in seen if first <= when <= last]
        stages[name] = {"seconds": round(last - first, 1), "peak GB": round(max(within, default=0.0), 2)}
        if len(stages) == 2:  # before the first notebook
            before = [gb for when, gb in seen if when < first]
            stages["fetch"] = {"seconds": round(first - began, 1), "peak GB": round(max(before, default=0.0), 2)}
    stages["between and after"] = {"seconds": round(whole - sum(s["seconds"] for s in stages.values()), 1)}
    return round(whole, 1), round(max(gb for _, gb in seen), 2), stages


def _watch(process: subprocess.Popen, seen: list[tuple[float, float]]) -> None:
    """Note the memory of a process and all its children, in GB: each page once, mapped files too (PSS)."""
    while process.poll() is None:
        total = 0
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            try:
                total += one.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        seen.append((time.time(), total / 1e9))
        time.sleep(EVERY)


def _times(place: Path) -> dict[str, tuple[float, float]]:
    """Start and end of each notebook, as papermill noted them."""
    found = {}
    for file in place.glob("runs/*/notebooks/[0-9]*.ipynb"):
        noted = json.loads(file.read_text(encoding="utf-8"))["metadata"]["papermill"]
        start, end = (datetime.fromisoformat(noted[key]).timestamp() for key in ("start_time", "end_time"))
        found[file.stem] = (start, end)
    return found


def _slopes(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds for one utterance more, from 1x to 2x and from 2x to 4x, and the seconds at each size."""
    took = []
    for size in SIZES:
        place = _project(folder / f"{size}")
        (place / "data").mkdir()
        for name in FETCHED:
            (place / "data" / name).symlink_to(folder / "project" / "data" / name)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", SCALED, str(size)], env=os.environ | {"SYN2REAL_HOME": str(place)}, cwd=place,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise JobError(f"the run with {size} clips a domain failed: {done.stderr[-1000:]}")
        took.append(round(time.perf_counter() - start, 1))
        say(f"  {4 * size} utterances: {took[-1]:.0f} s")
    slopes = [(b - a) / (4 * (m - n)) for a, b, n, m in zip(took, took[1:], SIZES, SIZES[1:], strict=False)]
    return [round(slope, 3) for slope in slopes], took
