"""The anatomy of a gain: which words, which lengths, which domains. Pure: utterance rows in, tables out.

Always syn_target (before) against a model at its chosen lam (after), on the same clips and seeds.
"""

from collections import Counter
from functools import lru_cache

import jiwer
import numpy as np
import pandas as pd

from syn2real_utils.bootstrap import SAMPLES, corpus_wer, holm, paired_change
from syn2real_utils.selection import is_chosen

# Upper ends of the bins of a reference's words and of a clip's seconds.
WORDS = {"no word": 0, "1 word": 1, "2 words": 2, "3 words": 3, "4-5 words": 5, "6-8 words": 8, "over 8 words": np.inf}
SECONDS = {"up to 1 s": 1.0, "1-1.5 s": 1.5, "1.5-2 s": 2.0, "2-3 s": 3.0, "3-5 s": 5.0, "over 5 s": np.inf}
ANATOMY_COLUMNS = (
    "tts", "by", "value", "n_utterances", "n_words", "wer_before", "wer_after", "difference", "difference_low",
    "difference_high", "relative_change", "ci_low", "ci_high", "p", "p_holm",
)  # fmt: skip
WORD_COLUMNS = ("tts", "word", "n", "wrong_before", "wrong_after", "gained", "lost", "net")


def anatomy_table(
    utterances: pd.DataFrame, model: str = "adapted", samples: int = SAMPLES, confidence: float = 0.95
) -> pd.DataFrame:
    """tables/anatomy.csv: what `model` changes by domain, by number of reference words and by duration, per TTS.

    Returns:
        A row per `by` (domain, words, seconds) and `value`, in the order of the bins; p_holm over the values of one `by` and all TTS,
        so that of a domain it is that of the main table.
    """
    parts = []
    for tts, rows in utterances.groupby("tts", sort=True):
        before, after = _pair(rows, model)
        if after.empty:
            continue
        for by, labels in _labels(before).items():
            same = labels.set_axis(before.index)
            table = [
                _compared(str(value), before[same == value], after[(same == value).to_numpy()], samples, confidence)
                for value in labels.cat.categories
                if (same == value).any()
            ]
            parts.append(pd.DataFrame(table).assign(tts=tts, by=by))
    if not parts:
        return pd.DataFrame(columns=list(ANATOMY_COLUMNS))
    table = pd.concat(parts, ignore_index=True)
    table["p_holm"] = table.groupby("by").p.transform(holm)
    numbers = table.select_dtypes(float).columns
    return table.assign(**table[numbers].round(4))[list(ANATOMY_COLUMNS)]


def words_table(utterances: pd.DataFrame, model: str = "adapted") -> pd.DataFrame:
    """tables/words.csv: every reference word that was ever wrong, per TTS; the biggest net gain first.

    Returns:
        `n` (times it was said, each seed counted), `wrong_before, wrong_after` (not heard), `gained` (heard after only), `lost`
        (heard before only), `net` (gained - lost).
    """
    parts = []
    for tts, rows in utterances.groupby("tts", sort=True):
        before, after = _pair(rows, model)
        said, had, has, gained, lost = (Counter[str]() for _ in range(5))
        for reference, one, other in zip(before.reference, before.hypothesis, after.hypothesis, strict=True):
            words = reference.split()
            first, second = heard(reference, one), heard(reference, other)
            for counter, places in (
                (said, range(len(words))), (had, first), (has, second), (gained, second - first), (lost, first - second),
            ):  # fmt: skip
                counter.update(words[i] for i in places)
        table = [
            (tts, word, n, n - had[word], n - has[word], gained[word], lost[word], gained[word] - lost[word])
            for word, n in sorted(said.items())
            if had[word] < n or has[word] < n
        ]
        parts.append(pd.DataFrame(table, columns=list(WORD_COLUMNS)).sort_values("net", ascending=False, kind="stable"))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(WORD_COLUMNS))


@lru_cache(maxsize=100_000)
def heard(reference: str, hypothesis: str) -> frozenset[int]:
    """Places of the reference's words that were heard."""
    if not reference:
        return frozenset()
    (chunks,) = jiwer.process_words(reference, hypothesis).alignments
    return frozenset(
        i for chunk in chunks if chunk.type == "equal" for i in range(chunk.ref_start_idx, chunk.ref_end_idx)
    )


def words_between(before: pd.DataFrame, after: pd.DataFrame) -> tuple[Counter[str], Counter[str]]:
    """Reference words that only the second system heard (gained), and that only the first did (lost)."""
    gained: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    both = before.merge(after, on="utterance", suffixes=("", "_after"), validate="one_to_one")
    for row in both.itertuples():
        words = row.reference.split()
        had, has = (heard(row.reference, said) for said in (row.hypothesis, row.hypothesis_after))
        gained.update(words[i] for i in has - had)
        lost.update(words[i] for i in had - has)
    return gained, lost


def _pair(rows: pd.DataFrame, model: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of syn_target and of `model` at its chosen lam, in one order; of clips that both heard."""
    keys = ["target", "seed", "utterance"]
    before = rows[rows.model == "syn_target"].set_index(keys)
    after = rows[(rows.model == model) & is_chosen(rows.lam_source)].set_index(keys)
    both = before.index.intersection(after.index).sort_values()
    return before.loc[both].reset_index(), after.loc[both].reset_index()


def _labels(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """The bin of each row, as an ordered category, by what it is binned by."""
    found = {"domain": rows.target.astype("category")} if rows.target.nunique() > 1 else {}
    for by, values, ends in (("words", rows.n_words, WORDS), ("seconds", rows.duration.astype(float), SECONDS)):
        found[by] = pd.cut(values, [-np.inf, *ends.values()], labels=list(ends))
    return found


def _compared(
    value: str, before: pd.DataFrame, after: pd.DataFrame, samples: int, confidence: float
) -> dict[str, object]:
    found = paired_change(after, before, samples, confidence)
    return {
        "value": value, "n_utterances": len(after), "n_words": int(after.n_words.sum()), "wer_before": corpus_wer(before),
        "wer_after": corpus_wer(after), "difference": found.difference, "difference_low": found.difference_low,
        "difference_high": found.difference_high, "relative_change": found.relative, "ci_low": found.low,
        "ci_high": found.high, "p": found.p,
    }  # fmt: skip
