"""`syn2real bench executor`: a run through Slurm gives the bytes of a run on this machine; a cancelled job or a lost node costs that job.

A Slurm of one node is installed and started on loopback by `benchmarks/slurm.sh`. The same small profile is run on this machine,
through Slurm, and through Slurm twice more: with one job cancelled in the middle, and with the node lost in the middle of a job, as if
its power had failed, until Slurm has noticed. Each run has a project folder of its own, so that nothing is found ready but what was
fetched. What Slurm and Snakemake add is seconds per job: nothing on a job that takes hours.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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
HIT = "03_finetune"  # the job that is cancelled, or loses its node
WAIT = 0.2  # seconds between two looks
FETCHED = ("sources", "backbones", "tts", "corpora")


def measure() -> Measured:
    """Run the profile on this machine, through Slurm, and through Slurm with a job cancelled and with the node lost."""
    Executor("slurm").check(reachable=False)
    with tempfile.TemporaryDirectory(prefix="s2r-executor-") as name, _slurm(Path(name) / "slurm") as control:
        here, there = (_project(Path(name) / run) for run in ("local", "slurm"))
        local = Side("on this machine", _seconds(_start(here)))
        slurm = Side("through Slurm", _seconds(_start(there, slurm=True)))
        check_equal("the tables through Slurm", _tables(here), _tables(there))
        hits: dict[str, Callable[[str], None]]
        costs, hits = {}, {"scancel": _cancel, "a lost node": partial(_lose_node, control)}
        for what, hit in hits.items():
            again = _project(Path(name) / what.replace(" ", "-"))
            costs[what] = _cost(again, what, hit)
            check_equal(f"the tables after {what}", _tables(here), _tables(again))
        jobs, tables = _jobs(there), len(_tables(here))
    added = (slurm.seconds - local.seconds) / jobs
    return Measured(
        unit="run of a small profile",
        ours=slurm,
        peers=[local],
        goals=[
            Goal("tables that are the same bytes, local and Slurm", tables, tables > 0),
            *(goal for what, cost in costs.items() for goal in _cheap(what, cost)),
        ],
        work={"jobs": jobs, "tables": tables, "seconds added per job": round(added, 1), "cost": costs},
    )


def _cheap(what: str, cost: dict[str, Any]) -> list[Goal]:
    """What hit one job may cost: that job."""
    started, again = cost["jobs started again"], len(cost["of these made again"])
    return [
        Goal(f"jobs that were started again after {what}, of one that ran", started, started == 1),
        Goal(f"models, transcripts and notebooks done before {what} that were made again", again, again == 0),
    ]


@contextlib.contextmanager
def _slurm(folder: Path) -> Iterator[Callable[[str], None]]:
    """A Slurm with its files in `folder`; gives what calls `slurm.sh` with one of its commands."""
    script = Path(__file__).parents[2] / "benchmarks" / "slurm.sh"
    if not script.is_file():
        raise UserError("the bench executor needs the project's checkout: benchmarks/slurm.sh is not here")

    def control(command: str) -> None:
        done = subprocess.run([script, command, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(done.stderr.strip().removeprefix("error: ").splitlines()[-1])

    try:
        control("start")
        yield control
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


def _cancel(job: str) -> None:
    subprocess.run(["scancel", job], check=True)


def _lose_node(control: Callable[[str], None], _: str) -> None:
    """The node dies with all that runs on it, Slurm notices, and it comes back."""
    control("lose")
    control("return")


def _cost(folder: Path, what: str, hit: Callable[[str], None]) -> dict[str, Any]:
    """Run through Slurm, `hit` a job once it has made a model, let the run end, and say what that cost."""
    earlier = set(_slurm_jobs())
    run = _start(folder, slurm=True)
    job, models = None, 0
    while job is None or len(_finished(folder, "models")) == models:
        if run.poll() is not None:
            raise JobError(f"the run ended before {what} could meet a job {HIT}")
        if job is None:
            job, models = _running(HIT), len(_finished(folder, "models"))
        time.sleep(WAIT)
    hit(job)
    kept = _work_done(folder)
    say(f"{what} met job {job}, {HIT}, with {len(kept)} pieces of work done")
    _seconds(run)
    ended = {number: found for number, found in _slurm_jobs().items() if number not in earlier}
    failed = [number for number, found in ended.items() if found.state != "COMPLETED"]
    check_equal("the jobs that did not complete, but for the one that was met", [], [n for n in failed if n != job])
    after = _work_done(folder)
    return {
        "done before": len(kept),
        "of these made again": [name for name, made in kept.items() if after.get(name) != made],
        # by Snakemake, which sends a new job, or by Slurm itself, which keeps the number
        "jobs started again": len(ended) - _jobs(folder) + sum(found.restarts for found in ended.values()),
    }


def _work_done(folder: Path) -> dict[str, int | str]:
    """Artifact -> when it was made; executed notebook -> its hash, for Snakemake touches it when it learns that it is done."""
    made: dict[str, int | str] = {path.parent.name: path.stat().st_mtime_ns for path in _finished(folder)}
    return made | {path.name: sha256(path) for path in _notebooks(folder)}


def _running(rule: str) -> str | None:
    """Number of the running job of a rule, which Snakemake's plug-in names in the comment."""
    found = _slurm_jobs().items()
    return next((n for n, job in found if rule in job.comment and job.state == "RUNNING"), None)


@dataclass(frozen=True)
class _Job:
    state: str
    restarts: int  # by Slurm
    comment: str


def _slurm_jobs() -> dict[str, _Job]:
    """Number -> what became of every job that this Slurm has had."""
    fields = ":|,".join(["JobID", "State", "RestartCnt", "Comment"])
    command = ["squeue", "--noheader", "--states=all", f"--Format={fields}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = (line.split("|", 3) for line in done.stdout.splitlines())
    return {number: _Job(state, int(restarts), comment) for number, state, restarts, comment in rows}


def _finished(folder: Path, kind: str = "*") -> list[Path]:
    return list(folder.glob(f"runs/artifacts/{kind}/*/done.json"))


def _notebooks(folder: Path) -> list[Path]:
    """The executed notebooks; what a cancelled job left begins with a dot."""
    return list(folder.glob("runs/executor/notebooks/[0-9]*.ipynb"))


def _jobs(folder: Path) -> int:
    """Jobs of a finished run: its notebooks and the report."""
    return len(_notebooks(folder)) + 1
