"""`syn2real bench executor`: a run through Slurm gives the bytes of a run on this machine, and a cancelled job costs itself.

A Slurm of one node is installed and started on loopback by `benchmarks/slurm.sh`. The same small profile is run on this machine,
through Slurm, and through Slurm once more with one job cancelled in the middle. Each run has a project folder of its own, so that
nothing is found ready but what was fetched. What Slurm and Snakemake add is seconds per job: nothing on a job that takes hours.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from syn2real_utils.bench.base import Goal, Measured, Side, check_equal
from syn2real_utils.errors import JobError, UserError
from syn2real_utils.executors import Executor
from syn2real_utils.progress import say
from syn2real_utils.store import home, sha256

PROFILE = {  # one target, two sources, the fastest TTS: each kind of job once
    "name": "executor",
    "description": "a slice for the bench of executors; its numbers mean nothing",
    "corpus": {"name": "tuxpaint", "language": "es", "max_utterances": {"animals": 6, "food": 4, "household": 4}},
    "targets": ["animals"],
    "sources": ["food", "household"],
    "tts": [{"name": "pico"}],
    "backbone": {"name": "base"},
    "training": {"epochs": 1, "batch_size": 2, "learning_rate": 1e-5, "warmup_ratio": 0.0},
    "evaluation": {"lam_grid": [0.0, 0.5, 1.0], "selection_grid": [0.0, 0.5], "bootstrap_samples": 200},
    "resources": {"every": {"memory_gb": 4, "minutes": 30}},
}
# No accounting here, and jobs of seconds: ask squeue, and ask often.
OPTIONS = ("slurm-status-command=squeue", "slurm-init-seconds-before-status-checks=2")
CANCELLED = "03_finetune"
WAIT = 0.2  # seconds between two looks
FETCHED = ("sources", "backbones", "tts", "corpora")


def measure() -> Measured:
    """Run the profile on this machine, through Slurm, and through Slurm with a job cancelled."""
    Executor("slurm").check(reachable=False)
    with tempfile.TemporaryDirectory(prefix="s2r-executor-") as name, _slurm(Path(name) / "slurm"):
        here, there, again = (_project(Path(name) / run) for run in ("local", "slurm", "cancelled"))
        local = Side("on this machine", _seconds(_start(here)))
        slurm = Side("through Slurm", _seconds(_start(there, slurm=True)))
        check_equal("the tables through Slurm", _tables(here), _tables(there))
        cost = _cancel_one(again)
        check_equal("the tables after the cancelled job", _tables(here), _tables(again))
        jobs, tables = _jobs(there), len(_tables(here))
    added = (slurm.seconds - local.seconds) / jobs
    return Measured(
        unit="run of a small profile",
        ours=slurm,
        peers=[local],
        goals=[
            Goal("tables that are the same bytes, local and Slurm", tables, tables > 0),
            Goal(
                "jobs that were started again after one scancel",
                cost["jobs started again"],
                cost["jobs started again"] == 1,
            ),
            Goal(
                "models, transcripts and notebooks done before the scancel that were made again",
                len(cost["of these made again"]),
                not cost["of these made again"],
            ),
        ],
        work={"jobs": jobs, "tables": tables, "seconds added per job": round(added, 1), "cancelled": cost},
    )


@contextlib.contextmanager
def _slurm(folder: Path) -> Iterator[None]:
    script = Path(__file__).parents[2] / "benchmarks" / "slurm.sh"
    if not script.is_file():
        raise UserError("the bench executor needs the project's checkout: benchmarks/slurm.sh is not here")
    try:
        started = subprocess.run([script, "start", folder], capture_output=True, text=True, check=False)
        if started.returncode:
            raise UserError(started.stderr.strip().removeprefix("error: ").splitlines()[-1])
        yield
    finally:
        subprocess.run([script, "stop", folder], check=False)


def _project(folder: Path) -> Path:
    """A project folder that shares with this one what is fetched, and nothing that is made."""
    (folder / "data").mkdir(parents=True)
    for name in FETCHED:
        (home() / "data" / name).mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).symlink_to((home() / "data" / name).resolve())
    (folder / "notebooks").symlink_to(home() / "notebooks")
    (folder / "executor.yaml").write_text(yaml.safe_dump(PROFILE), encoding="utf-8")
    return folder


def _start(folder: Path, slurm: bool = False) -> subprocess.Popen:
    command = [sys.executable, "-m", "syn2real_utils.cli", "run", str(folder / "executor.yaml")]
    if slurm:
        command += ["--executor", "slurm", *(word for option in OPTIONS for word in ("--executor-option", option))]
    say(f"the run {folder.name}")
    environment = os.environ | {"SYN2REAL_HOME": str(folder)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=sys.stderr)


def _seconds(run: subprocess.Popen) -> float:
    """Wait for a run; its seconds from now."""
    start = time.perf_counter()
    if run.wait():
        raise JobError("a run of the bench failed: see the lines above")
    return time.perf_counter() - start


def _tables(folder: Path) -> dict[str, str]:
    """Table -> hash of its bytes."""
    return {path.name: sha256(path) for path in sorted(folder.glob("runs/executor/tables/*.csv"))}


def _cancel_one(folder: Path) -> dict[str, Any]:
    """Run through Slurm, `scancel` a job once it has made a model, let the run end, and say what that cost."""
    earlier = set(_slurm_jobs())
    run = _start(folder, slurm=True)
    job, models = None, 0
    while job is None or len(_finished(folder, "models")) == models:
        if run.poll() is not None:
            raise JobError(f"the run ended before a job {CANCELLED} could be cancelled")
        if job is None:
            job, models = _running(CANCELLED), len(_finished(folder, "models"))
        time.sleep(WAIT)
    subprocess.run(["scancel", job], check=True)
    kept = _work_done(folder)
    say(f"cancelled job {job}, {CANCELLED}, with {len(kept)} pieces of work done")
    _seconds(run)
    ended = {number: state for number, (_, state) in _slurm_jobs().items() if number not in earlier}
    check_equal("the jobs that did not complete", [job], [n for n, state in ended.items() if state != "COMPLETED"])
    after = _work_done(folder)
    return {
        "done before": len(kept),
        "of these made again": [name for name, made in kept.items() if after.get(name) != made],
        "jobs started again": len(ended) - _jobs(folder),
    }


def _work_done(folder: Path) -> dict[str, int | str]:
    """Artifact -> when it was made; executed notebook -> its hash, for Snakemake touches it when it learns that it is done."""
    made: dict[str, int | str] = {path.parent.name: path.stat().st_mtime_ns for path in _finished(folder)}
    return made | {path.name: sha256(path) for path in _notebooks(folder)}


def _running(rule: str) -> str | None:
    """Number of the running job of a rule, which Snakemake's plug-in names in the comment."""
    found = _slurm_jobs().items()
    return next((n for n, (comment, state) in found if rule in comment and state == "RUNNING"), None)


def _slurm_jobs() -> dict[str, tuple[str, str]]:
    """Number -> comment and state of every job that this Slurm has had."""
    command = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%k"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = (line.split("|", 2) for line in done.stdout.splitlines())
    return {number: (comment, state) for number, state, comment in rows}


def _finished(folder: Path, kind: str = "*") -> list[Path]:
    return list(folder.glob(f"runs/artifacts/{kind}/*/done.json"))


def _notebooks(folder: Path) -> list[Path]:
    """The executed notebooks; what a cancelled job left begins with a dot."""
    return list(folder.glob("runs/executor/notebooks/[0-9]*.ipynb"))


def _jobs(folder: Path) -> int:
    """Jobs of a finished run: its notebooks and the report."""
    return len(_notebooks(folder)) + 1
