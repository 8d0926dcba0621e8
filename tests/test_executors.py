"""Executors: what cannot work is one line and status 2, and what the profile asks for reaches Snakemake's jobs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from snakemake.cli import parse_config

from syn2real_utils import cli, executors, pods, runs
from syn2real_utils.executors import Executor
from syn2real_utils.profile import load_profile
from tests.conftest import ROOT
from tests.kubernetes_standin import Cluster

RESOURCES = {
    "every": {"memory_gb": 6, "account": "speech", "partition": "cpu"},
    "notebooks": {
        "03_finetune": {
            "gpus": 2,
            "partition": "gpu",
            "minutes": 90,
            "more": {"slurm_extra": "--exclude=n1 --begin='now'"},
        },
        "report": {"memory_gb": 2},
    },
}


@pytest.mark.parametrize("name", ["5e-5", "007", "true", "a-run"])
def test_a_name_that_could_be_a_number_stays_the_name(name, monkeypatch):
    called: list[list[str]] = []
    monkeypatch.setattr(runs.signals, "call", lambda command, **rest: called.append(command))
    runs.snakemake(load_profile("quickstart", {"name": name}), Executor(), [])
    command = called[0]
    told = [word for word in command[command.index("--config") + 1 :] if not word.startswith("--")]
    assert parse_config(told)["name"] == [name]


def project(folder: Path, monkeypatch) -> Path:
    """A project whose run is prepared."""
    (folder / "runs" / "quickstart").mkdir(parents=True)
    (folder / "runs" / "quickstart" / runs.INPUTS).touch()
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.setenv("SYN2REAL_HOME", str(folder))
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A project in a folder of a name that shells and Snakemake read, on a machine that can call sbatch."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return project(tmp_path / "a user's {home}", monkeypatch)


def refused(capfd, *arguments: str) -> str:
    """What the command line says, which must be one line and status 2."""
    with pytest.raises(SystemExit) as raised:
        cli.main(["run", "quickstart", *arguments])
    err = capfd.readouterr().err
    assert raised.value.code == 2 and err.startswith("error: ") and len(err.splitlines()) == 1, err
    return err


def jobs(executor: Executor, targets=("animals", "food")) -> dict[str, str]:
    """What Snakemake would run: rule -> what it says of the rule's last job."""
    profile = load_profile("quickstart", {"resources": RESOURCES, "targets": list(targets)})
    found = runs.snakemake(profile, executor, ["--dry-run", "--printshellcmds"], capture=True)
    assert found.returncode == 0, found.stderr
    return dict(re.findall(r"^rule (\w+):\n((?:.+\n)+)", found.stdout + "\n", re.MULTILINE))


def test_the_largest_target_goes_first(home, monkeypatch):
    monkeypatch.setattr(runs.stages, "has_corpus", lambda profile: True)
    monkeypatch.setattr(runs.stages, "real_rows", lambda profile: pd.DataFrame({"domain": ["food"] * 3 + ["animals"]}))
    profile = load_profile("quickstart", {"targets": ["animals", "food"]})
    said = runs.snakemake(profile, Executor(), ["--dry-run"], capture=True).stdout
    found = dict(re.findall(r"wildcards: target=(\w+)\n(?:    .*\n)*?    priority: (\d+)\n", said))
    assert found == {"animals": "1", "food": "3"}
    assert "priority: 4\n" in said, "the models that all targets need"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--executor", "pbs"], "no executor 'pbs': use one of local, slurm, kubernetes"),
        (["--jobs", "3"], "--jobs and --executor-option are for a cluster"),
        (["--executor-option", "a=b"], "--jobs and --executor-option are for a cluster"),
        (["--executor", "slurm", "--cores", "3"], "with --executor slurm give --jobs"),
        (["--executor", "slurm", "--executor-option", "--a=b"], "expected name=value"),
        (
            ["--executor", "slurm", "--executor-option", "slurm-status-command=it's"],
            "no closing quotation; quote it as",
        ),
        (["--executor", "slurm", "--executor-option", "slurm-nonsense=1"], "unrecognized arguments: --slurm-nonsense"),
        (
            ["--executor", "slurm", "--set", "resources={notebooks: {finetune: {gpus: 1}}}"],
            "no job 'finetune': use one of 00_over",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_fetched(home, capfd, arguments, message):
    assert message in refused(capfd, *arguments)
    assert not (home / "data").exists()


def test_a_plug_in_that_is_not_installed_is_named(home, capfd, monkeypatch):
    monkeypatch.setitem(executors.PLUGINS, "slurm", "snakemake-executor-plugin-of-nobody")
    err = refused(capfd, "--executor", "slurm")
    assert "needs snakemake-executor-plugin-of-nobody: install it with pip install -c constraints.txt" in err


def test_slurm_is_called_where_there_is_slurm(home, capfd, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no sbatch here: call on a login node" in refused(capfd, "--executor", "slurm")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs --executor-option container-image=..., kubernetes-persistent-volumes=...: see docs"),
        (
            ["container-image=a", "kubernetes-persistent-volumes=claim:/nowhere"],
            "lies on none of the volumes claim:/no",
        ),
    ],
)
def test_kubernetes_needs_an_image_and_the_volume_with_the_project(home, capfd, options, message):
    given = [word for option in options for word in ("--executor-option", option)]
    assert message in refused(capfd, "--executor", "kubernetes", *given)


def test_resources_reach_the_jobs_of_slurm(home):
    found = jobs(Executor("slurm"))
    finetune, results = found["03_finetune"], found["08_results"]
    for asked in ("mem_mb=6000", "gpu=2", "runtime=90", "slurm_partition=gpu", "slurm_account=speech", "--exclude=n1"):
        assert asked in finetune, asked
    assert "mem_mb=6000" in results and "slurm_partition=cpu" in results and "gpu=" not in results
    assert "mem_mb=2000" in found["report"]


def test_jobs_on_this_machine_ask_for_nothing_of_it(home):
    found = jobs(Executor())
    assert all("mem_mb=3500" in job and "slurm_" not in job for rule, job in found.items() if rule != "all")


def test_one_job_per_notebook_and_target(home):
    profile = load_profile("quickstart", {"targets": ["animals", "food"]})
    found = runs.snakemake(profile, Executor("slurm", jobs=3), ["--dry-run", "--quiet", "rules"], capture=True)
    counts = dict(re.findall(r"^(\d\d_\w+|report) +(\d)$", found.stdout, re.MULTILINE))
    assert len(counts) == 10 and {n for n, count in counts.items() if count == "2"} == {
        "03_finetune", "04_vector_arithmetic", "05_lambda_curves", "07_ensemble",
    }  # fmt: skip


def test_a_gpu_of_kubernetes_is_asked_for_as_a_limit(tmp_path, monkeypatch):
    home = project(tmp_path / "volume", monkeypatch)
    volume = f"kubernetes-persistent-volumes=claim:{home}"
    kubernetes = Executor("kubernetes", options=("container-image=example.org/syn2real:1", volume))
    found, told = jobs(kubernetes), kubernetes.arguments(load_profile("quickstart"))
    copies = told[told.index("--remote-job-local-storage-prefix") + 1]
    assert not Path(copies).is_relative_to(home), "pods do not share copies of files"
    assert all(asked in found["03_finetune"] for asked in ("gpu=2", "gpu_manufacturer=nvidia", "scale=0"))
    assert "gpu" not in found["08_results"].split("Shell command")[0].split("resources:")[1]


@pytest.fixture
def volume(tmp_path, monkeypatch) -> Path:
    """A project with the package on a volume, on a machine with rsync."""
    home = project(tmp_path / "volume", monkeypatch)
    shutil.copytree(runs.SNAKEFILE.parent, home / "package" / "workflow")
    monkeypatch.setattr(runs, "SNAKEFILE", home / "package" / "workflow" / "Snakefile")
    monkeypatch.setattr(pods, "PACKAGE", home / "package")
    monkeypatch.setattr(pods, "OWN_COPIES", str(tmp_path / "copies"))
    subprocess.run(["git", "init", "--quiet", home], check=True)
    (tmp_path / "bin").mkdir()
    programs = {"pip": ""}  # pods would take the plug-in `fs` from an index: here they have it
    if not shutil.which("rsync"):
        programs["rsync"] = 'while [ $# -gt 2 ]; do shift; done; exec cp -rL --preserve=timestamps "$1" "$2"'
    for program, does in programs.items():
        (tmp_path / "bin" / program).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return home


def on_kubernetes(home: Path, *options: str) -> Executor:
    given = ("container-image=example.org/syn2real:1", f"kubernetes-persistent-volumes=claim:{home}", *options)
    return Executor("kubernetes", options=given)


def refused_on_kubernetes(capfd, home: Path) -> str:
    given = [word for option in on_kubernetes(home).options for word in ("--executor-option", option)]
    return refused(capfd, "--executor", "kubernetes", *given)


def test_kubernetes_is_asked_before_anything_is_fetched(volume, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with Cluster(tmp_path / "cluster", "") as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        on_kubernetes(volume).check()
        assert not cluster.secrets
        cluster.refuses = True
        assert "Kubernetes refuses a secret in the namespace default: 403 Forb" in refused_on_kubernetes(capfd, volume)
    assert "does not answer: " in refused_on_kubernetes(capfd, volume)
    for content in ("{", "[1]", "clusters: [{name: a, cluster: {certificate-authority-data: '*'}}]", ""):
        (tmp_path / "kubeconfig").write_text(content)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        assert "no kubeconfig that can be used (" in refused_on_kubernetes(capfd, volume), content
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    assert "no kubeconfig that can be used (" in refused_on_kubernetes(capfd, volume)
    assert not (volume / "data").exists()


def test_pods_need_the_package_and_the_files_of_the_volume_and_rsync(volume, monkeypatch, capfd):
    shutil.rmtree(volume / ".git")
    assert "git cannot list those of" in refused_on_kubernetes(capfd, volume)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no rsync here" in refused_on_kubernetes(capfd, volume)
    monkeypatch.setattr(pods, "PACKAGE", ROOT / "syn2real_utils")
    assert f"but it is installed from {ROOT}" in refused_on_kubernetes(capfd, volume)


def test_a_plug_in_that_gives_up_at_the_first_failed_job_is_refused(volume, monkeypatch, capfd):
    monkeypatch.setattr(executors, "version", lambda name: "0.5.1")
    assert "kubernetes 0.5.1 gives up at the first failed job" in refused_on_kubernetes(capfd, volume)


def test_a_lost_pod_costs_its_job_alone(volume, tmp_path, monkeypatch):
    profile = load_profile("quickstart")
    shutil.copy(ROOT / "syn2real_utils/profiles/quickstart.yaml", volume / "runs/quickstart/profile.yaml")
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.defpath])
    with Cluster(tmp_path / "cluster", path, lost=1) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        executor = on_kubernetes(volume, "seconds-between-status-checks=1")
        done = runs.snakemake(profile, executor, ["--until", "00_overview"], capture=True)
        said = [pod.log.read_text() for pod in cluster.pods.values()]
    assert done.returncode == 0, done.stderr[-2000:] + "".join(said)
    assert "Trying to restart job" in done.stderr and len(cluster.pods) == 2
    assert (volume / "runs/quickstart/notebooks/00_overview.ipynb").is_file()
    assert not cluster.secrets and all(pod.deleted for pod in cluster.pods.values()), "nothing is left on the cluster"
    asked = list(cluster.pods.values())[1].resources["requests"]
    assert asked == {"cpu": "1900m", "memory": "3500M"}
