"""A run: its folder, what is fetched first, the workflow, the report. Snakemake does the scheduling."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from filelock import FileLock, Timeout

from syn2real_utils import given, machine, notebook, paperplan, report, results, signals, speech, stages
from syn2real_utils.backbones import sources
from syn2real_utils.errors import JobError, UserError, names
from syn2real_utils.executors import REPORT, Executor, check_resources
from syn2real_utils.paperplan import Estimate
from syn2real_utils.plan import SPEAK, Plan, plan
from syn2real_utils.profile import Profile, load_profile
from syn2real_utils.progress import say
from syn2real_utils.report import find
from syn2real_utils.store import Store, home, write_text_atomic
from syn2real_utils.tts.base import load_engine

__all__ = ["fetch", "find", "lacks", "notebook_names", "prepare", "preview", "run", "snakemake", "write_report"]

SNAKEFILE = Path(__file__).parent / "workflow" / "Snakefile"
INPUTS = "inputs.json"
OF_PROFILE = ("run.json", "tables/utterances.csv", "tables/wer.csv")  # without them a run counts as not finished
UNKNOWN = "hours and gigabytes: not known before the corpus is fetched (notebook 01_prepare_data does it)"
APART = ("09_your_own_domain",)  # for a user's own texts: no part of a run
HERE = Executor()


def run(profile: Profile, executor: Executor = HERE) -> str:
    """Run a profile to its end and return the summary.

    Speech, weights and voices are fetched by this process, before the first job: nodes of a cluster need no network.

    Raises:
        UserError: bad input, or the run is going on already.
        JobError: a job failed.
    """
    notebook.folder()
    given.check(profile)
    check_resources(profile, [*notebook_names(), REPORT])
    _check(profile, executor)
    folder = results.run_folder(profile)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            if _finished(profile):
                return report.summary(folder)
            _fetch_apart(profile)
            prepare(profile)
            _work(profile, executor)
            return report.summary(folder)
    except Timeout as error:
        raise UserError(f"the run {profile.name} is going on in another process: wait for it, or stop it") from error


def _fetch_apart(profile: Profile) -> None:
    """`fetch` in a process of its own, whose memory is free again afterwards."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart, signals.ending_children():
        apart.submit(fetch, profile).result()


def fetch(profile: Profile) -> None:
    """Fetch speech, weights and voices, and check what can be checked before the first notebook."""
    stages.check(profile)
    stages.check_domains_and_folds(profile)
    asr = stages.backbone(profile)  # knows the language, or says so
    if profile.evaluation.is_sure() and not asr.tells_sureness:
        raise UserError(
            f"profile {profile.name}: confidence and entropy are known of Whisper only: leave them out of evaluation.selectors"
        )
    for part in profile.tts:
        load_engine(speech.with_speakers(profile, part), Store())
        if part.round_trip:
            sources.resolve(part.round_trip.asr, Store())


def notebook_names() -> list[str]:
    """Names of the notebooks that a run executes."""
    return [name for name in notebook.notebook_names() if name not in APART]


def prepare(profile: Profile) -> None:
    """Write what the workflow depends on, only where it changed, so that what is up to date stays so."""
    folder = results.run_folder(profile)
    if not _up_to_date(profile):
        say(f"{folder.relative_to(home())}: profile, data or code are new or changed")
        if (folder / report.PROFILE).is_file() and not _is_of(folder, profile):
            for name in OF_PROFILE:  # until this run has its own, what the last one found is no result of this profile
                (folder / name).unlink(missing_ok=True)
        write_text_atomic(folder / report.PROFILE, _settled(profile).to_yaml())
        write_text_atomic(folder / INPUTS, _inputs(profile))
    elif (folder / "report.html").is_file() and (lost := lacks(profile)):
        say(f"{folder.relative_to(home())} lacks {names(lost, 3)}: making it again")
        (folder / "notebooks" / "08_results.ipynb").unlink(missing_ok=True)


def lacks(profile: Profile) -> list[str]:
    """Files of a finished run that this one has not."""
    notebooks = [
        f"notebooks/{name}{suffix}.ipynb"
        for name, targets in _notebooks(profile).items()
        for suffix in [f"-{target}" for target in targets] or [""]
    ]
    folder = results.run_folder(profile)
    return [file for file in [*notebooks, *report.files(profile), "report.html"] if not (folder / file).is_file()]


@dataclass(frozen=True)
class Preview:
    """What a run would do: its jobs, and what the whole profile costs."""

    jobs: dict[str, int]  # notebook, "report" and "total": how often it is executed now
    cost: Plan | Estimate | None  # None: not known before the corpus is fetched

    def text(self) -> str:
        """For people."""
        head = [f"{name:<24}{count:>4}" for name, count in self.jobs.items()]
        head = head if self.jobs else ["jobs: none, everything is up to date"]
        if isinstance(self.cost, Estimate):
            return "\n".join([*head, *self.cost.lines()])
        return "\n".join([*head, self.cost.line() if self.cost else UNKNOWN])

    def as_data(self) -> dict[str, object]:
        """For programs."""
        cost: dict[str, object] | None = None
        if isinstance(self.cost, Estimate):
            cost = self.cost.as_data()
        elif self.cost:
            cost = asdict(self.cost) | {"hours": self.cost.hours, "gigabytes": self.cost.gigabytes}
            cost["not_measured"] = [tts for tts in self.cost.spoken if tts not in SPEAK]
        return {"jobs": self.jobs, "cost": cost}


def preview(profile: Profile, executor: Executor = HERE) -> Preview:
    """What `run` would do: its jobs, and the hours and gigabytes of the whole profile."""
    stages.check(profile)
    given.check(profile)
    check_resources(profile, [*notebook_names(), REPORT])
    _check(profile, executor)
    if stages.has_corpus(profile):
        stages.check_domains_and_folds(profile)
    cost = _cost(profile)
    if not stages.has_corpus(profile) or not _up_to_date(profile):
        return Preview(_all_jobs(profile), cost)
    found = snakemake(profile, executor, ["--dry-run", "--quiet", "rules"], capture=True)
    if found.returncode:
        raise JobError(f"the workflow does not work out: {found.stderr.strip() or found.stdout.strip()}")
    return Preview(_job_table(found.stdout), cost)


def _cost(profile: Profile) -> Plan | Estimate | None:
    rows = stages.real_rows(profile) if stages.has_corpus(profile) else None
    if profile.evaluation.protocol == "paper" and (rows is not None or paperplan.known(profile)):
        return paperplan.estimate(profile, _all_jobs(profile)["total"], rows)
    return None if rows is None else plan(profile, rows)


def write_report(folder: Path) -> Path:
    """Write the HTML report of a run, with the clips of its examples."""
    profile = load_profile(folder / report.PROFILE)
    clips = stages.real_rows(profile).set_index("utterance").path.map(Path).to_dict()
    return report.write_html(folder, clips, machine.about() | {"seeds": names(profile.seeds)})


def snakemake(
    profile: Profile, executor: Executor, options: list[str], capture: bool = False
) -> subprocess.CompletedProcess:
    """Call Snakemake on the workflow of a profile."""
    config = {
        "name": json.dumps([profile.name]),  # alone, Snakemake would take 5e-5 for a number
        "home": str(home()),
        "targets": json.dumps(profile.targets),
        "clips": json.dumps(_clips(profile)),
        "threads": profile.threads,
        "alone": executor.alone(profile),
        "resources": json.dumps({name: executor.resources(profile, name) for name in [*notebook_names(), REPORT]}),
    }
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(home())]
    command += executor.arguments(profile)
    command += ["--rerun-triggers", "mtime", "--rerun-incomplete", "--nolock"]  # a killed run leaves its lock behind
    command += [*options, "--config", *(f"{key}={value}" for key, value in config.items())]
    if capture:
        return subprocess.run(command, capture_output=True, text=True)
    return subprocess.CompletedProcess(command, signals.call(command))


def _clips(profile: Profile) -> list[int]:
    """Real clips of each target, 0 before the corpus is there."""
    domains = stages.real_rows(profile).domain.tolist() if stages.has_corpus(profile) else []
    return [domains.count(target) for target in profile.targets]


def _check(profile: Profile, executor: Executor) -> None:
    """Let Snakemake and its plug-in read their options before anything is fetched."""
    if executor.check().cluster:
        read = snakemake(profile, executor, ["--list-rules"], capture=True)
        if read.returncode:
            said = (read.stderr.strip() or read.stdout.strip()).splitlines()[-1]
            raise UserError(f"the executor {executor.name}: {said.rpartition(' error: ')[2]}")


def _work(profile: Profile, executor: Executor) -> None:
    told = results.run_folder(profile) / ".told"
    told.unlink(missing_ok=True)
    done = snakemake(profile, executor, ["--quiet", *executor.quiet])
    message = told.read_text(encoding="utf-8") if told.exists() else ""
    told.unlink(missing_ok=True)  # also what a job told that went well when it was started again
    if done.returncode and message:
        raise UserError(message)
    if done.returncode:
        raise JobError(f"a job of the run {profile.name} failed: see the lines above; call again to go on")


def _up_to_date(profile: Profile) -> bool:
    """Whether the run's folder was made from this profile, these data and this code."""
    file = results.run_folder(profile) / INPUTS
    return file.is_file() and stages.has_corpus(profile) and file.read_text(encoding="utf-8") == _inputs(profile)


def _finished(profile: Profile) -> bool:
    """Whether nothing is left to do. The report is made last: of what is newer Snakemake knows whether it matters."""
    if not _up_to_date(profile) or lacks(profile):
        return False
    folder = results.run_folder(profile)
    sources = [folder / INPUTS, *(notebook.notebook_path(name) for name in notebook_names())]
    made = (folder / "report.html").stat().st_mtime_ns
    return all(source.stat().st_mtime_ns <= made for source in sources)


def _settled(profile: Profile) -> Profile:
    """The profile with what this machine decides: nodes of a cluster may differ, and must not make their own models."""
    precision = machine.precision(profile.backbone.precision)
    return profile.model_copy(update={"backbone": profile.backbone.model_copy(update={"precision": precision})})


def _is_of(folder: Path, profile: Profile) -> bool:
    """Whether the profile that a run has asks for the same results."""
    beside = {"resources", "description"}  # change nothing that is made
    try:
        there = load_profile(folder / report.PROFILE)
    except UserError:  # of another version
        return False
    return _settled(there).model_dump(exclude=beside) == _settled(profile).model_dump(exclude=beside)


def _inputs(profile: Profile) -> str:
    made_from = {
        "profile": _settled(profile).model_dump(mode="json", exclude={"resources"}),
        "corpus": stages.corpus(profile).fingerprint,
        "pretrained": stages.parent(profile),
        "code": _code_hash(),
    }
    return json.dumps(made_from, indent=1, ensure_ascii=False)


def _all_jobs(profile: Profile) -> dict[str, int]:
    """Every job of a run that starts anew."""
    counts = {name: len(targets) or 1 for name, targets in _notebooks(profile).items()}
    return counts | {"report": 1, "total": sum(counts.values()) + 1}


def _notebooks(profile: Profile) -> dict[str, list[str]]:
    """Notebook -> the targets that it is run for; none: it is run once."""
    paths = {name: notebook.notebook_path(name) for name in notebook_names()}
    return {name: profile.targets if "target" in notebook.parameters(path) else [] for name, path in paths.items()}


def _job_table(said: str) -> dict[str, int]:
    """The first table of jobs in what Snakemake says: name -> how often."""
    lines = said.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("job ")]
    ends = [i for i, line in enumerate(lines) if line.startswith("total ")]
    rows = [line.split() for line in lines[starts[0] + 1 : ends[0] + 1]] if starts and ends else []
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _code_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.suffix in (".py", ".html") or path == SNAKEFILE:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
