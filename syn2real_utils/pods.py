"""Kubernetes, as far as it is not like other clusters: pods share a volume with the caller, and nothing else."""

import os
import shutil
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
    if not shutil.which("rsync"):
        raise UserError(
            "no rsync here, by which Snakemake copies its files to the volume: install it (apt install rsync)"
        )
    if reachable:
        _ask(options.get(NAMESPACE, "default"))


def _ask(namespace: str) -> None:
    """Ask the cluster for the jobs of a namespace, as the plug-in will."""
    client, config, http = (import_module(name) for name in ("kubernetes.client", "kubernetes.config", "urllib3"))
    try:
        try:
            config.load_kube_config(os.environ.get("KUBECONFIG"))
        except config.ConfigException:
            config.load_incluster_config()
        client.BatchV1Api().list_namespaced_job(namespace, limit=1, _request_timeout=WAIT)
    except config.ConfigException as error:
        raise UserError(
            "no kubeconfig here and no service account: set KUBECONFIG to one that 'kubectl get jobs' works with"
        ) from error
    except client.ApiException as error:
        raise UserError(
            f"Kubernetes refuses to list the jobs of the namespace {namespace}: {error.status} {error.reason}; the "
            "caller must make, see and delete jobs, pods, their logs and secrets there"
        ) from error
    except http.exceptions.HTTPError as error:
        raise UserError(f"Kubernetes at {client.Configuration.get_default_copy().host} does not answer") from error
