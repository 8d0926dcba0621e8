"""Two files of utterance rows against each other: B against A, by domain and pooled, with interval and p.

Any CSV will do that has `utterance` and what can be counted: a run's tables/utterances.csv, rows of `syn2real evaluate`, or
rows of another tool with `reference, hypothesis` (whose words are counted as they stand).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from syn2real_utils import tables
from syn2real_utils.bootstrap import MORE, MOST_SAMPLES, SAMPLES, SPEAKERS, Change, corpus_wer, holm, paired_change
from syn2real_utils.errors import UserError, names
from syn2real_utils.selection import CHOSEN, DIGITS, ORACLE, is_chosen, is_oracle
from syn2real_utils.statistics import ALL

SYSTEM = ("protocol", "backbone", "tts", "model", "lam", "context")  # what must have one value in each file
CHOICES = {"chosen": (CHOSEN, is_chosen), "oracle": (ORACLE, is_oracle)}  # lam by its label
KEYS = ["domain", "seed", "utterance"]  # of which a file has one row
COUNTED = ["n_words", "errors"]
TEXTS = ["reference", "hypothesis"]
OF_A_CLIP = (
    "text_id",
    "speaker",
    "fold",
    "duration",
    "normaliser",
    "raw_reference",
    "raw_hypothesis",
)  # no choice of a system
MOST = 1e6  # above it a count of words is a mistake
SHARED = {"reference": "references", "text_id": "text_id", "speaker": "speakers", "n_words": "numbers of words"}
NONE = "none"  # of a column that is empty
AS_THEY_STAND = "none (words as they stand)"  # normaliser of texts whose words are counted here


@dataclass(frozen=True)
class Difference:
    """B against A on one domain, or on all; WER in percent, difference in points; p_holm over the domains."""

    domain: str
    n_utterances: int  # clips, each once, however many seeds heard it
    n_words: int  # of these
    wer_a: float
    wer_b: float
    difference: float
    difference_low: float
    difference_high: float
    relative_change: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float
    verdict: str


def compare(
    file_a: Path,
    file_b: Path,
    only_a: Mapping[str, str] | None = None,
    only_b: Mapping[str, str] | None = None,
    samples: int = SAMPLES,
    confidence: float = 0.95,
) -> list[Difference]:
    """How B differs from A: a row per domain where there are several, and last a row that pools them.

    Args:
        file_a: rows of the baseline.
        file_b: rows of what is compared with it.
        only_a: column -> value of the rows of A that count; lam may be "chosen" or "oracle".
        only_b: the same of B.
        samples: bootstrap resamples.
        confidence: e.g. 0.95.

    Raises:
        UserError: a file or column is missing, a file holds several systems, or the two do not fit each other.
    """
    a, b = _read(file_a, only_a or {}), _read(file_b, only_b or {})
    _check_fit(a, b, f"A ({file_a})", f"B ({file_b})")
    if ALL in set(a.domain) and a.domain.nunique() > 1:
        raise UserError(
            f"{file_a} has a domain '{ALL}', which stands for all of them in the result: give it another name"
        )
    a, b = (rows.sort_values(KEYS, ignore_index=True) for rows in (a, b))
    speaker = a.speaker.where(a.speaker != "", b.speaker)  # one file may know what the other does not
    text_id = a.text_id.where(a.text_id != "", b.text_id)
    for other in (a.reference.map(_letters), b.reference.map(_letters), a.utterance):
        text_id = text_id.where(text_id != "", other)
    a, b = (rows.assign(text_id=text_id, speaker=speaker) for rows in (a, b))
    parts = [(domain, rows) for domain, rows in a.groupby("domain", sort=True)] if a.domain.nunique() > 1 else []
    found = [(str(domain), rows, b[b.domain == domain]) for domain, rows in parts] + [(ALL, a, b)]
    changes = [paired_change(model, baseline, samples, confidence) for _, baseline, model in found]
    adjusted = [*holm([change.p for change in changes[:-1]]), changes[-1].p]
    level = tables.level(confidence)
    return [
        _difference(domain, baseline, model, change, p, level)
        for (domain, baseline, model), change, p in zip(found, changes, adjusted, strict=True)
    ]


def _difference(
    domain: str, baseline: pd.DataFrame, model: pd.DataFrame, change: Change, p: float, level: float
) -> Difference:
    clips = model.drop_duplicates(["domain", "utterance"])
    return Difference(
        domain, len(clips), int(clips.n_words.sum()), corpus_wer(baseline), corpus_wer(model), change.difference,
        change.difference_low, change.difference_high, change.relative, change.low, change.high, change.p, p,
        tables.verdict(p, change.difference, level),
    )  # fmt: skip


def as_table(found: Sequence[Difference], confidence: float = 0.95, samples: int = SAMPLES) -> pd.DataFrame:
    """The comparison as a table to look at."""
    several, level = len(found) > 2, tables.level(confidence)
    table = [
        {
            "domain": "all domains" if several and row is found[-1] else row.domain,
            "clips": row.n_utterances,
            "words": row.n_words,
            "WER of_A": tables.percent(row.wer_a),
            "WER of_B": tables.percent(row.wer_b),
            "difference in points": tables.points(asdict(row) | {"ci_low": row.difference_low, "ci_high": row.difference_high}),
            "relative change": tables.percent_change(pd.Series(asdict(row))),
            "p (Holm)" if several else "p": tables.p_text(row.p_holm),
            "verdict": row.verdict,
        }
        for row in found
    ]  # fmt: skip
    result = pd.DataFrame(table)
    result.attrs["note"] = (
        f"B against A, negative is better; {100 * confidence:g} % bootstrap intervals over texts, and over speakers and seeds where the "
        f"rows name {SPEAKERS} speakers or more, and several seeds; significant means p below {level:.2g}."
        + (" p of the domains after Holm, of all domains as it is." if several else "")
        + (" Undefined: fewer than two texts to draw, or no word." if any(pd.isna(row.p) for row in found) else "")
        + _too_few(len(found) - 1, samples, level)
    )
    return result


def _too_few(domains: int, samples: int, level: float) -> str:
    """A warning where so few resamples let no p be significant, after Holm over the domains."""
    if 2 * max(domains, 1) / (MORE * samples + 1) < level:
        return ""
    wanted = math.ceil(2 * max(domains, 1) / level / MORE)
    advice = f"give --samples {wanted} or more" if wanted <= MOST_SAMPLES else "give a lower --confidence"
    return f" So few resamples ({samples}) let no p of a {'domain' if domains else 'row'} be that small: {advice}."


def _read(file: Path, only: Mapping[str, str]) -> pd.DataFrame:
    """The rows of one system: `domain, utterance, text_id, speaker, seed, normaliser, n_words, errors`."""
    if not file.is_file():
        raise UserError(f"no file {file}: expected a CSV of utterance rows, such as tables/utterances.csv of a run")
    rows = tables.read_csv(file)
    rows = _counted(rows, file)
    rows = _of_one_system(rows, only, file)
    if not rows.n_words.any():
        raise UserError(
            f"{file}: no reference has a word, so there is no error rate: check column n_words or reference"
        )
    _check_once(rows, file)
    plain = {"domain": rows.get("target", rows.get("domain", "")), "normaliser": rows.get("normaliser", "")}
    plain |= {name: rows.get(name, "") for name in ("speaker", "text_id", "reference")} | {"seed": rows.get("seed", 0)}
    rows = rows[["utterance", *COUNTED]].assign(**plain).reset_index(drop=True)
    named = ("utterance", "domain", "normaliser", "speaker", "text_id", "reference", "seed")
    if pd.api.types.is_float_dtype(rows.seed):  # where some rows have none
        rows = rows.assign(seed=rows.seed.map(_as_text, na_action="ignore"))
    rows = rows.assign(**{column: rows[column].fillna("").astype(str) for column in named})
    for column in ("utterance", "text_id"):
        if (empty := rows[column] == "").any() and (column == "utterance" or not empty.all()):
            raise UserError(f"{file}: column {column} is empty in some rows: expected a name in each")
    if (rows.text_id == "").all() and (rows.reference == "").all():
        raise UserError(
            f"{file} names no text: expected text_id or reference, for clips of one text are drawn together"
        )
    return rows


def _check_once(rows: pd.DataFrame, file: Path) -> None:
    """Raise UserError where a clip has several rows, naming the columns in which these differ."""
    keys = [column for column in ("target" if "target" in rows else "domain", "seed", "utterance") if column in rows]
    again = rows[rows.duplicated(keys, keep=False)]
    if again.empty:
        return
    groups = again.groupby(keys, dropna=False)
    counted = {*keys, *COUNTED, *TEXTS, *OF_A_CLIP}
    differ = [c for c in rows if c not in counted and groups[c].nunique(dropna=False).max() > 1]
    remedy = (
        f"choose by {names(differ, 5)}, such as --only {differ[0]}={_values(again[differ[0]])[0]}"
        if differ
        else "expected one each"
    )
    raise UserError(f"{file} has several rows of {names(again.utterance.astype(str).unique(), 3)}: {remedy}")


def _counted(rows: pd.DataFrame, file: Path) -> pd.DataFrame:
    """`rows` with edit counts, made from reference and hypothesis where they lack."""
    texts = set(TEXTS) <= set(rows)
    lacking = [c for c in ["utterance"] if c not in rows]
    lacking += [] if texts else [c for c in COUNTED if c not in rows]
    lacking += [] if "text_id" in rows or texts else ["text_id (or reference and hypothesis)"]
    if lacking:
        raise UserError(f"{file} has no column {names(lacking)}: expected the columns of tables/utterances.csv")
    if rows.empty:
        raise UserError(f"{file} has no rows: expected one per utterance")
    if not set(COUNTED) <= set(rows):
        from syn2real_utils.evaluation import rescore

        return rescore(rows.assign(normaliser=""), *TEXTS).assign(normaliser=AS_THEY_STAND)
    for column in COUNTED:
        found = rows[column]
        if (
            not pd.api.types.is_numeric_dtype(found)
            or pd.api.types.is_bool_dtype(found)
            or not ((found >= 0) & (found < MOST) & (found % 1 == 0)).all()
        ):
            raise UserError(f"{file}: column {column} must hold a whole number of 0 or more in every row")
    return rows


def _of_one_system(rows: pd.DataFrame, only: Mapping[str, str], file: Path) -> pd.DataFrame:
    """The rows that `only` names, which must be those of one system."""
    for column, value in sorted(only.items(), key=lambda pair: pair[0] == "lam"):  # lam last: it depends on the model
        if column not in rows:
            raise UserError(f"{file} has no column '{column}' to choose {value} by: it has {names(rows.columns, 30)}")
        there = rows[column]
        if column == "lam" and value in CHOICES and "lam_source" in rows:
            kept = CHOICES[value][1](rows.lam_source)
        elif value == NONE and not (there.astype(str) == NONE).any():
            kept = there.isna() | (there.astype(str) == "")
        elif pd.api.types.is_numeric_dtype(there) and not pd.api.types.is_bool_dtype(there):
            kept = there.round(DIGITS) == _number(value, column)
        else:
            kept = there.astype(str) == value
        if not kept.any():
            raise UserError(f"{file} has no rows of {column} {value}: it has {names(_values(there))}")
        rows = rows[kept]
    each_its_own = only.get("lam") in CHOICES
    for column in SYSTEM:
        if column in rows and not (column == "lam" and each_its_own) and len(choices := _values(rows[column])) > 1:
            label = " or chosen" if column == "lam" and "lam_source" in rows else ""
            raise UserError(
                f"{file} holds rows of several {column}: {names(choices)}{label}; choose one, such as --only {column}={choices[0]} "
                "(--a, --b: of one file)"
            )
    return rows


def _letters(text: str) -> str:
    """A text without what tools write in their own ways: case, spaces, punctuation."""
    return "".join(filter(str.isalnum, text.casefold()))


def _or_none(column: pd.Series) -> str:
    return names(sorted(value or NONE for value in set(column)))


def _values(column: pd.Series) -> list[str]:
    """What a column holds, as it can be chosen; rows where it is empty (such as lam of a model that has none) are one value."""
    values = column.round(DIGITS) if pd.api.types.is_float_dtype(column) else column
    empty = values.isna() | (values.astype(str) == "")
    return [*map(_as_text, sorted(values[~empty].unique()))] + ([NONE] if empty.any() else [])


def _as_text(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _number(text: str, column: str) -> float:
    try:
        return round(float(text), DIGITS)
    except ValueError:
        raise UserError(f"{column}={text}: expected a number") from None


def _check_fit(a: pd.DataFrame, b: pd.DataFrame, name_a: str, name_b: str) -> None:
    """Raise UserError unless every utterance of a file has its match in the other."""
    if set(a.normaliser) != set(b.normaliser):
        raise UserError(
            f"{name_a} was scored with the normaliser {_or_none(a.normaliser)}, {name_b} with {_or_none(b.normaliser)}: "
            "score both with one, or give both without n_words and errors: then the words of reference and hypothesis are counted"
        )
    if set(a.domain) != set(b.domain):
        raise UserError(
            f"{name_a} has the domains {_or_none(a.domain)}, {name_b} {_or_none(b.domain)}: give both the same column target or domain, "
            "or choose the same with --only, --a and --b"
        )
    if set(a.seed) != set(b.seed):
        shared = sorted(set(a.seed) & set(b.seed))
        remedy = (
            f"choose one, such as --only seed={shared[0]}" if shared else "leave column seed out, or score both on one"
        )
        raise UserError(f"{name_a} has the seeds {_or_none(a.seed)}, {name_b} {_or_none(b.seed)}: {remedy}")
    one, other = (pd.MultiIndex.from_frame(rows[KEYS]) for rows in (a, b))
    for name, lost in ((name_b, one.difference(other)), (name_a, other.difference(one))):
        if len(lost):
            listed = names(dict.fromkeys(map(str, lost.get_level_values(2))), 3)
            raise UserError(
                f"{name} lacks {len(lost)} rows that the other has ({listed}): score both on the same clips"
            )
    a, b = (rows.sort_values(KEYS, ignore_index=True) for rows in (a, b))
    for column, what in SHARED.items():
        known = (a[column] != "") & (b[column] != "")
        one, other = (rows[column].map(_letters) if column == "reference" else rows[column] for rows in (a, b))
        if (other := known & (one != other)).any():
            listed = names(a.utterance[other].unique(), 3)
            raise UserError(
                f"the {what} of {listed} differ between A and B: expected the same texts, scored in the same way"
            )
