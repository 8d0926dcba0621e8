"""Error rates with their uncertainty, from edit counts alone.

A corpus' rate is the sum of its errors over the sum of its words, never a mean over utterances. Utterances of one text are
not independent, so the bootstrap resamples texts (blocks of `text_id`; Liu and Peng, arXiv 1912.09508), and whatever was
said of a text, by several speakers or by models of several seeds, is drawn together. Two systems are compared on the same draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from syn2real_utils.errors import UserError, names
from syn2real_utils.selection import DIGITS, GRID, ORACLE, SCALED, how_chosen, is_chosen, is_oracle

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
)  # fmt: skip
CONTEXT_GAP_COLUMNS = (
    "target", "tts", "seed", "lam", "n_utterances", "n_words", "wer_clip", "wer_full", "difference", "ci_low", "ci_high",
)  # fmt: skip
CLIP, FULL = "clip", "30 s"  # what a model hears: the clip alone, or padded to 30 s
Unit = Literal["words", "chars"]
COUNTS: dict[Unit, tuple[str, str]] = {"words": ("errors", "n_words"), "chars": ("char_errors", "n_chars")}


@dataclass(frozen=True)
class Change:
    """Relative change of one system against another, in percent; negative is better, nan is undefined."""

    relative: float
    low: float
    high: float
    p: float  # two-sided, of no change


def corpus_wer(rows: pd.DataFrame) -> float:
    """100 * summed errors / summed words; nan without words."""
    return _rate(rows, "words")


def corpus_cer(rows: pd.DataFrame) -> float:
    """100 * summed character errors / summed characters; nan without characters."""
    return _rate(rows, "chars")


def wer_interval(
    rows: pd.DataFrame, samples: int = 2000, confidence: float = 0.95, seed: int = 0, unit: Unit = "words"
) -> tuple[float, float]:
    """Percentile interval of the corpus' rate in percent, resampling texts; nan for fewer than two texts.

    Args:
        rows: `text_id` and the counts of `unit`, one row per utterance (and seed, where there are several).
        samples: bootstrap resamples.
        confidence: e.g. 0.95.
        seed: of the resampling.
        unit: `words` for WER, `chars` for CER.
    """
    _check(samples, confidence)
    sums = _block_sums(rows, COUNTS[unit])
    if len(sums) < 2:
        return np.nan, np.nan
    errors, total = (_weights(len(sums), samples, seed) @ sums).T
    return _percentiles(100 * errors[total > 0] / total[total > 0], confidence)


def paired_change(
    rows_model: pd.DataFrame, rows_baseline: pd.DataFrame, samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Change:
    """Relative change in WER of a model against a baseline on the same utterances, both on the same resampled texts.

    The relative change is undefined (nan) when the baseline makes no error. A resample in which only the baseline makes none
    counts as a rise without bound, one in which neither makes any as no change. p is the two-sided bootstrap p that the
    difference in errors is zero, never below 2 / (samples + 1). The interval and p are nan for fewer than two texts.

    Raises:
        UserError: the two were not scored on the same utterances.
    """
    _check(samples, confidence)
    _check_pairs(rows_model, rows_baseline)
    model, baseline = _block_sums(rows_model, COUNTS["words"]), _block_sums(rows_baseline, COUNTS["words"])
    before, after = baseline[:, 0].sum(), model[:, 0].sum()
    relative = 100 * (after - before) / before if before else np.nan
    if len(model) < 2:
        return Change(relative, np.nan, np.nan, np.nan)
    drawn = _weights(len(model), samples, seed) @ np.column_stack([model[:, 0], baseline[:, 0]])
    difference, base = drawn[:, 0] - drawn[:, 1], drawn[:, 1]
    tail = min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0))
    p = min(1.0, 2 * (1 + tail) / (samples + 1))
    if not before:
        return Change(np.nan, np.nan, np.nan, p)
    unbounded = np.where(difference > 0, np.inf, 0.0)
    low, high = _percentiles(np.divide(100 * difference, base, out=unbounded, where=base > 0), confidence)
    return Change(relative, low, high, p)


def context_gaps(contexts: pd.DataFrame, samples: int = 2000, confidence: float = 0.95) -> pd.DataFrame:
    """tables/context_gaps.csv: WER of each exported model at 30 s less that at its own context, in points, with interval.

    Args:
        contexts: `target, tts, seed, lam, context, utterance, text_id, n_words, errors`; `context` is `CLIP` or `FULL`.
        samples: bootstrap resamples.
        confidence: e.g. 0.95.
    """
    _check(samples, confidence)
    table = []
    for key, part in contexts.groupby(["target", "tts", "seed", "lam"], sort=True):
        own, full = (part[part.context == context] for context in (CLIP, FULL))
        _check_pairs(own, full)
        sums = np.column_stack([_block_sums(rows, COUNTS["words"]) for rows in (own, full)])  # errors, words, twice
        rate, rate_full = corpus_wer(own), corpus_wer(full)
        low = high = np.nan
        if len(sums) > 1:
            drawn = _weights(len(sums), samples, 0) @ sums
            drawn = drawn[drawn[:, 1] > 0]
            low, high = _percentiles(100 * (drawn[:, 2] - drawn[:, 0]) / drawn[:, 1], confidence)
        found = (*key, len(own), int(own.n_words.sum()), rate, rate_full, rate_full - rate, low, high)
        table.append(dict(zip(CONTEXT_GAP_COLUMNS, found, strict=True)))
    return pd.DataFrame(table, columns=list(CONTEXT_GAP_COLUMNS))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of several p, in their order; nan stays nan and is not counted."""
    values = np.asarray(p, dtype=float)
    adjusted = np.full(len(values), np.nan)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * values[i]))
        adjusted[i] = largest
    return adjusted.tolist()


def wer_table(utterances: pd.DataFrame, samples: int = 2000, confidence: float = 0.95) -> pd.DataFrame:
    """tables/wer.csv: one row per target, TTS, model, lam and seed.

    Where there are several seeds, rows of seed "all" pool them, and where there are several targets, rows of target "all"
    pool those. A pooled row without lam holds each part's own chosen (or oracle) lam. Counts are summed over what is pooled.
    """
    return _rate_table(utterances, "words", samples, confidence)


def cer_table(utterances: pd.DataFrame, samples: int = 2000, confidence: float = 0.95) -> pd.DataFrame:
    """tables/cer.csv: as `wer_table`, with `n_chars, errors, cer` of characters."""
    return _rate_table(utterances, "chars", samples, confidence)


def changes_table(
    utterances: pd.DataFrame, baseline: str = "syn_target", samples: int = 2000, confidence: float = 0.95
) -> pd.DataFrame:
    """tables/changes.csv: `adapted` and `ensemble` at every lam against a baseline; pooled rows as in `wer_table`.

    Raises:
        UserError: a target, TTS and seed has no rows of the baseline.
    """
    parts = _cells(utterances)
    base = {(key["target"], key["tts"], str(key["seed"])): rows for key, rows in parts if key["model"] == baseline}
    table = []
    for key, rows in parts:
        if key["model"] not in SCALED or key["model"] == baseline:
            continue
        where = (key["target"], key["tts"], str(key["seed"]))
        if where not in base:
            raise UserError(
                f"no rows of '{baseline}' for target {where[0]}, TTS {where[1]}, seed {where[2]}: evaluate it first"
            )
        change = paired_change(rows, base[where], samples, confidence)
        numbers = (corpus_wer(base[where]), corpus_wer(rows), change.relative, change.low, change.high)
        rounded = dict(zip(CHANGE_COLUMNS[7:12], (round(x, 4) for x in numbers), strict=True))
        table.append(key | {"baseline": baseline} | rounded | {"p": round(change.p, 6)})
    return pd.DataFrame(table, columns=list(CHANGE_COLUMNS))


def _rate_table(utterances: pd.DataFrame, unit: Unit, samples: int, confidence: float) -> pd.DataFrame:
    rate, errors, total = ("wer", *COUNTS["words"]) if unit == "words" else ("cer", *COUNTS["chars"])
    table = []
    for key, rows in _cells(utterances):
        low, high = wer_interval(rows, samples, confidence, unit=unit)
        counts = {"n_utterances": len(rows), total: int(rows[total].sum()), "errors": int(rows[errors].sum())}
        table.append(
            key | counts | {rate: round(_rate(rows, unit), 4), "ci_low": round(low, 4), "ci_high": round(high, 4)}
        )
    return pd.DataFrame(table, columns=[*KEYS, "n_utterances", total, "errors", rate, "ci_low", "ci_high"])


def _cells(utterances: pd.DataFrame) -> list[tuple[dict, pd.DataFrame]]:
    """The rows of each cell of a table, each target and seed alone and then pooled, in the order of the table."""
    if lacking := [c for c in (*KEYS, "utterance", "text_id", "n_words", "errors") if c not in utterances]:
        raise UserError(f"the utterance rows have no column {names(lacking)}: expected those of tables/utterances.csv")
    counts = [c for pair in COUNTS.values() for c in pair if c in utterances]
    rows = utterances[[*KEYS, "utterance", "text_id", *counts]]
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


def _rate(rows: pd.DataFrame, unit: Unit) -> float:
    errors, total = (float(rows[column].sum()) for column in COUNTS[unit])
    return 100 * errors / total if total else np.nan


def _block_sums(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Counts summed per text, by rising text_id: [texts, columns]."""
    if rows.text_id.isna().any():
        raise UserError("some utterance rows have no text_id: the bootstrap needs it to keep a text together")
    return rows.groupby("text_id", sort=True)[list(columns)].sum().to_numpy(dtype=float)


@lru_cache(maxsize=2)  # the cells of one target share their texts, so the draws too
def _weights(blocks: int, samples: int, seed: int) -> np.ndarray:
    """How often each block is drawn: [samples, blocks], rows sum to `blocks`; float64, in which sums of counts are exact."""
    weights = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=samples).astype(float)
    weights.setflags(write=False)
    return weights


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    if not len(values):
        return np.nan, np.nan
    # an observed value, never one between two: some may be infinite
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return float(low), float(high)


def _check(samples: int, confidence: float) -> None:
    if samples < 1:
        raise UserError(f"bootstrap samples {samples}: expected at least 1")
    if not 0 < confidence < 1:
        raise UserError(f"confidence {confidence}: expected a number between 0 and 1, such as 0.95")


def _check_pairs(one: pd.DataFrame, other: pd.DataFrame) -> None:
    keys = [c for c in ("target", "run", "seed", "utterance", "text_id", "n_words") if c in one and c in other]
    a, b = (sorted(rows[keys].itertuples(index=False, name=None)) for rows in (one, other))
    if a != b:
        differ = names(sorted({str(row[keys.index("utterance")]) for row in set(a) ^ set(b)}), 3) or "repeated rows"
        raise UserError(f"the two systems were not scored on the same utterances ({differ}): compare rows of one run")
