"""From stages to tidy tables: the rows of each target, the choice of lam, cosines, the geometry of a run's weights.

Every function that needs a model caches its answer in the store as CSV, so that tables, figures and the report are
made again in seconds and without one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from syn2real_utils import checkpoints, selection, stages, statistics
from syn2real_utils.evaluation import score
from syn2real_utils.profile import Profile
from syn2real_utils.stages import REAL, VectorSpec
from syn2real_utils.store import Artifact, home, write_text_atomic
from syn2real_utils.vectors import TaskVector

KINDS = {"adapted": "pooled", "ensemble": "mean"}  # model -> its vector
CALIBRATION = {"adapted": "sum", "ensemble": "mean"}  # model -> vector of the other sources when one is left out


def run_folder(profile: Profile) -> Path:
    """Where a run's tables, figures, executed notebooks and report lie."""
    return home() / "runs" / profile.name


def folds(profile: Profile) -> list[int | None]:
    """The parts of a target that are scored in turn; None: all of it at once, its texts being known."""
    return [None] if profile.evaluation.protocol == "catalogue" else list(range(profile.evaluation.folds))


def test_rows(profile: Profile, domain: str, fold: int | None) -> pd.DataFrame:
    """The real utterances of a domain that are scored in one fold."""
    rows = stages.real_rows(profile)
    rows = rows[rows.domain == domain]
    return rows if fold is None else rows[rows.fold == fold]


def source_scores(profile: Profile, target: str, tts: str, seed: int) -> pd.DataFrame:
    """pretrained, real_source and syn_source on the target's real clips."""
    sources, rows = stages.source_domains(profile, target), test_rows(profile, target, None)
    models: dict[str, Artifact | None] = {
        "pretrained": None,
        "real_source": stages.finetuned(profile, REAL, sources, seed),
        "syn_source": stages.finetuned(profile, tts, sources, seed),
    }
    parts = [
        _scored(profile, rows, stages.transcripts(profile, m, rows)).assign(model=n, lam=float("nan"))
        for n, m in models.items()
    ]
    return pd.concat(parts).assign(target=target, tts=tts, seed=seed)


def target_scores(profile: Profile, target: str, tts: str, seed: int, model: str = "adapted") -> pd.DataFrame:
    """syn_target, and `adapted` (or `ensemble`) over the lam grid, on the target's real clips."""
    spec = VectorSpec(KINDS[model], tts, stages.source_domains(profile, target), seed)
    parts = [_sweep(profile, target, tts, seed, spec, fold, profile.evaluation.lam_grid) for fold in folds(profile)]
    rows = pd.concat(parts)
    base = rows[rows.lam == 0].assign(model="syn_target", lam=float("nan"))
    scored = rows.assign(model=model)
    return (pd.concat([base, scored]) if model == "adapted" else scored).assign(target=target, tts=tts, seed=seed)


def selection_scores(profile: Profile, target: str, tts: str, seed: int, model: str = "adapted") -> pd.DataFrame:
    """WER over lam on each source domain as if it were the target, with the vector of the other source domains.

    The pooled vector of the others is stood for by the sum of theirs: to first order, a fine-tune on the pooled speech
    moves the weights by the sum of the moves of its domains, and no model has to be trained for each domain left out.

    Returns:
        `tts, vector, target, seed, domain, lam, errors, n_words`.
    """
    sources, parts = stages.source_domains(profile, target), []
    scored = folds(profile)[: profile.evaluation.selection_folds]
    for domain in sources:
        spec = VectorSpec(CALIBRATION[model], tts, tuple(d for d in sources if d != domain), seed)
        grid = profile.evaluation.selection_grid
        rows = pd.concat([_sweep(profile, domain, tts, seed, spec, fold, grid) for fold in scored])
        parts.append(rows.groupby("lam", as_index=False)[["errors", "n_words"]].sum().assign(domain=domain))
    return pd.concat(parts, ignore_index=True).assign(tts=tts, vector=KINDS[model], target=target, seed=seed)


def utterance_rows(profile: Profile, target: str) -> pd.DataFrame:
    """All rows of one target, lam chosen and oracle marked."""
    parts = []
    for seed in profile.seeds:
        for part in profile.tts:
            parts.append(source_scores(profile, target, part.name, seed))
            for model in KINDS:
                chosen = selection.choose(selection_scores(profile, target, part.name, seed, model))
                parts.append(selection.mark(target_scores(profile, target, part.name, seed, model), model, chosen))
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(protocol=profile.evaluation.protocol, backbone=profile.backbone.name)[
        list(statistics.UTTERANCE_COLUMNS)
    ]


def cosines(profile: Profile) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cosine between the vectors of any two (TTS, domain), and their norms, whole and by module."""
    domains = sorted({d for t in profile.targets for d in stages.source_domains(profile, t)})
    cosine_rows, norm_rows = [], []
    for seed in profile.seeds:
        named = {(p.name, d): stages.domain_vector(profile, p.name, d, seed) for p in profile.tts for d in domains}
        for (tts, domain), tau in named.items():
            norm_rows += [
                {"seed": seed, "tts": tts, "domain": domain, "module": m, "norm": n} for m, n in tau.norms().items()
            ]
            for (other_tts, other), sigma in named.items():
                cosine_rows += [
                    {
                        "seed": seed,
                        "tts_a": tts,
                        "domain_a": domain,
                        "tts_b": other_tts,
                        "domain_b": other,
                        "module": m,
                        "cosine": c,
                    }
                    for m, c in tau.cosines(sigma).items()
                ]
    return pd.DataFrame(cosine_rows), pd.DataFrame(norm_rows)
