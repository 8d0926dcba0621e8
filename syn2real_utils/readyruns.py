"""The task vectors of a finished run, from its files alone: profile, tables, exported models and artifacts."""

import json
import math
from pathlib import Path

import pandas as pd

from syn2real_utils import selection, statistics, tables
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import MADE_FROM
from syn2real_utils.origins import Origin, of_corpus, of_profile, origin
from syn2real_utils.profile import Profile, load_profile
from syn2real_utils.readyvector import About, Data, ReadyVector, lineage_of
from syn2real_utils.store import DONE
from syn2real_utils.tensorfiles import VECTOR

PROFILE, RUN = "profile.yaml", "run.json"  # of a run


def of_run(folder: Path) -> list[ReadyVector]:
    """The vectors of a finished run: by target, TTS and seed, in the order of its profile.

    A run exports models of its first seed; of the others only what notebook 05 was executed for is there.
    """
    profile = load_profile(folder / PROFILE)
    evidence = {part.name: _evidence(folder, profile, part.name) for part in profile.tts}
    return [
        _vector(folder, profile, target, part.name, seed, evidence[part.name])
        for target in profile.targets
        for part in profile.tts
        for seed in profile.seeds
        if seed == profile.seeds[0] or _exported(folder, target, part.name, seed).is_dir()
    ]


def vector_of_run(folder: Path, profile: Profile, target: str, tts: str, seed: int) -> ReadyVector:
    """The pooled vector of one target, TTS and seed of a run: what its `adapted` is made with.

    What to expect of it is what the run measured with this TTS over all its targets and seeds, each at the lam that was chosen:
    of ten targets the one that gained most would promise too much.

    Raises:
        UserError: the run is not finished, or its vector was deleted.
    """
    return _vector(folder, profile, target, tts, seed, _evidence(folder, profile, tts))


def _vector(folder: Path, profile: Profile, target: str, tts: str, seed: int, evidence: dict) -> ReadyVector:
    if seed != profile.seeds[0] and not _exported(folder, target, tts, seed).is_dir():
        raise UserError(
            f"the run {folder} exported no model of {target}, {tts}, seed {seed}, but of seed {profile.seeds[0]}: take that, or "
            f"call 'syn2real notebook 05 -p profile={folder / PROFILE} -p target={target} -p seed={seed}' first"
        )
    lam = _chosen_lam(folder, target, tts, seed)
    path = _artifact(folder, target, tts, seed, lam)
    lineage, about = lineage_of(path / VECTOR), _json(folder / RUN)
    data = tuple(data_of(part) for part in of_profile(profile, [tts]) if part != of_corpus(profile, texts=True))
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
            confidence=profile.evaluation.confidence,
            **evidence,
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


def data_of(found: Origin) -> Data:
    """A backbone, corpus or TTS engine as vector.json names it."""
    return Data(name=found.name, licence=found.licence, noncommercial=found.noncommercial)


def _table(folder: Path, table: str, wanted: tuple[str, ...]) -> pd.DataFrame:
    """A table of a run, which must have the columns `wanted`."""
    file = folder / "tables" / f"{table}.csv"
    if not file.is_file():
        raise UserError(f"the run {folder} has no tables/{table}.csv: finish it with 'syn2real run {folder.name}'")
    return tables.read_csv(file, wanted)


def _chosen_lam(folder: Path, target: str, tts: str, seed: int) -> float:
    """The lam of `adapted` that was chosen without target labels."""
    rows = _table(folder, "lam", selection.LAM_COLUMNS)
    rows = rows[(rows.model == "adapted") & (rows.target == target) & (rows.tts == tts)]
    rows = rows[rows.seed.astype(str) == str(seed)]
    if len(rows) != 1:
        what = f"target {target}, TTS {tts}, seed {seed}"
        raise UserError(
            f"{folder / 'tables' / 'lam.csv'} has {len(rows)} rows of adapted for {what}, expected one: run {folder.name} again"
        )
    lam = pd.to_numeric(rows.lam_chosen, errors="coerce").iloc[0]
    if not math.isfinite(lam):
        raise UserError(f"{folder / 'tables' / 'lam.csv'}: lam_chosen is no number: run {folder.name} again")
    return float(lam)


def _evidence(folder: Path, profile: Profile, tts: str) -> dict:
    """Fields of `About`: adapted at its chosen lam against syn_target and pretrained, over all targets and seeds of a run."""
    counted = ("utterance", "text_id", "n_words", "errors")
    rows, part = _table(folder, "utterances", ("tts", "model", "lam_source", *counted)), profile.evaluation
    models = dict(list(rows[rows.tts == tts].groupby("model")))
    if lacking := [name for name in ("pretrained", "syn_target", "adapted") if name not in models]:
        raise UserError(f"the run {folder} has no rows of {lacking[0]} with {tts}: run {folder.name} again")
    adapted = models["adapted"][selection.is_chosen(models["adapted"].lam_source)]
    change, gain = (
        statistics.paired_change(adapted, models[name], part.bootstrap_samples, part.confidence)
        for name in ("syn_target", "pretrained")
    )
    numbers = {
        "relative_change": change.relative, "change_low": change.low, "change_high": change.high,
        "gain": gain.relative, "gain_low": gain.low, "gain_high": gain.high,
    }  # fmt: skip
    wers = {f"wer_{name}": statistics.corpus_wer(models[name]) for name in ("pretrained", "syn_target")}
    measured = {"measured_on": tuple(profile.targets), "wer_adapted": statistics.corpus_wer(adapted)}
    return wers | measured | {name: round(v, 4) if math.isfinite(v) else None for name, v in numbers.items()}


def _exported(folder: Path, target: str, tts: str, seed: int) -> Path:
    """Where a run exports its adapted model of a target, TTS and seed."""
    return folder / "models" / f"{target}-{tts}-s{seed}"


def _artifact(folder: Path, target: str, tts: str, seed: int, lam: float) -> Path:
    """The store's folder of the vector that the run's exported model was made with: the model's folder says which one it is."""
    exported, artifacts = _exported(folder, target, tts, seed), folder.parent / "artifacts"
    again = f"'syn2real run {folder.name}' makes it"
    made_from = _json(exported / MADE_FROM)
    if "vector" not in made_from:
        raise UserError(f"the run {folder} has no models/{exported.name}/{MADE_FROM}, or a damaged one: {again}")
    if made_from.get("lam") != lam:
        raise UserError(f"{exported} is not of lam {lam:g}, as tables/lam.csv has it: {again} again")
    for done in sorted((artifacts / "vectors").glob(f"*/{DONE}")):
        if done.parent.name.endswith(f"-{made_from['vector']}"):
            return done.parent
    raise UserError(f"the task vector of {exported} is no longer in {artifacts}: {again} again")


def _json(file: Path) -> dict:
    """What a JSON file of ours holds; nothing where it is missing or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
