"""The bootstrap: what is drawn together, and what the draws say of one system and of the difference of two.

Utterances of one text are not independent, nor are those of one speaker, so neither is drawn by the utterance:

- Where speakers are unknown, or fewer than `SPEAKERS`, texts are drawn (blocks; Liu and Peng, arXiv 1912.09508), and what is
  said holds for more texts by the same people: of so few speakers no draw shows how others would differ.
- Else, where each text has one speaker, speakers are drawn with all their texts, and where each speaker has one text, texts are
  drawn with all their speakers: the coarser block holds the finer one.
- Where texts and speakers cross (many read the same sentences), whole connected blocks would leave one block. Then both are
  drawn, apart, and an utterance weighs the product of what its text and its speaker were drawn (the pigeonhole bootstrap;
  Owen, arXiv 0712.1111; Owen and Eckles, arXiv 1106.2125). It errs on the side of too wide an interval.
- Seeds: each is a training of the whole experiment, and its models hear every text, so seeds cross the texts and are drawn as a
  third factor, the same seeds for both systems and all targets (targets of one seed share models). Of two seeds the draws show
  half of the variance between seeds, of five 80 %.

Two systems are compared on the same draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from syn2real_utils.errors import UserError, names

Unit = Literal["words", "chars"]
COUNTS: dict[Unit, tuple[str, str]] = {"words": ("errors", "n_words"), "chars": ("char_errors", "n_chars")}
SAMPLES = 10_000
# Where none of so many resamples says the contrary, so many times as many are drawn for p alone: of 10,000 the least p would be 0.0002, which
# Holm over a few hundred comparisons raises above 0.05 whatever the data say
MORE = 20
MOST_SAMPLES = 1_000_000  # above it the draws take too much memory
MOST_CONFIDENCE = 0.99999  # beyond it so many resamples have no tails
PART = 4_000_000  # draws that are held in more than two bytes at once
SPEAKERS = 6  # the fewest that can show a p below 0.05: 2 ** (1 - 6) is 0.03
PAIRED = (
    "target",
    "run",
    "seed",
    "utterance",
    "text_id",
    "speaker",
    "n_words",
)  # in which two compared systems must agree


@dataclass(frozen=True)
class Change:
    """Change of one system against another; negative is better, nan is undefined."""

    relative: float  # in percent of the baseline's errors
    low: float
    high: float
    p: float  # two-sided, of no change
    difference: float = np.nan  # in points of WER
    difference_low: float = np.nan
    difference_high: float = np.nan


def corpus_wer(rows: pd.DataFrame) -> float:
    """100 * summed errors / summed words; nan without words."""
    return rate(rows, "words")


def corpus_cer(rows: pd.DataFrame) -> float:
    """100 * summed character errors / summed characters; nan without characters."""
    return rate(rows, "chars")


def rate(rows: pd.DataFrame, unit: Unit) -> float:
    """`corpus_wer` or `corpus_cer`."""
    errors, total = (float(rows[column].sum()) for column in COUNTS[unit])
    return 100 * errors / total if total else np.nan


def wer_interval(
    rows: pd.DataFrame, samples: int = SAMPLES, confidence: float = 0.95, seed: int = 0, unit: Unit = "words"
) -> tuple[float, float]:
    """Percentile interval of the corpus' rate in percent; nan for fewer than two blocks.

    Args:
        rows: `text_id`, the counts of `unit` and, where they are known, `speaker` and `seed` (or `run`), a row per utterance.
        samples: bootstrap resamples.
        confidence: e.g. 0.95.
        seed: of the resampling.
        unit: `words` for WER, `chars` for CER.
    """
    check(samples, confidence)
    if blocks(rows) < 2:
        return np.nan, np.nan
    errors, total = draw(rows, COUNTS[unit], samples, seed).T
    return percentiles(100 * errors[total > 0] / total[total > 0], confidence)


def paired_change(
    rows_model: pd.DataFrame,
    rows_baseline: pd.DataFrame,
    samples: int = SAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Change:
    """Change in WER of a model against a baseline on the same utterances, both on the same draws.

    The relative change is undefined (nan) when the baseline makes no error. A resample in which only the baseline makes none
    counts as a rise without bound, one in which neither makes any as no change. p is the two-sided bootstrap p that the
    difference in errors is zero, never below 2 / (MORE * samples + 1), nor below what so few blocks could show if the sign of each
    were tossed, 2 ** (1 - n) of n blocks whose errors differ at all. The intervals and p are nan for fewer than two blocks, and
    where no reference has a word.

    Raises:
        UserError: the two were not scored on the same utterances, or a count is no number of 0 or more.
    """
    check(samples, confidence)
    check_pairs(rows_model, rows_baseline)
    before, after, words = (
        float(rows[column].sum())
        for rows, column in ((rows_baseline, "errors"), (rows_model, "errors"), (rows_model, "n_words"))
    )
    relative = 100 * (after - before) / before if before else np.nan
    points = 100 * (after - before) / words if words else np.nan
    if not words or blocks(rows_model) < 2:
        return Change(relative, np.nan, np.nan, np.nan, points)
    base = draw(rows_baseline, ["errors"], samples, seed)[:, 0]
    drawn, total = draw(rows_model, ["errors", "n_words"], samples, seed).T
    difference = drawn - base
    tail, of = _tail(difference), samples
    if not tail:
        of = min(MORE * samples, MOST_SAMPLES)
        tail = _tail(_differences(rows_model, rows_baseline, of, seed))
    p = min(1.0, max(2 * (1 + tail) / (of + 1), 2.0 ** (1 - _changed(rows_model, rows_baseline))))
    ends = percentiles(100 * difference[total > 0] / total[total > 0], confidence)
    if not before:
        return Change(np.nan, np.nan, np.nan, p, points, *ends)
    unbounded = np.where(difference > 0, np.inf, 0.0)
    low, high = percentiles(np.divide(100 * difference, base, out=unbounded, where=base > 0), confidence)
    return Change(relative, low, high, p, points, *ends)


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


def draw(rows: pd.DataFrame, columns: Sequence[str], samples: int, seed: int) -> np.ndarray:
    """The sums of some columns in each resample of `rows`: [samples, columns]."""
    counts = rows[list(columns)].to_numpy(dtype=float)
    if (bad := ~(np.isfinite(counts) & (counts >= 0)).all(axis=1)).any():
        raise UserError(
            f"the counts of {names(rows.utterance[bad], 3)} are no numbers of 0 or more: expected {names(columns)} of each"
        )
    sums, crossed = _sums(rows, counts)
    found = _summed(_weights(len(sums), samples, (seed,)), sums.reshape(len(sums), -1)).reshape(
        samples, *sums.shape[1:]
    )
    for i, codes in enumerate(crossed.T):
        weights = _weights(int(codes.max()) + 1, samples, (seed, i + 1))
        found *= np.where(codes >= 0, weights[:, codes], 1.0)[:, :, None]
    return found.sum(axis=1)


def _sums(rows: pd.DataFrame, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The summed counts of each block and cell of what crosses the blocks [blocks, cells, columns], and the cells' codes."""
    first, *others = _factors(rows)
    crossing = np.stack(others, axis=1) if others else np.zeros((len(rows), 0), int)
    crossed, rest = np.unique(crossing, axis=0, return_inverse=True)
    sums = np.zeros((first.max() + 1, len(crossed), counts.shape[1]))
    np.add.at(sums, (first, rest.ravel()), counts)
    return sums, crossed


def _differences(one: pd.DataFrame, other: pd.DataFrame, samples: int, seed: int) -> np.ndarray:
    """The difference in errors in each of many resamples: [samples].

    As `draw`, but blocks of one difference are drawn together: how many of them are drawn is what counts. There are few kinds, so many
    draws are cheap.
    """
    (sums, crossed), (base, _) = (_sums(rows, rows[["errors"]].to_numpy(dtype=float)) for rows in (one, other))
    kinds, counts = np.unique((sums - base)[:, :, 0], axis=0, return_counts=True)
    dice = np.random.default_rng((seed, MORE))
    found = []
    for size in _sizes(samples, len(kinds)):
        cells = dice.multinomial(len(sums), counts / len(sums), size=size).astype(float) @ kinds
        for codes in crossed.T:
            levels = int(codes.max()) + 1
            weights = dice.multinomial(levels, np.full(levels, 1 / levels), size=size)
            cells *= np.where(codes >= 0, weights[:, codes], 1.0)
        found.append(cells.sum(axis=1))
    return np.concatenate(found)


def _tail(difference: np.ndarray) -> int:
    """How many resamples say the contrary of most."""
    return int(min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0)))


def blocks(rows: pd.DataFrame) -> int:
    """How many independent parts are drawn: texts, speakers, or the fewer of both where they cross; seeds do not count."""
    return min((int(codes.max()) + 1 for codes in _said(rows)), default=0) if len(rows) else 0


def _changed(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """How many of the blocks have other errors in one system than in the other."""
    pairs = zip(_said(one), _said(other), strict=True)
    return min(int(np.count_nonzero(_errors_of(one, a) != _errors_of(other, b))) for a, b in pairs)


def _errors_of(rows: pd.DataFrame, codes: np.ndarray) -> np.ndarray:
    """The summed errors of each block, one row of none (code -1) first."""
    return np.bincount(codes + 1, rows.errors.astype(float))


def percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The ends of the percentile interval of resampled values."""
    if not len(values):
        return np.nan, np.nan
    # an observed value, never one between two: some may be infinite
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return float(low), float(high)


def check(samples: int, confidence: float) -> None:
    """Raise UserError unless the numbers make sense."""
    if not 1 <= samples <= MOST_SAMPLES:
        raise UserError(f"bootstrap samples {samples}: expected 1 to {MOST_SAMPLES}")
    if not 0 < confidence <= MOST_CONFIDENCE:
        raise UserError(
            f"confidence {confidence}: expected a number above 0 and at most {MOST_CONFIDENCE}, such as 0.95"
        )


def check_pairs(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Raise UserError unless two systems were scored on the same utterances."""
    if ("speaker" in one) != ("speaker" in other):
        raise UserError("only one of the two systems' rows has a column speaker: leave it out, or add it to the other")
    keys = [c for c in PAIRED if c in one and c in other]
    a, b = (sorted(rows[keys].fillna("").itertuples(index=False, name=None)) for rows in (one, other))
    if a != b:
        differ = names(sorted({str(row[keys.index("utterance")]) for row in set(a) ^ set(b)}), 3) or "repeated rows"
        raise UserError(f"the two systems were not scored on the same utterances ({differ}): compare rows of one run")


def _factors(rows: pd.DataFrame) -> list[np.ndarray]:
    """Codes of what is drawn, per row: the blocks, then what crosses them; -1 is never drawn."""
    seeds = rows.get("run", rows.get("seed"))
    several = seeds is not None and seeds.nunique() > 1
    return [*_said(rows), *([_codes(seeds)] if several else [])]


def _said(rows: pd.DataFrame) -> list[np.ndarray]:
    """The texts, the speakers, or both where they cross."""
    texts = rows.text_id.fillna("").astype(str)
    if (texts == "").any():
        raise UserError("some utterance rows have no text_id: the bootstrap needs it to keep a text together")
    speakers = rows.speaker.fillna("").astype(str) if "speaker" in rows else pd.Series("", index=rows.index)
    known = speakers != ""
    if speakers[known].nunique() < SPEAKERS:
        return [_codes(texts)]
    pairs = pd.DataFrame({"text": texts, "speaker": speakers, "known": known}).drop_duplicates()
    if not pairs.text.duplicated().any():
        return [_codes(speakers.where(known, "text " + texts))]
    if not pairs.speaker[pairs.known].duplicated().any():
        return [_codes(texts)]
    return [_codes(texts), _codes(speakers.where(known))]


def _codes(values: pd.Series) -> np.ndarray:
    return pd.factorize(values, sort=True)[0]


def _summed(weights: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """`weights @ sums`, a part at a time: the weights as float64, in which sums of counts are exact, take four times the memory."""
    parts = np.array_split(weights, max(1, weights.size // PART))
    return np.concatenate([part.astype(float) @ sums for part in parts])


@lru_cache(maxsize=4)  # the cells of one target share their texts, so the draws too
def _weights(count: int, samples: int, seed: tuple[int, ...]) -> np.ndarray:
    """How often each block is drawn: uint16 [samples, count], rows sum to `count`."""
    dice = np.random.default_rng(seed[0] if len(seed) == 1 else seed)
    even = np.full(count, 1 / count)
    drawn = [dice.multinomial(count, even, size=size).astype(np.uint16) for size in _sizes(samples, count)]
    weights = np.concatenate(drawn)
    weights.setflags(write=False)
    return weights


def _sizes(samples: int, count: int) -> list[int]:
    """How many resamples of `count` numbers are drawn at once, in parts that fit into memory."""
    return [len(part) for part in np.array_split(np.empty(samples), max(1, count * samples // PART))]
