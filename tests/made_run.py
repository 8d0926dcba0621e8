"""A finished run that never was: tiny random Whispers, their vectors in a store, tables, exported models."""

import json
import shutil
from pathlib import Path

from syn2real_utils import checkpoints, selection, statistics
from syn2real_utils.profile import load_profile
from syn2real_utils.store import DONE, Store
from tests import made
from tests.test_checkpoints import make, trained

TARGETS, ENGINES, DOMAINS = ("animals", "food"), ("kokoro", "pico"), ["household", "town"]
LAM = 0.5  # that `made.utterances` marks as chosen


def finished(home: Path, name: str = "made", first_seed: int = 0, size: int = 16) -> Path:
    """The folder of a run below `home`/runs, and `home`/pretrained that its models come from.

    Args:
        home: the project's folder.
        name: of the run.
        first_seed: of the random weights; another one makes other models of the same lineage.
        size: width of the models.
    """
    store, folder = Store(home), home / "runs" / name
    settings = {"name": name, "targets": list(TARGETS), "sources": DOMAINS}
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text(load_profile("quickstart", settings).to_yaml())
    (folder / "run.json").write_text(json.dumps({"commit": "0123456789ab", "machine": "a machine"}))
    parent = home / "pretrained"
    if not parent.exists():
        make(parent, 0, size)
    rows = made.utterances()
    (folder / "tables").mkdir()
    selection.lam_table(rows).to_csv(folder / "tables" / "lam.csv", index=False)
    statistics.changes_table(rows, samples=50).to_csv(folder / "tables" / "changes.csv", index=False)
    for i, tts in enumerate(ENGINES):
        seed = first_seed + 10 * (i + 1)
        models = home / "made" / name / tts
        trained(models / "real", seed + 1, parent, "real", DOMAINS, size=size)
        trained(models / "syn", seed + 2, parent, tts, DOMAINS, size=size)
        tau = _vector(store, models, seed)
        for j, target in enumerate(TARGETS):
            base = trained(models / target, seed + 3 + j, parent, tts, [target], size=size)
            _export(store, base, tau, folder / "models" / f"{target}-{tts}-s0", seed + j)
    return folder


def vector_folder(run: Path, tts: str = "kokoro") -> Path:
    """Where the store holds the vector of an engine."""
    (found,) = (run.parent / "artifacts" / "vectors").glob(f"{tts}-{run.name}-*[0-9a-f]")
    return found


def _vector(store: Store, models: Path, seed: int):
    label = f"{models.name}-{models.parent.name}"
    return store.build(
        "runs/artifacts/vectors",
        label,
        {"seed": seed},
        lambda into: checkpoints.subtract(models / "real", models / "syn", into, overwrite=True),
    )


def _export(store: Store, base: Path, tau, into: Path, seed: int) -> None:
    adapted = store.build(
        "runs/artifacts/adapted",
        f"{into.name}-lam{LAM:g}",
        {"base": f"{seed}", "vector": tau.fingerprint, "lam": LAM},
        lambda folder: checkpoints.apply(base, tau.path, LAM, folder, overwrite=True),
    )
    shutil.copytree(adapted.path, into, ignore=shutil.ignore_patterns(DONE))
