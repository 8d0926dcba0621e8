"""The scoring audit: what the error rate hides. Pure: utterance rows in, tables out.

What Whisper says of a clip can be no attempt at its words at all. Two kinds are told apart, by rules that see the texts and the
clip's length alone, so that they hold for any recogniser:

- a *loop*: a phrase of up to `PHRASE` words again and again, `REPEATS` times or more in a row, and `REPEATS` - 1 times more
  than the reference itself repeats one;
- a *hallucination*, where it is no loop: text on a clip whose reference is empty; `LONGER` times the reference and `EXTRA`
  words more than it; more letters than anyone says in a clip of that length (`FASTEST` a second, and `PAUSE` s at least); or at
  least `EXTRA` words of which none is right and which share little with the reference (`UNRELATED` of its letters wrong).

The rates of wrong words that such rules can miss are still in the error rate: the rules name gross cases, and examples show them.
"""

from functools import lru_cache

import numpy as np
import pandas as pd

from syn2real_utils.bootstrap import corpus_cer, corpus_wer
from syn2real_utils.evaluation import rescore
from syn2real_utils.selection import SCALED, is_chosen
from syn2real_utils.statistics import ALL, MODELS

PHRASE = 6  # words
REPEATS = 3
LONGER = 2.0
EXTRA = 3  # words; so that one word too many on a clip of one word is no hallucination
FASTEST = 25.0  # letters a second; as corpora/base.py, where faster clips are taken not to hold their text
PAUSE = 0.5  # seconds
UNRELATED = 0.9
PERMUTATIONS = 9_999  # of the p of a rank correlation
LOOP, HALLUCINATION = "loop", "hallucination"
AUDIT_COLUMNS = (
    "target", "tts", "model", "n_utterances", "n_words", "wer", "wer_raw", "wer_raw_reference", "floor", "cer",
    "substitutions", "deletions", "insertions", "loops", "hallucinations",
)  # fmt: skip
QUALITY_COLUMNS = (
    "target", "tts", "n_clips", "flagged", "pace", "cer_synthetic", "relative_change", "ci_low", "ci_high", "p_holm",
)  # fmt: skip


def audit_table(utterances: pd.DataFrame) -> pd.DataFrame:
    """tables/audit.csv: one row per target, TTS and model (at its chosen lam), several targets pooled; all seeds together.

    Returns:
        `wer` (both texts normalised), `wer_raw` (neither), `wer_raw_reference` (the reference raw, as the paper's released code
        scores), `floor` (what a perfect recogniser gets there: the normalised reference against the raw one), `cer`; in
        percent. `substitutions, deletions, insertions` per 100 words, `loops, hallucinations` per 100 utterances. Raw rates
        are empty where the rows were scored before raw texts were kept.
    """
    rows = _flagged(headline_rows(utterances))
    raw = "raw_reference" in rows and (rows.raw_reference.fillna("") != "").all()
    for name, texts in (
        ("raw", ("raw_reference", "raw_hypothesis")),
        ("raw_reference", ("raw_reference", "hypothesis")),
        ("floor", ("raw_reference", "reference")),
    ):
        counted = rescore(rows, *texts) if raw else rows.assign(errors=np.nan, n_words=np.nan)
        rows = rows.assign(**{f"errors_{name}": counted.errors, f"words_{name}": counted.n_words})
    pooled = [rows.assign(target=ALL)] if rows.target.nunique() > 1 else []
    table = []
    for (target, tts, model), part in pd.concat([rows, *pooled]).groupby(["target", "tts", "model"], sort=False):
        counts = {
            "target": target,
            "tts": tts,
            "model": model,
            "n_utterances": len(part),
            "n_words": part.n_words.sum(),
        }
        rates = {"wer": corpus_wer(part), "cer": corpus_cer(part)}
        for column, name in (("wer_raw", "raw"), ("wer_raw_reference", "raw_reference"), ("floor", "floor")):
            rates[column] = _per_hundred(part[f"errors_{name}"].sum(), part[f"words_{name}"].sum())
        for kind in ("substitutions", "deletions", "insertions"):
            rates[kind] = _per_hundred(part[kind].sum(), part.n_words.sum())
        for column, kind in (("loops", LOOP), ("hallucinations", HALLUCINATION)):
            rates[column] = _per_hundred((part.kind == kind).sum(), len(part))
        table.append(counts | {name: round(value, 4) for name, value in rates.items()})
    found = pd.DataFrame(table, columns=list(AUDIT_COLUMNS))
    return found.sort_values(["target", "tts", "model"], key=_order, ignore_index=True)


def hallucinations_table(utterances: pd.DataFrame, most: int = 3) -> pd.DataFrame:
    """tables/hallucinations.csv: examples of loops and hallucinations, those of most errors first.

    Returns:
        `target, tts, model, kind, rank, of, utterance, duration, reference, hypothesis, errors`; `of` says how many there are.
    """
    rows = _flagged(headline_rows(utterances)).query("kind != ''")
    rows = rows.sort_values(["errors", "utterance", "seed"], ascending=[False, True, True], kind="stable")
    groups = rows.groupby(["target", "tts", "model", "kind"], sort=False)
    rows = rows.assign(rank=groups.cumcount() + 1, of=groups.utterance.transform("size"))
    columns = [
        "target",
        "tts",
        "model",
        "kind",
        "rank",
        "of",
        "utterance",
        "duration",
        "reference",
        "hypothesis",
        "errors",
    ]
    rows = rows.loc[rows["rank"] <= most, columns]
    return rows.sort_values(["target", "tts", "model", "kind", "rank"], key=_order, ignore_index=True)


def quality_table(synthetic: pd.DataFrame, changes: pd.DataFrame) -> pd.DataFrame:
    """tables/quality.csv: how good each target's synthetic clips are, beside what tau gained there.

    Args:
        synthetic: tables/synthetic.csv: `target, tts` and sums over the target's synthetic clips and its real ones.
        changes: tables/changes.csv.

    Returns:
        `flagged` (percent of clips that quality control left out), `pace` (seconds a letter, synthetic over real),
        `cer_synthetic` (what the ASR of `round_trip` mishears of the synthetic clips, in percent; empty where none listened), and
        the change of `adapted` at its chosen lam against syn_target.
    """
    seeds = changes.seed.astype(str)
    gains = changes[(changes.model == "adapted") & is_chosen(changes.lam_source) & (changes.target != ALL)]
    gains = gains[seeds[gains.index] == (ALL if (seeds == ALL).any() else seeds.iloc[0] if len(seeds) else "")]
    rows = synthetic.merge(gains, on=["target", "tts"], validate="one_to_one")
    pace = (rows.seconds / rows.n_letters) / (rows.real_seconds / rows.real_letters)
    heard = 100 * rows.char_errors / rows.n_chars if {"char_errors", "n_chars"} <= set(rows) else np.nan
    rows = rows.assign(flagged=100 * rows.n_flagged / rows.n_clips, pace=pace, cer_synthetic=heard)
    rows = rows.assign(p_holm=rows.p_holm if "p_holm" in rows else np.nan)
    return rows[list(QUALITY_COLUMNS)].round(4)


def rank_correlation(a: pd.Series, b: pd.Series) -> float:
    """Spearman's rho of the pairs that are known; nan for fewer than three."""
    ranks = _ranks(a, b)
    return np.nan if ranks is None else float(ranks[0] @ ranks[1])


def rank_p(a: pd.Series, b: pd.Series) -> float:
    """Two-sided p of `rank_correlation` by `PERMUTATIONS` shuffles of one side, the same ones in every call; nan where that is."""
    ranks = _ranks(a, b)
    if ranks is None:
        return np.nan
    shuffled = np.random.default_rng(0).permuted(np.tile(ranks[1], (PERMUTATIONS, 1)), axis=1)
    as_far = np.abs(shuffled @ ranks[0]) >= abs(ranks[0] @ ranks[1]) - 1e-9  # but for rounding
    return float((1 + np.count_nonzero(as_far)) / (PERMUTATIONS + 1))


def _ranks(a: pd.Series, b: pd.Series) -> tuple[np.ndarray, np.ndarray] | None:
    """The ranks of both sides, centred and of norm 1, where three pairs or more are known and neither side is constant."""
    known = a.notna() & b.notna()
    ranks = [part[known].rank() for part in (a, b)]
    if known.sum() < 3 or min(part.nunique() for part in ranks) < 2:
        return None
    centred = [(part - part.mean()).to_numpy(dtype=float) for part in ranks]
    one, other = (part / np.linalg.norm(part) for part in centred)
    return one, other


def kind_of(reference: str, hypothesis: str, duration: float = np.nan) -> str:
    """What an output is but an attempt at the words: "loop", "hallucination", or else "" (texts normalised).

    Args:
        reference: what was said.
        hypothesis: what was heard.
        duration: seconds of the clip; nan: not known, so the pace is not judged.
    """
    said, heard = reference.split(), hypothesis.split()
    if (times := repeats(heard)) >= REPEATS and times >= repeats(said) + REPEATS - 1:
        return LOOP
    if heard and not said:
        return HALLUCINATION
    if len(heard) >= LONGER * len(said) and len(heard) >= len(said) + EXTRA:
        return HALLUCINATION
    letters = sum(map(len, heard))
    if letters > FASTEST * max(duration, PAUSE) and letters > sum(map(len, said)):
        return HALLUCINATION
    return HALLUCINATION if len(heard) >= EXTRA and _unrelated(reference, hypothesis) else ""


def repeats(words: list[str]) -> int:
    """How often in a row the phrase of at most `PHRASE` words is said that is said most often in a row; 0 without words."""
    most = min(len(words), 1)
    for size in range(1, min(PHRASE, len(words) // 2) + 1):
        same = 0  # words in a row that equal the one a phrase before
        for i in range(size, len(words)):
            same = same + 1 if words[i] == words[i - size] else 0
            most = max(most, same // size + 1)
    return most


def headline_rows(utterances: pd.DataFrame) -> pd.DataFrame:
    """The rows of the models as they are reported: those with a lam at their chosen one."""
    return utterances[~utterances.model.isin(SCALED) | is_chosen(utterances.lam_source)].reset_index(drop=True)


def _flagged(rows: pd.DataFrame) -> pd.DataFrame:
    texts = zip(rows.reference.fillna(""), rows.hypothesis.fillna(""), rows.duration.astype(float), strict=True)
    return rows.assign(kind=[_kind_of(*row) for row in texts])


_kind_of = lru_cache(maxsize=100_000)(kind_of)  # many models say the same


def _unrelated(reference: str, hypothesis: str) -> bool:
    (found,) = rescore(
        pd.DataFrame([{"reference": reference, "hypothesis": hypothesis, "normaliser": ""}]), "reference", "hypothesis"
    ).to_dict("records")
    hits = found["n_words"] - found["substitutions"] - found["deletions"]
    return hits == 0 and found["char_errors"] >= UNRELATED * found["n_chars"]


def _per_hundred(count: float, of: float) -> float:
    return 100 * count / of if of else np.nan


def _order(column: pd.Series) -> pd.Series:
    """Models in the order of the story, targets with what pools them last."""
    if column.name == "model":
        return column.map(lambda m: f"{MODELS.index(m):02}" if m in MODELS else f"99{m}")
    return column.map(lambda t: (t == ALL, str(t))) if column.name == "target" else column
