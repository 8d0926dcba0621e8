"""Where the jobs of a run are computed: on this machine, or on a cluster through Snakemake's own plug-ins."""

import importlib.util
import os
import shlex
import shutil
from dataclasses import dataclass
from importlib.metadata import version

from syn2real_utils import machine, pods
from syn2real_utils.errors import UserError, names
from syn2real_utils.profile import JobPart, Profile

LOCAL = "local"
PLUGINS = {name: f"snakemake-executor-plugin-{name}" for name in ("slurm", "kubernetes")}
NOT_THESE = {"kubernetes": ("0.5.1",)}  # asks for the log of a failed pod in a way that Kubernetes refuses
INSTALL = 'pip install -c constraints.txt -e ".[cluster]"'
REPORT = "report"  # the last rule of the workflow, which is no notebook
JOB_MB = 3500  # memory of one job with Whisper base, in MB
# seconds that files of a node may take to be seen on another through a network file system
LATENCY = 60


@dataclass(frozen=True)
class Executor:
    """Where jobs run, and how many at once."""

    name: str = LOCAL
    cores: int = 0  # of this machine; 0: all
    jobs: int = 0  # most jobs at once on a cluster; 0: as many as can start
    options: tuple[str, ...] = ()  # name=value of Snakemake or its plug-in, e.g. slurm-status-command=squeue

    @property
    def cluster(self) -> bool:
        """Whether jobs leave this machine."""
        return self.name != LOCAL

    @property
    def quiet(self) -> tuple[str, ...]:
        """What Snakemake does not say: jobs on this machine speak for themselves, those on a cluster into its logs."""
        return ("host", "rules") if self.cluster else ("all",)

    def check(self, reachable: bool = True) -> "Executor":
        """Return the executor if jobs can be sent to it; with `reachable`, from this machine.

        Raises:
            UserError: an unknown executor, options of the other kind, or something that is not installed.
        """
        if self.cluster and self.name not in PLUGINS:
            raise UserError(f"no executor '{self.name}': use one of {names([LOCAL, *PLUGINS])}")
        if not self.cluster and (self.jobs or self.options):
            raise UserError("--jobs and --executor-option are for a cluster: give --executor slurm or kubernetes too")
        if self.cluster and self.cores:
            raise UserError(
                f"--cores is for this machine: with --executor {self.name} give --jobs, the most jobs at once"
            )
        if self.cluster:
            _check_plugin(self.name)
        if reachable and self.name == "slurm" and not shutil.which("sbatch"):
            raise UserError("no sbatch here: call on a login node of the Slurm cluster, or leave --executor out")
        given = dict(map(_pair, self.options))
        if self.name == "kubernetes":
            pods.check(given, _words(given.get(pods.VOLUMES, "")), reachable)
        return self

    def arguments(self, profile: Profile) -> list[str]:
        """What Snakemake is called with."""
        if not self.cluster:
            most = max(JOB_MB, int(0.8 * 1000 * machine.memory_gb()))
            return ["--cores", str(self._all_cores()), "--resources", f"mem_mb={most}"]
        arguments = ["--executor", self.name, "--jobs", str(self.jobs or "unlimited"), "--keep-going"]
        arguments += ["--retries", str(profile.resources.retries), "--latency-wait", str(LATENCY)]
        if self.name == "kubernetes":
            arguments += pods.arguments()
        for name, value in map(_pair, self.options):
            arguments += [f"--{name}", *_words(value)]
        return arguments

    def alone(self, profile: Profile) -> int:
        """Threads of a job beside which no other can run; on a cluster it asks for no more than others."""
        return profile.threads if self.cluster else max(profile.threads, self._all_cores())

    def resources(self, profile: Profile, name: str) -> dict[str, int | str]:
        """Snakemake's resources of the job of one notebook, or of the report."""
        if not self.cluster:
            return {"mem_mb": JOB_MB}
        return self._named(profile.resources.job(name))

    def _all_cores(self) -> int:
        return self.cores or os.cpu_count() or 1

    def _named(self, job: JobPart) -> dict[str, int | str]:
        found: dict[str, int | str | None] = {
            "mem_mb": int(1000 * job.memory_gb) if job.memory_gb else JOB_MB,
            "runtime": job.minutes,
            "gpu": job.gpus or None,
            "slurm_partition": job.partition,
            "slurm_account": job.account,
        }
        if self.name == "kubernetes" and job.gpus:
            found |= pods.GPU
        return {key: value for key, value in found.items() if value is not None} | job.more


def check_resources(profile: Profile, rules: list[str]) -> None:
    """Raise UserError where the profile asks something for a job that there is not."""
    for name in profile.resources.notebooks:
        if name not in rules:
            raise UserError(f"profile {profile.name}: resources.notebooks: no job '{name}': use one of {names(rules)}")


def _check_plugin(name: str) -> None:
    """Raise UserError where Snakemake's plug-in is missing, or is a version that cannot do with failed jobs."""
    plugin = PLUGINS[name]
    if not importlib.util.find_spec(plugin.replace("-", "_")):
        raise UserError(f"the executor {name} needs {plugin}: install it with {INSTALL}")
    if name in NOT_THESE and (there := version(plugin)) in NOT_THESE[name]:
        raise UserError(
            f"{plugin} {there} gives up at the first failed job: take the version of constraints.txt, {INSTALL}"
        )


def _pair(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    if not name or name.startswith("-"):
        raise UserError(f"--executor-option '{option}': expected name=value, e.g. slurm-status-command=squeue")
    return name, value


def _words(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise UserError(f"--executor-option '{value}': {str(error).lower()}; quote it as a shell would") from error
