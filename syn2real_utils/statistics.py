"""Tables of error rates and of changes with their uncertainty, from edit counts alone.

A corpus' rate is the sum of its errors over the sum of its words, never a mean over utterances. What is drawn together when an
interval or a p is made says bootstrap.py.
"""

import numpy as np
import pandas as pd

from syn2real_utils.bootstrap import (
    COUNTS,
    SAMPLES,
    Change,
    Unit,
    corpus_cer,
    corpus_wer,
    holm,
    paired_change,
    rate,
    wer_interval,
)
from syn2real_utils.errors import UserError, names
from syn2real_utils.selection import DIGITS, GRID, ORACLE, SCALED, how_chosen, is_chosen, is_oracle

__all__ = [
    "Change",
    "adjusted",
    "baselines_table",
    "cer_table",
    "changes_table",
    "context_gaps",
    "corpus_cer",
    "corpus_wer",
    "holm",
    "paired_change",
    "wer_interval",
    "wer_table",
]

MODELS = ("pretrained", "real_source", "syn_source", "syn_target", "adapted", "ensemble")
ALL = "all"  # target or seed of a row that pools them
UTTERANCE_COLUMNS = (
    "target", "tts", "protocol", "backbone", "model", "lam", "lam_source", "seed",
    "utterance", "text_id", "fold", "duration", "reference", "hypothesis",
    "n_words", "errors", "substitutions", "deletions", "insertions", "n_chars", "char_errors", "normaliser",
    "raw_reference", "raw_hypothesis", "speaker",  # tables of 0.1 lack these three
)  # fmt: skip
KEYS = ("target", "tts", "protocol", "backbone", "model", "lam", "lam_source", "seed")
CHANGE_COLUMNS = (
    "target", "tts", "model", "baseline", "lam", "lam_source", "seed",
    "wer_baseline", "wer_model", "relative_change", "ci_low", "ci_high", "p",
    "difference", "difference_low", "difference_high", "p_holm",  # points of WER; tables of 0.1 lack these four
)  # fmt: skip
# What is compared beside syn_target: the gaps of synthetic speech, and what a user could have instead
BASELINES = (
    ("syn_source", "real_source"), ("syn_target", "real_source"), ("syn_target", "pretrained"), ("adapted", "real_source"),
    ("adapted", "pretrained"), ("ensemble", "real_source"), ("ensemble", "pretrained"), ("ensemble", "adapted"),
)  # fmt: skip
CONTEXT_GAP_COLUMNS = (
    "target", "tts", "seed", "lam", "n_utterances", "n_words", "wer_clip", "wer_full", "difference", "ci_low", "ci_high",
    "p", "p_holm",
)  # fmt: skip
CLIP, FULL = "clip", "30 s"  # what a model hears: the clip alone, or padded to 30 s


def context_gaps(contexts: pd.DataFrame, samples: int = SAMPLES, confidence: float = 0.95) -> pd.DataFrame:
    """tables/context_gaps.csv: WER of each exported model at 30 s less that at its own context, in points, with interval.

    p_holm: over all rows, each of which is a model.

    Args:
        contexts: `target, tts, seed, lam, context, utterance, text_id, n_words, errors`; `context` is `CLIP` or `FULL`.
        samples: bootstrap resamples.
        confidence: e.g. 0.95.
    """
    table = []
    for key, part in contexts.groupby(["target", "tts", "seed", "lam"], sort=True):
        own, full = (part[part.context == context] for context in (CLIP, FULL))
        found = paired_change(full, own, samples, confidence)
        rates = len(own), int(own.n_words.sum()), corpus_wer(own), corpus_wer(full)
        table.append((*key, *rates, found.difference, found.difference_low, found.difference_high, found.p))
    gaps = pd.DataFrame(table, columns=list(CONTEXT_GAP_COLUMNS[:-1]))
    return gaps.assign(p_holm=holm(gaps.p))


def wer_table(utterances: pd.DataFrame, samples: int = SAMPLES, confidence: float = 0.95) -> pd.DataFrame:
    """tables/wer.csv: one row per target, TTS, model, lam and seed.

    Where there are several seeds, rows of seed "all" pool them, and where there are several targets, rows of target "all"
    pool those. A pooled row without lam holds each part's own chosen (or oracle) lam. Counts are summed over what is pooled.
    """
    return _rate_table(utterances, "words", samples, confidence)


def cer_table(utterances: pd.DataFrame, samples: int = SAMPLES, confidence: float = 0.95) -> pd.DataFrame:
    """tables/cer.csv: as `wer_table`, with `n_chars, errors, cer` of characters."""
    return _rate_table(utterances, "chars", samples, confidence)


def changes_table(
    utterances: pd.DataFrame, baseline: str = "syn_target", samples: int = SAMPLES, confidence: float = 0.95
) -> pd.DataFrame:
    """tables/changes.csv: every other model, those with a lam at every lam, against a baseline; pooled as in `wer_table`.

    Raises:
        UserError: a target, TTS and seed has no rows of the baseline.
    """
    parts = _cells(utterances)
    base = {_where(key): rows for key, rows in parts if key["model"] == baseline}
    table = []
    for key, rows in parts:
        if key["model"] == baseline:
            continue
        if (where := _where(key)) not in base:
            raise UserError(
                f"no rows of '{baseline}' for target {where[0]}, TTS {where[1]}, seed {where[2]}: evaluate it first"
            )
        table.append(_change(key, baseline, rows, base[where], samples, confidence))
    return _changes(table)


def baselines_table(utterances: pd.DataFrame, samples: int = SAMPLES, confidence: float = 0.95) -> pd.DataFrame:
    """tables/baselines.csv: the pairs of `BASELINES` that are there, models with a lam at the chosen one; pooled as in `wer_table`."""
    claims = [(key, rows) for key, rows in _cells(utterances) if key["model"] not in SCALED or _is_claim(key)]
    there = {(_where(key), key["model"]): (key, rows) for key, rows in claims}
    table = []
    for (where, model), (key, rows) in there.items():
        for other, baseline in BASELINES:
            if other == model and (where, baseline) in there:
                table.append(_change(key, baseline, rows, there[where, baseline][1], samples, confidence))
    return _changes(table)


def _where(key: dict) -> tuple[str, str, str]:
    return key["target"], key["tts"], str(key["seed"])


def _is_claim(key: dict) -> bool:
    return bool(is_chosen(pd.Series([key["lam_source"]])).iloc[0])


def _change(
    key: dict, baseline: str, rows: pd.DataFrame, base: pd.DataFrame, samples: int, confidence: float
) -> dict[str, object]:
    """One row of `CHANGE_COLUMNS`, without p_holm."""
    found = paired_change(rows, base, samples, confidence)
    numbers = {
        "wer_baseline": corpus_wer(base), "wer_model": corpus_wer(rows), "relative_change": found.relative,
        "ci_low": found.low, "ci_high": found.high, "difference": found.difference,
        "difference_low": found.difference_low, "difference_high": found.difference_high,
    }  # fmt: skip
    rounded = {name: round(value, 4) for name, value in numbers.items()}
    return key | {"baseline": baseline} | rounded | {"p": round(found.p, 6)}


def _changes(table: list[dict[str, object]]) -> pd.DataFrame:
    changes = pd.DataFrame(table, columns=[column for column in CHANGE_COLUMNS if column != "p_holm"])
    return changes.assign(p_holm=adjusted(changes).round(6))


def adjusted(changes: pd.DataFrame) -> pd.Series:
    """p after Holm over the targets and TTS of a model at its chosen lam; a row that pools the targets keeps its p.

    A lam of the grid claims nothing and gets none.
    """
    claims = changes[~changes.model.isin(SCALED) | is_chosen(changes.lam_source)]
    return holm_over_targets(claims, ["model", "baseline"]).reindex(changes.index)


def holm_over_targets(table: pd.DataFrame, families: list[str]) -> pd.Series:
    """p after Holm over the targets and TTS of one seed and of equal `families`; a row that pools the targets keeps its p."""
    found = pd.Series(np.nan, index=table.index)
    keys = [*(table[column] for column in families), table.seed.astype(str), table.target == ALL]
    for (*_, pooled), part in table.groupby(keys):
        found[part.index] = part.p if pooled else holm(part.p)
    return found


def _rate_table(utterances: pd.DataFrame, unit: Unit, samples: int, confidence: float) -> pd.DataFrame:
    name, errors, total = ("wer", *COUNTS["words"]) if unit == "words" else ("cer", *COUNTS["chars"])
    table = []
    for key, rows in _cells(utterances):
        low, high = wer_interval(rows, samples, confidence, unit=unit)
        counts = {"n_utterances": len(rows), total: int(rows[total].sum()), "errors": int(rows[errors].sum())}
        table.append(
            key | counts | {name: round(rate(rows, unit), 4), "ci_low": round(low, 4), "ci_high": round(high, 4)}
        )
    return pd.DataFrame(table, columns=[*KEYS, "n_utterances", total, "errors", name, "ci_low", "ci_high"])


def _cells(utterances: pd.DataFrame) -> list[tuple[dict, pd.DataFrame]]:
    """The rows of each cell of a table, each target and seed alone and then pooled, in the order of the table."""
    if lacking := [c for c in (*KEYS, "utterance", "text_id", "n_words", "errors") if c not in utterances]:
        raise UserError(f"the utterance rows have no column {names(lacking)}: expected those of tables/utterances.csv")
    counts = [c for pair in COUNTS.values() for c in pair if c in utterances]
    speaker = ["speaker"] if "speaker" in utterances else []
    rows = utterances[[*KEYS, "utterance", "text_id", *speaker, *counts]]
    rows = rows.assign(lam=pd.to_numeric(rows.lam).round(DIGITS), lam_source=rows.lam_source.fillna(""), run=rows.seed)
    parts = [rows]
    for column in ("seed", "target"):
        if (several := rows[column].nunique()) > 1:
            parts.append(_pool(parts[-1], column, several))
    cells = []
    for part in parts:
        cells += [
            (dict(zip(KEYS, key, strict=True)), group)
            for key, group in part.groupby(list(KEYS), dropna=False, sort=False)
        ]
    return sorted(cells, key=lambda cell: _order(cell[0]))


def _pool(rows: pd.DataFrame, column: str, several: int) -> pd.DataFrame:
    """`rows` with the values of `column` pooled: each lam of the grid, and each part at its own chosen and oracle lam.

    What is missing for some of the `several` values of `column` is left out, as its sum would not be comparable.
    """
    keys = [c for c in ("target", "tts", "model") if c != column]

    def complete(part: pd.DataFrame, by: list[str]) -> pd.DataFrame:
        return part[part.groupby(by, dropna=False)[column].transform("nunique") == several]

    scaled = rows.model.isin(SCALED)
    grid = complete(rows[~scaled | rows.lam.notna()], [*keys, "lam"])
    by = [grid[c] for c in (*keys, "lam")]
    chosen, oracle = (own(grid.lam_source).groupby(by, dropna=False).transform("all") for own in (is_chosen, is_oracle))
    how = how_chosen(str(rows.protocol.iloc[0]))
    labels = np.select(
        [chosen & oracle, chosen, oracle, grid.model.isin(SCALED)], [f"{how}+{ORACLE}", how, ORACLE, GRID], ""
    )
    parts = [grid.assign(lam_source=labels)]
    for own, agreed, label in ((is_chosen, chosen, how), (is_oracle, oracle, ORACLE)):
        best = complete(rows[scaled & own(rows.lam_source)], keys)
        known = pd.MultiIndex.from_frame(grid.loc[agreed, keys])
        parts.append(best[~pd.MultiIndex.from_frame(best[keys]).isin(known)].assign(lam=np.nan, lam_source=label))
    return pd.concat(parts, ignore_index=True).assign(**{column: ALL})


def _order(key: dict) -> tuple:
    model = MODELS.index(key["model"]) if key["model"] in MODELS else len(MODELS)
    lam = -1.0 if pd.isna(key["lam"]) else key["lam"]
    target, seed = key["target"], key["seed"]
    return (target == ALL, str(target), key["tts"], seed == ALL, str(seed).zfill(9), model, lam, key["lam_source"])
