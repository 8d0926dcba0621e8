"""The task vectors of a finished run, from its files alone: profile, tables, exported models and artifacts."""

import json
import math
from pathlib import Path

import pandas as pd

from syn2real_utils import selection, statistics, tables
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import LINEAGE
from syn2real_utils.origins import origin
from syn2real_utils.profile import Profile, load_profile
from syn2real_utils.readyvector import About, Data, ReadyVector, lineage_of
from syn2real_utils.store import DONE, sha256
from syn2real_utils.tensorfiles import VECTOR

PROFILE, RUN = "profile.yaml", "run.json"  # of a run


def of_run(folder: Path) -> list[ReadyVector]:
    """The vectors of a finished run: by target, TTS and seed, in the order of its profile."""
    profile = load_profile(folder / PROFILE)
    return [
        vector_of_run(folder, profile, target, part.name, seed)
        for target in profile.targets
        for part in profile.tts
        for seed in profile.seeds
    ]


def vector_of_run(folder: Path, profile: Profile, target: str, tts: str, seed: int) -> ReadyVector:
    """The pooled vector of one target, TTS and seed of a run: what its `adapted` is made with.

    Raises:
        UserError: the run is not finished, or its vector was deleted.
    """
    lam = float(_row(folder, "lam", target, tts, seed).lam_chosen)
    change = _row(folder, "changes", target, tts, seed, lam)
    path = _artifact(folder, target, tts, seed, lam)
    lineage, about = lineage_of(path / VECTOR), _json(folder / RUN)
    data = tuple(data_of(name) for name in (profile.backbone.name, profile.corpus.name, tts))
    return ReadyVector(
        path,
        lineage,
        About(
            architecture=lineage.architecture,
            parent=str(lineage.parent),
            base_model=base_model(profile.backbone.name),
            language=profile.corpus.language,
            corpus=profile.corpus.name,
            tts=tts,
            domains=lineage.domains,
            seed=seed,
            lam=lam,
            lam_how=selection.how_chosen(profile.evaluation.protocol),
            target=target,
            protocol=profile.evaluation.protocol,
            relative_change=_number(change.relative_change),
            change_low=_number(change.ci_low),
            change_high=_number(change.ci_high),
            confidence=profile.evaluation.confidence,
            wer_syn_target=float(change.wer_baseline),
            wer_adapted=float(change.wer_model),
            **_gain(folder, profile, target, tts, seed, lam),
            data=data,
            noncommercial=any(part.noncommercial for part in data),
            profile=profile.name,
            commit=str(about.get("commit", "unknown")),
            machine=str(about.get("machine", "unknown")),
        ),
    )


def base_model(name: str) -> str:
    """A backbone as others know it: its name on the hub, or of a local folder the last part of its path."""
    found = origin(name)
    return found.hub or found.name


def data_of(name: str) -> Data:
    """A backbone, corpus or TTS engine by the name that a profile gives it, as others may know it."""
    found = origin(name)
    return Data(name=found.name, licence=found.licence, noncommercial=found.noncommercial)


def _row(folder: Path, table: str, target: str, tts: str, seed: int, lam: float | None = None) -> pd.Series:
    """The one row of `adapted` in a table of a run."""
    file = folder / "tables" / f"{table}.csv"
    if not file.is_file():
        raise UserError(f"the run {folder} has no tables/{table}.csv: finish it with 'syn2real run {folder.name}'")
    rows = tables.read_csv(file)
    rows = rows[(rows.model == "adapted") & (rows.target == target) & (rows.tts == tts)]
    rows = rows[rows.seed.astype(str) == str(seed)]
    if lam is not None:
        rows = rows[rows.lam.round(selection.DIGITS) == lam]
    if len(rows) != 1:
        what = f"target {target}, TTS {tts}, seed {seed}{'' if lam is None else f', lam {lam:g}'}"
        raise UserError(f"{file} has {len(rows)} rows of adapted for {what}, expected one: run {folder.name} again")
    return rows.iloc[0]


def _gain(folder: Path, profile: Profile, target: str, tts: str, seed: int, lam: float) -> dict[str, float | None]:
    """adapted against pretrained on the target; nothing where the run's rows are gone."""
    file = folder / "tables" / "utterances.csv"
    if not file.is_file():
        return {}
    rows = tables.read_csv(file)
    rows = rows[(rows.target == target) & (rows.tts == tts) & (rows.seed.astype(str) == str(seed))]
    adapted = rows[(rows.model == "adapted") & (rows.lam.round(selection.DIGITS) == lam)]
    pretrained = rows[rows.model == "pretrained"]
    part = profile.evaluation
    found = statistics.paired_change(adapted, pretrained, part.bootstrap_samples, part.confidence)
    numbers = {"gain": found.relative, "gain_low": found.low, "gain_high": found.high}
    return {"wer_pretrained": statistics.corpus_wer(pretrained)} | {n: _number(v) for n, v in numbers.items()}


def _artifact(folder: Path, target: str, tts: str, seed: int, lam: float) -> Path:
    """The store's folder of the vector that the run's exported model was made with.

    The export is a copy of an artifact, whose key names the vector: so the run's files alone say which one it is, whatever
    else lies in the store.
    """
    exported, artifacts = folder / "models" / f"{target}-{tts}-s{seed}", folder.parent / "artifacts"
    again = f"'syn2real run {folder.name}' makes it"
    if not (exported / LINEAGE).is_file():
        raise UserError(f"the run {folder} has no models/{exported.name}: {again}")
    made = [_json(done) for done in sorted((artifacts / "adapted").glob(f"*/{DONE}"))]
    same = {str(noted["key"]["vector"]) for noted in made if noted and _copied(exported, noted, lam)}
    if len(same) > 1:  # equal in all but their weights
        same = {str(noted["key"]["vector"]) for noted in made if noted and _copied(exported, noted, lam, weights=True)}
    found = [
        path for one in same for path in sorted((artifacts / "vectors").glob(f"*-{one}")) if (path / DONE).is_file()
    ]
    if len(found) != 1:
        raise UserError(f"the task vector of {exported} is no longer in {artifacts}: {again} again")
    return found[0]


def _copied(exported: Path, noted: dict, lam: float, weights: bool = False) -> bool:
    """Whether a model folder is a copy of the artifact that `noted`, its done.json, tells of; `weights`: compared too."""
    files = noted["files"]
    if noted["key"].get("lam") != lam or any(  # `adapt` keeps models there that are made without a lam
        not (exported / name).is_file() or (exported / name).stat().st_size != size for name, (size, _) in files.items()
    ):
        return False
    compared = [name for name in files if name == LINEAGE or (weights and name.endswith(".safetensors"))]
    return all(sha256(exported / name) == files[name][1] for name in compared)


def _json(file: Path) -> dict:
    """What a JSON file of ours holds; nothing where it is missing or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
