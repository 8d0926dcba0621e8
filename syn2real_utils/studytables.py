"""Tables of what a profile asks for beside the default: selectors of lam, ensembles, source counts; from CSV rows alone."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from syn2real_utils.bootstrap import SAMPLES
from syn2real_utils.errors import UserError
from syn2real_utils.profile import Profile
from syn2real_utils.selection import DIGITS, is_chosen, is_oracle
from syn2real_utils.statistics import ALL, corpus_wer, holm_over_targets, paired_change, wer_interval

SCORE_COLUMNS = ("target", "tts", "seed", "selector", "looks_at", "lam", "score")
COUNT_COLUMNS = (
    "target", "tts", "seed", "n_sources", "order", "lam", "utterance", "text_id", "speaker", "n_words", "errors",
)  # fmt: skip
SAME_LENGTH = "same-length"  # lam_source of an ensemble: its step is as long as that of `adapted` at its chosen lam
POOLED = "pooled"  # the vector of `adapted`, beside ensembles
CELL = ["target", "tts", "seed"]
# rows that need models -> the table that is computed from them
STUDIES = {"selector_scores": "selectors", "ensembles": "ensemble_wer", "source_counts": "source_count_wer"}


def asked(profile: Profile) -> list[str]:
    """Which of `STUDIES` a profile asks for."""
    part = profile.evaluation
    wanted = {
        "selector_scores": len(part.selectors) > 1,
        "ensembles": len(part.ensembles) > 1,
        "source_counts": bool(part.source_counts),
    }
    return [name for name in STUDIES if wanted[name]]


def computed(
    name: str, rows: dict[str, pd.DataFrame], samples: int = SAMPLES, confidence: float = 0.95
) -> pd.DataFrame:
    """The table that is computed from the rows `name`, one of `STUDIES`."""
    if name == "source_counts":
        return source_count_wer(rows[name], samples, confidence)
    make = selectors if name == "selector_scores" else ensemble_wer
    return make(rows["utterances"], rows[name], samples, confidence)


def selectors(
    utterances: pd.DataFrame, scores: pd.DataFrame, samples: int = SAMPLES, confidence: float = 0.95
) -> pd.DataFrame:
    """tables/selectors.csv: `adapted` at the lam that each selector chose, against the oracle, the run's own choice and syn_target.

    Pooled rows hold each part at its own lam, and lam is empty unless they agree. The oracle is that of each target's labels:
    neither the interval of the regret nor its p counts that it was picked on these very clips. to_default: points of WER against the
    lam that the run itself chose. p: of the change against
    syn_target; p_holm: over the targets and TTS of a selector.

    Args:
        utterances: utterances.csv.
        scores: selector_scores.csv.
        samples: bootstrap resamples.
        confidence: e.g. 0.95.
    """
    adapted = _rounded(utterances[utterances.model == "adapted"])
    oracle, own = adapted[is_oracle(adapted.lam_source)], adapted[is_chosen(adapted.lam_source)]
    base = utterances[utterances.model == "syn_target"]
    table = []
    for (name, looks_at), picked in choices(scores).groupby(["selector", "looks_at"], sort=False):
        rows = _at(adapted, picked)
        for cell, part in _levels(rows):
            best, default, before = (
                paired_change(part, _same(part, other), samples, confidence) for other in (oracle, own, base)
            )
            table.append(
                cell
                | {"selector": name, "looks_at": looks_at, "lam": _agreed(part.lam)}
                | _rate(part, samples, confidence)
                | {"wer_oracle": round(corpus_wer(_same(part, oracle)), 4)}
                | _points("regret", best.difference, best.difference_low, best.difference_high)
                | {"regret_p": round(best.p, 6)}
                | _points("to_default", default.difference, default.difference_low, default.difference_high)
                | {"to_default_p": round(default.p, 6)}
                | {"wer_syn_target": round(corpus_wer(_same(part, base)), 4)}
                | _points("relative_change", before.relative, before.low, before.high)
                | {"p": round(before.p, 6)}
            )
    found = pd.DataFrame(table)
    return found.assign(p_holm=holm_over_targets(found, ["selector"]).round(6))


def choices(scores: pd.DataFrame) -> pd.DataFrame:
    """The lam of the lowest score of each selector, target, TTS and seed; of equal scores the smallest lam."""
    ordered = _rounded(scores).sort_values("lam", kind="stable").sort_values("score", kind="stable")
    keys = [*CELL, "selector", "looks_at"]
    order = {name: i for i, name in enumerate(scores.selector.unique())}
    picked = ordered.drop_duplicates(keys)[[*keys, "lam"]]
    return picked.sort_values(["selector", *CELL], key=lambda c: c.map(order) if c.name == "selector" else c)


def ensemble_wer(
    utterances: pd.DataFrame, ensembles: pd.DataFrame, samples: int = SAMPLES, confidence: float = 0.95
) -> pd.DataFrame:
    """tables/ensemble_wer.csv: each ensemble at its lam, with its difference to the pooled vector in points of WER.

    p_holm: over the targets and TTS of an ensemble.

    Args:
        utterances: utterances.csv.
        ensembles: ensembles.csv.
        samples: bootstrap resamples.
        confidence: e.g. 0.95.
    """
    adapted = _rounded(utterances[(utterances.model == "adapted") & is_chosen(utterances.lam_source)])
    heard = adapted.merge(ensembles[CELL].drop_duplicates(), on=CELL).assign(model=POOLED)
    table = []
    for name, rows in pd.concat([heard, _rounded(ensembles)]).groupby("model", sort=False):
        for cell, part in _levels(rows):
            found = paired_change(part, _same(part, adapted), samples, confidence)
            table.append(
                cell
                | {"ensemble": name, "lam": _agreed(part.lam)}
                | _rate(part, samples, confidence)
                | _points("difference", found.difference, found.difference_low, found.difference_high)
                | {"p": round(found.p, 6)}
            )
    made = pd.DataFrame(table)
    return made.assign(p_holm=holm_over_targets(made, ["ensemble"]).round(6))


def source_count_wer(rows: pd.DataFrame, samples: int = SAMPLES, confidence: float = 0.95) -> pd.DataFrame:
    """tables/source_count_wer.csv: WER over the number of source domains, orders pooled; `lowest`, `highest`: of single orders.

    `difference`: to all source domains, in points of WER; p_holm: over the targets and TTS of one number. Targets are pooled where each has that number; the last number stands for all source domains of each, some of which may have
    fewer.

    Args:
        rows: source_counts.csv.
        samples: bootstrap resamples.
        confidence: e.g. 0.95.
    """
    table, targets = [], rows.target.nunique()
    whole = rows[rows.n_sources == rows.groupby("target").n_sources.transform("max")]
    parts = list(rows[~rows.index.isin(whole.index)].groupby("n_sources", sort=True))
    last = whole.n_sources.max() if len(whole) else 0
    for n, part in [*parts, (last, whole)]:
        for cell, pooled in _levels(part):
            if cell["target"] == ALL and pooled.target.nunique() < targets:
                continue
            orders = [corpus_wer(own) for _, own in pooled.groupby("order")]
            spread = {"orders": len(orders), "lowest": round(min(orders), 4), "highest": round(max(orders), 4)}
            own = n if cell["target"] == ALL else pooled.n_sources.iloc[0]
            found = paired_change(pooled, _same(pooled, whole), samples, confidence)
            less = _points("difference", found.difference, found.difference_low, found.difference_high)
            table.append(
                cell
                | {"n_sources": own}
                | _rate(pooled, samples, confidence)
                | spread
                | less
                | {"p": round(found.p, 6)}
            )
    made = pd.DataFrame(table)
    return made.assign(p_holm=holm_over_targets(made, ["n_sources"]).round(6))


def _levels(rows: pd.DataFrame) -> Iterator[tuple[dict, pd.DataFrame]]:
    """Each target, TTS and seed; the seeds of a target pooled, where there are several; the targets too."""
    for (target, tts, seed), part in rows.groupby(CELL, sort=True):
        yield {"target": target, "tts": tts, "seed": seed}, part
    several_seeds, several = rows.seed.nunique() > 1, rows.target.nunique() > 1
    for (target, tts), part in rows.groupby(["target", "tts"], sort=True):
        if several_seeds:
            yield {"target": target, "tts": tts, "seed": ALL}, part
    for tts, part in rows.groupby("tts", sort=True):
        if several:
            yield {"target": ALL, "tts": tts, "seed": ALL if several_seeds else part.seed.iloc[0]}, part


def _rounded(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(lam=pd.to_numeric(rows.lam).round(DIGITS))


def _at(adapted: pd.DataFrame, picked: pd.DataFrame) -> pd.DataFrame:
    """The rows of `adapted` at the lam that is picked for each target, TTS and seed."""
    rows = adapted.merge(picked[[*CELL, "lam"]], on=[*CELL, "lam"])
    found = pd.MultiIndex.from_frame(rows[CELL])
    if lacking := [cell for cell in picked[CELL].itertuples(index=False, name=None) if cell not in found]:
        raise UserError(f"no rows of adapted at the lam that was chosen for {lacking[0]}: evaluate the whole grid")
    return rows


def _same(part: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Rows of another model on the same utterances of the same targets, TTS and seeds, once for each of `part`."""
    keys = [*CELL, "utterance"]
    return part[keys].merge(others, on=keys, how="inner", validate="many_to_one")


def _agreed(lams: pd.Series) -> float:
    return float(lams.iloc[0]) if lams.nunique() == 1 else np.nan


def _rate(rows: pd.DataFrame, samples: int, confidence: float) -> dict[str, float]:
    low, high = wer_interval(rows, samples, confidence)
    return {
        "n_words": int(rows.n_words.sum()),
        "wer": round(corpus_wer(rows), 4),
        "ci_low": round(low, 4),
        "ci_high": round(high, 4),
    }


def _points(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: round(value, 4), f"{name}_low": round(low, 4), f"{name}_high": round(high, 4)}
