"""A finished run that never was: tiny random Whispers, their vectors in a store, tables, exported models."""

import json
import shutil
from functools import partial
from pathlib import Path

import torch
from transformers import WhisperForConditionalGeneration

from syn2real_utils import checkpoints, selection, statistics
from syn2real_utils.lineage import MADE_FROM
from syn2real_utils.profile import load_profile
from syn2real_utils.store import DONE, Store
from tests import made
from tests.test_checkpoints import make, trained

TARGETS, ENGINES, DOMAINS = ("animals", "food"), ("kokoro", "pico"), ["household", "town"]
LAM = 0.5  # that `made.utterances` marks as chosen


def finished(home: Path, name: str = "made", first_seed: int = 0, size: int = 16, backbone: Path | None = None) -> Path:
    """The folder of a run below `home`/runs, and `home`/pretrained that its models come from.

    Args:
        home: the project's folder.
        name: of the run.
        first_seed: of the random weights; another one makes other models of the same lineage.
        size: width of the models.
        backbone: that the models come from, each moved at random; None: random models that come from `home`/pretrained.
    """
    store, folder = Store(home), home / "runs" / name
    settings = {"name": name, "targets": list(TARGETS), "sources": DOMAINS}
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text(load_profile("quickstart", settings).to_yaml())
    (folder / "run.json").write_text(json.dumps({"commit": "0123456789ab", "machine": "a machine"}))
    parent = backbone or home / "pretrained"
    if not parent.exists():
        make(parent, 0, size)
    how: dict = {"moved": partial(moved, backbone)} if backbone else {"size": size}
    rows = made.utterances()
    (folder / "tables").mkdir()
    rows.to_csv(folder / "tables" / "utterances.csv", index=False)
    selection.lam_table(rows).to_csv(folder / "tables" / "lam.csv", index=False)
    statistics.changes_table(rows, samples=50).to_csv(folder / "tables" / "changes.csv", index=False)
    for i, tts in enumerate(ENGINES):
        seed = first_seed + 10 * (i + 1)
        models = home / "made" / name / tts
        trained(models / "real", seed + 1, parent, "real", DOMAINS, **how)
        trained(models / "syn", seed + 2, parent, tts, DOMAINS, **how)
        tau = _vector(store, models, seed)
        for j, target in enumerate(TARGETS):
            base = trained(models / target, seed + 3 + j, parent, tts, [target], **how)
            _export(store, base, tau, folder / "models" / f"{target}-{tts}-s0", seed + j)
    return folder


def moved(backbone: Path, folder: Path, seed: int) -> Path:
    """A model of a backbone's size whose weights were moved at random, as a folder."""
    model = WhisperForConditionalGeneration.from_pretrained(backbone)
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
    model.save_pretrained(folder)
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
    (into / MADE_FROM).write_text(json.dumps(adapted.key()))
    shutil.rmtree(adapted.path)  # the exported model is enough
