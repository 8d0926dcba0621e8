"""From stages to tidy rows: what each target's models heard, the choice of lam, and all that a run writes."""

import itertools
import json
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import pandas as pd

from syn2real_utils import committed, extras, machine, report, selection, stages, statistics, weightspace
from syn2real_utils.directions import Direction, between, total
from syn2real_utils.evaluation import score
from syn2real_utils.lineage import REAL
from syn2real_utils.profile import Profile
from syn2real_utils.stages import VectorSpec
from syn2real_utils.store import Artifact, home, in_any_order, write_text_atomic

Kind = Literal["pooled", "mean"]
VECTOR_OF: dict[str, Kind] = {"adapted": "pooled", "ensemble": "mean"}  # model -> its vector

CONTEXT_COLUMNS = (
    "target", "tts", "seed", "lam", "context", "utterance", "text_id", "speaker", "reference", "hypothesis", "n_words", "errors",
)  # fmt: skip


def run_folder(profile: Profile) -> Path:
    """Where a run's tables, figures, executed notebooks and report lie."""
    return home() / "runs" / profile.name


def scaled(profile: Profile) -> list[str]:
    """The models of a profile that have a lam."""
    return ["adapted", *(["ensemble"] if profile.evaluation.ensembles else [])]


def spec(profile: Profile, target: str, tts: str, seed: int, model: str = "adapted") -> VectorSpec:
    """The task vector of a target: of all its source domains, pooled (`adapted`) or the mean of theirs (`ensemble`)."""
    return VectorSpec(VECTOR_OF[model], tts, stages.source_domains(profile, target), seed)


def source_scores(profile: Profile, target: str, tts: str, seed: int) -> pd.DataFrame:
    """pretrained, real_source and syn_source on the target's real clips."""
    shown = committed.rows(profile, "utterances", target=target, tts=tts, seed=seed)
    if shown is not None:
        return shown[shown.model.isin(["pretrained", "real_source", "syn_source"])]
    rows, sources = _all_test_rows(profile, target), stages.source_domains(profile, target)
    clips = rows.sort_values("utterance", ignore_index=True)  # however a protocol cuts folds: they share what is heard
    trained = {"real_source": REAL, "syn_source": tts}

    def heard(name: str) -> pd.DataFrame:
        model = stages.finetuned(profile, trained[name], sources, seed) if name in trained else None
        return scored(profile, rows, stages.transcripts(profile, model, clips)).assign(model=name, lam=float("nan"))

    return pd.concat(in_any_order([partial(heard, name) for name in ("pretrained", *trained)])).assign(
        target=target, tts=tts, seed=seed, protocol=profile.evaluation.protocol
    )


def target_scores(profile: Profile, target: str, tts: str, seed: int, model: str = "adapted") -> pd.DataFrame:
    """`adapted` (with syn_target) over the lam grid, or `ensemble` over the selection grid, on the target's real clips."""
    shown = committed.rows(profile, "utterances", target=target, tts=tts, seed=seed)
    if shown is not None:
        return shown[shown.model.isin(["syn_target", model] if model == "adapted" else [model])]
    grid = profile.evaluation.lam_grid if model == "adapted" else profile.evaluation.selection_grid
    vector = spec(profile, target, tts, seed, model)
    rows = sweep(
        profile, target, vector, grid, stages.folds(profile), sure=model == "adapted" and is_sure(profile, seed)
    )
    parts = [rows.assign(model=model)]
    if model == "adapted":
        parts = [rows[rows.lam == 0].assign(model="syn_target", lam=float("nan")), *parts]
    return pd.concat(parts).assign(target=target, tts=tts, seed=seed, protocol=profile.evaluation.protocol)


def selection_scores(profile: Profile, target: str, tts: str, seed: int, model: str = "adapted") -> pd.DataFrame:
    """WER over lam on each source domain as if it were the target, with the vector of the other source domains.

    The pooled vector of the others is stood for by the sum of theirs: to first order, a fine-tune on the pooled speech
    moves the weights by the sum of the moves of its domains, and no model has to be trained for each domain left out. The
    sum is longer, for a long fine-tune moves less with each step; it is cut to the length of the vector that lam will scale.
    Protocol `paper`: WER over lam on real speech of the target's devel part.

    Returns:
        The columns of `selection.SELECTION_COLUMNS`.
    """
    shown = committed.rows(profile, "selection", target=target, tts=tts, seed=seed, vector=VECTOR_OF[model])
    if shown is not None:
        return shown
    if profile.evaluation.protocol == "paper":
        return _devel_scores(profile, target, tts, seed, model)
    sources = stages.source_domains(profile, target)
    table = _left_out_scores(profile.model_dump_json(), home(), sources, tts, seed, model)
    table = table.assign(tts=tts, vector=VECTOR_OF[model], target=target, seed=seed)
    return table[list(selection.SELECTION_COLUMNS)]


@lru_cache(maxsize=256)  # the same for all targets of a group, and asked for again for every table
def _left_out_scores(settings: str, _: Path, sources: tuple[str, ...], tts: str, seed: int, model: str) -> pd.DataFrame:
    profile = Profile.model_validate_json(settings)
    folds, grid = stages.folds(profile)[: profile.evaluation.selection_folds], profile.evaluation.selection_grid

    def left_out(domain: str) -> pd.DataFrame:
        vector = left_out_vector(profile, sources, domain, tts, seed, model)
        rows = _moved(profile, domain, (tts, seed), vector, grid, folds)
        return rows.groupby("lam", as_index=False)[["errors", "n_words"]].sum().assign(domain=domain)

    domains = stages.selection_domains(profile, stages.real_rows(profile), sources)
    return pd.concat(in_any_order([partial(left_out, domain) for domain in domains]), ignore_index=True)


def left_out_vector(
    profile: Profile, sources: Sequence[str], domain: str, tts: str, seed: int, model: str = "adapted"
) -> VectorSpec | Direction:
    """The vector of the other source domains when one is left out; for the pooled one, a stand-in of its length.

    That length, one number, is of the vector of all sources: the left-out domain has had a part in it. Nothing of a target has.
    """
    others = tuple(d for d in sources if d != domain)
    if model == "ensemble":
        return VectorSpec("mean", tts, others, seed)

    def step(domains: Sequence[str]) -> Direction:
        return between(*(stages.finetuned(profile, speech, domains, seed) for speech in (REAL, tts)))

    return weightspace.as_long_as(total([step([d]) for d in others]), step(sources))


def _devel_scores(profile: Profile, target: str, tts: str, seed: int, model: str) -> pd.DataFrame:
    """`selection_scores` of protocol `paper`; both sides are normalised, for the floor of a raw reference is no model's doing."""
    rows, base = stages.devel_rows(profile, [target]), stages.syn_target(profile, tts, target, seed, None)
    vector, grid = spec(profile, target, tts, seed, model), profile.evaluation.selection_grid
    found = scored(profile, rows, stages.transcripts(profile, base, rows, vector, grid))
    table = found.groupby("lam", as_index=False)[["errors", "n_words"]].sum()
    table = table.assign(domain=target, tts=tts, vector=VECTOR_OF[model], target=target, seed=seed)
    return table[list(selection.SELECTION_COLUMNS)]


def chosen_lam(profile: Profile, target: str, tts: str, seed: int, model: str = "adapted") -> float:
    """The lam that the left-out source domains choose; nothing of the target is looked at but in protocol `paper`."""
    return selection.choose(selection_scores(profile, target, tts, seed, model))


def utterance_rows(profile: Profile, target: str, models: Sequence[str] | None = None) -> pd.DataFrame:
    """All rows of one target in the columns of tables/utterances.csv, lam chosen and oracle marked; None: of all `scaled` models."""

    def of(seed: int, tts: str, model: str) -> pd.DataFrame:
        if not model:
            return source_scores(profile, target, tts, seed).assign(lam_source="")
        chosen = chosen_lam(profile, target, tts, seed, model)
        return selection.mark(target_scores(profile, target, tts, seed, model), model, chosen)

    engines = [part.name for part in profile.tts]
    steps = [
        partial(of, *part) for part in itertools.product(profile.seeds, engines, ("", *(models or scaled(profile))))
    ]
    rows = pd.concat(in_any_order(steps), ignore_index=True)
    rows = rows.assign(backbone=profile.backbone.name)
    return rows[list(statistics.UTTERANCE_COLUMNS)]


def all_utterances(profile: Profile) -> pd.DataFrame:
    """`utterance_rows` of every target."""
    return pd.concat([utterance_rows(profile, target) for target in profile.targets], ignore_index=True)


def all_selections(profile: Profile) -> pd.DataFrame:
    """`selection_scores` of every target, TTS, model and seed."""
    return pd.concat(
        [
            selection_scores(profile, target, part.name, seed, model)
            for target in profile.targets
            for part in profile.tts
            for seed in profile.seeds
            for model in scaled(profile)
        ],
        ignore_index=True,
    )


def write_run(profile: Profile) -> Path:
    """Make what a run lacks and write its rows, its profile and what made it; return its folder."""
    folder = run_folder(profile)
    rows = {
        "utterances": all_utterances(profile),
        "selection": all_selections(profile),
        "contexts": all_contexts(profile),
        "cosines": weightspace.domain_cosines(profile),
        "geometry": weightspace.all_planes(profile),
        "synthetic": synthetic_quality(profile),
        **extra_rows(profile),
    }
    write_text_atomic(folder / report.PROFILE, profile.to_yaml())
    about = {"profile": profile.name, "seeds": profile.seeds} | machine.about()
    write_text_atomic(folder / "run.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    report.write_rows(folder, rows)
    return folder


def extra_rows(profile: Profile) -> dict[str, pd.DataFrame]:
    """The tables of the experiments that the profile switches on."""
    from syn2real_utils import localisation, rivals, selectors, studies  # they stand on this module

    made = {
        "rivals": rivals.all_rivals,
        "places": localisation.all_places,
        "norms": localisation.all_norms,
        "transfer": localisation.all_transfers,
        "loss_plane": localisation.all_loss_planes,
        "selector_scores": selectors.all_scores,
        "ensembles": studies.all_ensembles,
        "source_counts": studies.all_source_counts,
    }
    return {name: made[name](profile) for name in extras.row_names(profile)}


def adapted_model(profile: Profile, target: str, tts: str, seed: int) -> Artifact:
    """`adapted` at its chosen lam as a folder that `transformers.pipeline` opens: the model that scored the first fold."""
    base = stages.syn_target(profile, tts, target, seed, stages.folds(profile)[0])
    return stages.adapted(profile, base, spec(profile, target, tts, seed), chosen_lam(profile, target, tts, seed))


def context_scores(profile: Profile, target: str, tts: str, seed: int) -> pd.DataFrame:
    """The exported model on the clips of its fold, each heard with its own context and padded to 30 s, as others hear it.

    Returns:
        The columns of `CONTEXT_COLUMNS`; `context` is "clip" or "30 s".
    """
    shown = committed.rows(profile, "contexts", target=target, tts=tts, seed=seed)
    if shown is not None:
        return shown
    model, fold = adapted_model(profile, target, tts, seed), stages.folds(profile)[0]
    rows, lam = stages.test_rows(profile, target, fold), chosen_lam(profile, target, tts, seed)
    parts = [
        scored(profile, rows, stages.transcripts(profile, model, rows, full=full)).assign(lam=lam, context=context)
        for context, full in ((statistics.CLIP, False), (statistics.FULL, True))
    ]
    return pd.concat(parts).assign(target=target, tts=tts, seed=seed)[list(CONTEXT_COLUMNS)]


def synthetic_quality(profile: Profile) -> pd.DataFrame:
    """Sums over the synthetic clips of each target and TTS, and over the real clips of the same texts.

    Returns:
        `target, tts, n_clips, n_flagged, seconds, n_letters, real_seconds, real_letters`; letters of the text as it was
        spoken. Where the synthetic sets say how well a recogniser hears them, `char_errors, n_chars` too.
    """
    table = []
    for target in profile.targets:
        real = stages.real_rows(profile).query("domain == @target")
        for tts in (part.name for part in profile.tts):
            clips = stages.synthetic_rows(profile, tts, [target])
            letters = clips.spoken.map(lambda text: sum(map(str.isalnum, text)))
            of_text = letters.groupby(clips.text_id).first()
            both = real[real.text_id.isin(of_text.index)]
            row = {"target": target, "tts": tts, "n_clips": len(clips), "n_flagged": int((clips.quality != "ok").sum())}
            row |= {"seconds": clips.duration.sum(), "n_letters": int(letters.sum())}
            row |= {"real_seconds": both.duration.sum(), "real_letters": int(of_text[both.text_id].sum())}
            row |= {name: clips[name].astype(int).sum() for name in ("char_errors", "n_chars") if name in clips}
            table.append(row)
    return pd.DataFrame(table).round(3)


def all_contexts(profile: Profile) -> pd.DataFrame:
    """`context_scores` of every target and TTS, first seed: the models that the notebooks export."""
    seed = profile.seeds[0]
    parts = [context_scores(profile, target, part.name, seed) for target in profile.targets for part in profile.tts]
    return pd.concat(parts, ignore_index=True)


def _all_test_rows(profile: Profile, target: str) -> pd.DataFrame:
    return pd.concat([stages.test_rows(profile, target, fold) for fold in stages.folds(profile)], ignore_index=True)


def sweep(
    profile: Profile,
    domain: str,
    vector: VectorSpec,
    grid: Sequence[float],
    folds: Sequence[int | None],
    sure: bool = False,
) -> pd.DataFrame:
    """Scored rows of syn_target + lam * vector on a domain, each fold heard by the model that did not see its texts."""
    return _moved(profile, domain, (vector.tts, vector.seed), vector, grid, folds, sure)


def _moved(
    profile: Profile,
    domain: str,
    tts_and_seed: tuple[str, int],
    vector: VectorSpec | Direction,
    grid: Sequence[float],
    folds: Sequence[int | None],
    sure: bool = False,
) -> pd.DataFrame:
    tts, seed = tts_and_seed

    def heard(fold: int | None) -> pd.DataFrame:
        model = stages.syn_target(profile, tts, domain, seed, fold)
        rows = stages.test_rows(profile, domain, fold)
        return scored(profile, rows, stages.transcripts(profile, model, rows, vector, grid, sure=sure))

    return pd.concat(in_any_order([partial(heard, fold) for fold in folds]), ignore_index=True)


def study_seeds(profile: Profile) -> list[int]:
    """The seeds that hear selectors, ensembles and source counts."""
    return profile.seeds[: profile.evaluation.study_seeds]


def is_sure(profile: Profile, seed: int) -> bool:
    """Whether the sweep of a target keeps how sure the model was: then a selector needs no other one."""
    return profile.evaluation.is_sure() and seed in study_seeds(profile)


def scored(profile: Profile, rows: pd.DataFrame, heard: pd.DataFrame) -> pd.DataFrame:
    """Scored rows of transcripts, of each lam."""
    parts = [
        score(rows, part.set_index("utterance").hypothesis[rows.utterance], profile.corpus.language).assign(lam=lam)
        for lam, part in heard.groupby("lam")
    ]
    return pd.concat(parts, ignore_index=True)
