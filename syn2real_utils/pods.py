"""Kubernetes, as far as it is not like other clusters: pods share a volume with the caller, and nothing else."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from syn2real_utils.errors import UserError, names
from syn2real_utils.store import home

IMAGE, VOLUMES, NAMESPACE = "container-image", "kubernetes-persistent-volumes", "kubernetes-namespace"
# where a pod keeps its copies of Snakemake's files: below the project's folder pods would delete those of others
OWN_COPIES = "/tmp/snakemake-storage"
# what a GPU needs beside its number. scale 0: as limits too, which Kubernetes wants for GPUs
GPU: dict[str, int | str] = {"gpu_manufacturer": "nvidia", "scale": 0}
PACKAGE = Path(__file__).resolve().parent
WAIT = 20  # seconds for an answer of the cluster, before anything is fetched


def arguments() -> list[str]:
    """What Snakemake is called with: pods start in folders of their own, so its files go by the volume."""
    found = ["--default-storage-provider", "fs", "--default-storage-prefix", str(home())]
    return [*found, "--remote-job-local-storage-prefix", OWN_COPIES]


def check(options: Mapping[str, str], volumes: Sequence[str], reachable: bool = True) -> None:
    """Raise UserError unless pods would find the project and, with `reachable`, the cluster answers.

    `options`: those of Snakemake, by name; `volumes`: CLAIM:PATH each.
    """
    if lacking := [name for name in (IMAGE, VOLUMES) if not options.get(name)]:
        raise UserError(
            f"the executor kubernetes needs --executor-option {names(f'{n}=...' for n in lacking)}: see docs/cluster.md"
        )
    mounted = [volume.partition(":")[2] for volume in volumes]
    if not any(path and home().is_relative_to(Path(path)) for path in mounted):
        raise UserError(
            f"the project's folder {home()} lies on none of the volumes {options[VOLUMES]}: jobs would not see it"
        )
    if not PACKAGE.is_relative_to(home().resolve()):
        raise UserError(
            f"pods take the package from the project's folder {home()}, but it is installed from {PACKAGE.parent}: "
            "call with the pip install -e of that folder's checkout"
        )
    for program in ("rsync", "git"):
        if not shutil.which(program):
            raise UserError(f"no {program} here, which Snakemake's files go to the pods by: apt install {program}")
    _check_repository()
    if reachable:
        _ask(options.get(NAMESPACE, "default"))


def _check_repository() -> None:
    """Raise UserError unless git lists the project's files: Snakemake sends them to the pods."""
    listed = subprocess.run(["git", "-C", home(), "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode:
        said = (listed.stderr.strip().splitlines() or ["no word"])[0]
        raise UserError(f"pods get the files that git knows, and git cannot list those of {home()}: {said}")


def _ask(namespace: str) -> None:
    """Ask the cluster for what the plug-in asks for first, a secret, without its being made."""
    client, http = import_module("kubernetes.client"), import_module("urllib3")
    _load_settings()
    settings = client.Configuration.get_default_copy()
    settings.retries = False
    secret = client.V1Secret(metadata=client.V1ObjectMeta(generate_name="syn2real-"))
    core = client.CoreV1Api(client.ApiClient(settings))
    try:
        core.create_namespaced_secret(namespace, secret, dry_run="All", _request_timeout=WAIT)
    except client.ApiException as error:
        raise UserError(
            f"Kubernetes refuses a secret in the namespace {namespace}: {error.status} {error.reason}; the caller must "
            "make, see and delete jobs, pods, their logs and secrets there"
        ) from error
    except http.exceptions.HTTPError as error:
        why = " ".join(str(getattr(error, "reason", error)).split())
        raise UserError(f"Kubernetes at {settings.host} does not answer: {why}") from error


def _load_settings() -> None:
    """Take the kubeconfig, or where there is none the pod's service account, as the plug-in does."""
    config, file = import_module("kubernetes.config"), os.environ.get("KUBECONFIG")
    try:
        config.load_kube_config(file)
    except Exception as error:  # it reads YAML, certificates and tokens, and checks none
        try:
            config.load_incluster_config()
        except config.ConfigException:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"no kubeconfig that can be used ({said}), and no service account: set KUBECONFIG to one that 'kubectl' works with"
            ) from error
