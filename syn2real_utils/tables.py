"""Tables to look at: the results in a terminal, in Markdown and in a notebook, and transcripts before and after."""

import bz2
import csv
import gzip
import io
import lzma
import textwrap
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from syn2real_utils.bootstrap import SPEAKERS
from syn2real_utils.errors import UserError, names
from syn2real_utils.selection import CHOSEN, DEVEL, how_chosen, is_chosen
from syn2real_utils.statistics import ALL, MODELS, adjusted

NOT_RUN = "not run"
TEXT = (
    "target",
    "tts",
    "protocol",
    "backbone",
    "model",
    "lam_source",
    "utterance",
    "text_id",
    "context",
    "reference",
    "hypothesis",
    "normaliser",
    "raw_reference",
    "raw_hypothesis",
    "speaker",
    "domain",
    "tts_a",
    "domain_a",
    "tts_b",
    "domain_b",
    "heard",
    "word",
    "by",
    "value",
    "kind",
    "verdict",
)
ALSO = f" (over speakers too, where {SPEAKERS} or more are named)"
CHOSEN_ON = {CHOSEN: "left-out source domains", DEVEL: "real speech of the target's devel part"}
SHOWN = MODELS[:4]  # models that have no lam
PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
MINUS = "\N{MINUS SIGN}"


def read_csv(path: Path, wanted: Sequence[str] = ()) -> pd.DataFrame:
    """Read one of a run's tables as it was written: a transcript "nan" is a word, a text_id of digits is no number.

    Args:
        path: the file; .gz, .bz2 and .xz are unpacked.
        wanted: columns that it must have.

    Raises:
        UserError: it is no CSV in UTF-8, or damaged; a row has more fields than the heading, or less; a column is missing.
    """
    try:
        with PACKED.get(path.suffix, open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            text = file.read()
        _check_fields(text)
        header = pd.read_csv(io.StringIO(text), nrows=0).columns
        if lacking := [column for column in wanted if column not in header]:
            raise ValueError(f"it has no column {names(lacking)}")
        return pd.read_csv(
            io.StringIO(text),
            dtype=dict.fromkeys(header.intersection(TEXT), str),
            keep_default_na=False,
            na_values={column: [""] for column in header.difference(TEXT)},
            float_precision="round_trip",
        )
    except (
        OSError,
        EOFError,
        ValueError,
        csv.Error,
        zlib.error,
        lzma.LZMAError,
    ) as error:  # of pandas: kinds of ValueError
        found = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read ({found}): expected a CSV with commas, in UTF-8") from error


def _check_fields(text: str) -> None:
    """Raise ValueError unless every row has as many fields as the heading: pandas would move or fill them without a word."""
    rows = csv.reader(io.StringIO(text))
    heading = next(rows, [])
    wanted = len(heading)
    if twice := [name for i, name in enumerate(heading) if name in heading[:i]]:
        raise ValueError(f"it has the column {twice[0]} twice")
    for row in rows:
        if row and len(row) != wanted:
            raise ValueError(f"line {rows.line_num} has {len(row)} fields, the heading {wanted}")


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that speak for a run: those that pool its seeds, or where there is one seed, all rows."""
    if table.empty:
        return table
    pooled = table[table.seed.astype(str) == ALL]
    if pooled.empty and table.seed.nunique() > 1:
        raise UserError(
            f"the table has seeds {names(table.seed.unique())} and no row that pools them: make it of all rows in one call"
        )
    return table if pooled.empty else pooled


def headline(wer: pd.DataFrame, target: str, tts: str) -> dict[str, pd.Series]:
    """Model -> its one row of a target and TTS: `adapted` and `ensemble` at the chosen lam; models that were not run lack."""
    rows = overall(wer)
    rows = rows[(rows.target == target) & (rows.tts == tts)]
    rows = rows[rows.model.isin(SHOWN) | is_chosen(rows.lam_source)]
    if not (once := ~rows.model.duplicated()).all():
        raise UserError(
            f"{target}, {tts} has several rows of {names(rows.model[~once].unique())}: expected one protocol and backbone"
        )
    return {row.model: row for _, row in rows.iterrows()}


def results_table(wer: pd.DataFrame, changes: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """One row of text per target and TTS: WER in percent by model, and the relative change of adapted against syn_target.

    Several targets end with a row that pools them. Several p are adjusted by Holm over the targets and TTS, and where p is not
    below 1 - confidence, the verdict is "not significant". What was not run says so. `attrs["note"]` says what the numbers are.
    """
    cells = pairs(wer)
    at_chosen = overall(changes.assign(p_holm=adjusted(changes)))
    at_chosen = at_chosen[(at_chosen.model == "adapted") & is_chosen(at_chosen.lam_source)].set_index(["target", "tts"])
    p_name = "p (Holm)" if (at_chosen.index.get_level_values(0) != ALL).sum() > 1 else "p"
    table = []
    for target, tts in cells:
        models = headline(wer, target, tts)
        row = {"target": "all targets" if target == ALL else target, "TTS": tts}
        row |= {model: f"{models[model].wer:.1f}" if model in models else NOT_RUN for model in SHOWN}
        row["adapted (lam)"] = _adapted(models["adapted"]) if "adapted" in models else NOT_RUN
        change = at_chosen.loc[(target, tts)] if (target, tts) in at_chosen.index else None
        row["relative change"] = NOT_RUN if change is None else percent_change(change)
        row[p_name] = NOT_RUN if change is None else p_text(change.p_holm)
        row["verdict"] = (
            NOT_RUN if change is None else verdict(change.p_holm, change.relative_change, level(confidence))
        )
        table.append(row)
    result = pd.DataFrame(table)
    result.attrs["note"] = (
        f"WER in percent on real speech; backbone {names(wer.backbone.unique())}, protocol {names(wer.protocol.unique())}; lam chosen on "
        f"{chosen_on(wer)}. Relative change of adapted against syn_target with its "
        f"{100 * confidence:g} % bootstrap interval over {blocks(wer)}{ALSO}; significant means p below "
        f"{level(confidence):.2g}."
        + (" p of single rows after Holm, of all targets as it is." if p_name != "p" else "")
    ) + (" (own): each target at its own lam." if table and "(own)" in table[-1]["adapted (lam)"] else "")
    return result


def baselines_table(changes: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Text of baselines.csv: each pair of models over all targets, or of the only one, with its verdict.

    Args:
        changes: baselines.csv.
        confidence: of its intervals.
    """
    rows = overall(changes)
    pooled = bool((rows.target == ALL).any())
    rows = rows[rows.target == ALL] if pooled else rows
    table = [
        {
            "target": "all targets" if row.target == ALL else row.target,
            "TTS": row.tts,
            "model": row.model,
            "WER": f"{row.wer_model:.1f}",
            "against": row.baseline,
            "its WER": f"{row.wer_baseline:.1f}",
            "relative change": percent_change(row),
            "p" if pooled else "p (Holm)": p_text(row.p_holm),
            "verdict": verdict(row.p_holm, row.relative_change, level(confidence)),
        }
        for _, row in rows.iterrows()
    ]
    result = pd.DataFrame(table)
    result.attrs["note"] = (
        f"Protocol {names(changes.protocol.unique())}; models with a lam at the chosen one; {100 * confidence:g} % bootstrap intervals "
        f"over {blocks(changes)}{ALSO}."
    ) + (" p of all targets as it is; single targets, with p after Holm: baselines.csv." if pooled else "")
    return result


def chosen_on(wer: pd.DataFrame) -> str:
    """What lam was chosen on, in words."""
    return CHOSEN_ON[how_chosen(str(wer.protocol.iloc[0]))]


def blocks(wer: pd.DataFrame) -> str:
    """What the bootstrap of a table draws, in words: seeds too where there are several."""
    return "texts and seeds" if len(set(wer.seed.astype(str)) - {ALL}) > 1 else "texts"


def raw_table(wer: pd.DataFrame, raw: pd.DataFrame) -> pd.DataFrame:
    """WER of normalised and of raw references side by side, per target, TTS and model, with the floor of the latter.

    Args:
        wer: wer.csv.
        raw: raw_wer.csv.
    """
    table = []
    for target, tts in pairs(wer):
        plain, against = headline(wer, target, tts), headline(raw, target, tts)
        for model in plain:
            rates = {"WER": plain[model].wer, "WER, raw references": against[model].wer, "floor": against[model].floor}
            cells = {name: f"{rate:.1f}" for name, rate in rates.items()}
            table.append({"target": "all targets" if target == ALL else target, "TTS": tts, "model": model} | cells)
    result = pd.DataFrame(table)
    result.attrs["note"] = (
        f"Protocol {names(wer.protocol.unique())}. Raw references: the hypothesis is normalised and the reference is not, as the "
        "paper's code scores; the floor is what a perfect recogniser gets."
    )
    return result


def percent_change(change: pd.Series) -> str:
    """`-12.3 % [-20.1, -4.0]`, with a true minus sign; `undefined` where the baseline makes no error."""
    if pd.isna(change.relative_change):
        return "undefined"
    ends = "no interval" if pd.isna(change.ci_low) else f"[{signed(change.ci_low)}, {signed(change.ci_high)}]"
    return f"{signed(change.relative_change)} % {ends}"


def points(gap: Mapping[str, Any]) -> str:
    """A row of context_gaps.csv as `+0.8 [-1.2, +3.0]`, points of WER; `undefined` without a word."""
    if pd.isna(gap["difference"]):
        return "undefined"
    ends = "no interval" if pd.isna(gap["ci_low"]) else f"[{signed(gap['ci_low'])}, {signed(gap['ci_high'])}]"
    return f"{signed(gap['difference'])} {ends}"


def percent(value: float) -> str:
    """A rate in percent with one decimal, or "undefined"."""
    return "undefined" if pd.isna(value) else f"{value:.1f}"


def signed(value: float) -> str:
    """A number of one decimal with its sign; zero has none."""
    text = f"{value:+.1f}"
    return text[1:] if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def as_text(table: pd.DataFrame, width: int = 100) -> str:
    """The table for a terminal of `width` columns: long headings in two lines, long names cut with an ellipsis."""
    heads = [_split(str(c)) for c in table]
    cells = [[str(value) for value in table[c]] for c in table]
    widths = [max(map(len, [*head, *column])) for head, column in zip(heads, cells, strict=True)]
    if (over := sum(widths) + 2 * (len(widths) - 1) - width) > 0:
        widest = max(range(2), key=lambda i: widths[i])  # only the names of target and TTS may be cut
        widths[widest] = max(4, widths[widest] - over)
    left = [i < 2 or not any(c[-1:].isdigit() or c[-1:] == "]" for c in column) for i, column in enumerate(cells)]
    lines = [_line([head[i] for head in heads], widths, left) for i in range(2)]
    lines = [line for line in lines if line.strip()]
    lines.append("  ".join("-" * w for w in widths))
    lines += [_line(row, widths, left) for row in zip(*cells, strict=True)]
    if note := table.attrs.get("note"):
        lines += ["", *textwrap.wrap(note, width)]
    return "\n".join(lines)


def as_markdown(table: pd.DataFrame) -> str:
    """The table as GitHub Markdown, its note below."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False, name=None)]
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    if note := table.attrs.get("note"):
        lines += ["", note]
    return "\n".join(lines)


def examples(utterances: pd.DataFrame, n: int = 5, model: str = "adapted") -> pd.DataFrame:
    """Transcripts of syn_target and of `model` at its chosen lam: the `n` biggest gains and the `n` biggest losses.

    The rule, which nobody's taste enters: per target and TTS, first seed, one utterance per text, by the change in errors and
    then by text_id. Where there are fewer than `n` of either, all of them are shown; `of` says how many there are.

    Returns:
        `target, tts, kind (gain|loss), rank, of, utterance, lam, reference, before, after, errors_before, errors_after`.
    """
    table = [_examples_of(part, n, model) for _, part in utterances.groupby(["target", "tts"], sort=True)]
    return pd.concat(table, ignore_index=True) if table else pd.DataFrame()


def _examples_of(part: pd.DataFrame, n: int, model: str) -> pd.DataFrame:
    part = part[part.seed == part.seed.min()]
    before = part[part.model == "syn_target"][["utterance", "hypothesis", "errors"]]
    after = part[(part.model == model) & is_chosen(part.lam_source)]
    both = after.merge(before, on="utterance", suffixes=("_after", "_before"), validate="one_to_one")
    both = both.rename(columns={"hypothesis_before": "before", "hypothesis_after": "after"})
    both = (
        both.assign(delta=both.errors_after - both.errors_before)
        .sort_values(["text_id", "utterance"])
        .drop_duplicates("text_id")
    )
    gains = both[both.delta < 0].sort_values("delta", kind="stable")
    losses = both[both.delta > 0].sort_values("delta", kind="stable", ascending=False)
    shown = [
        found.head(n).assign(kind=kind, rank=range(1, min(n, len(found)) + 1), of=len(found))
        for kind, found in (("gain", gains), ("loss", losses))
    ]
    columns = ["target", "tts", "kind", "rank", "of", "utterance", "lam"]
    return pd.concat(shown)[[*columns, "reference", "before", "after", "errors_before", "errors_after"]]


def pairs(wer: pd.DataFrame) -> list[tuple[str, str]]:
    """Every target with every TTS, whether run or not, in the order of the table; pooled targets last."""
    targets, engines = list(dict.fromkeys(wer.target)), sorted(set(wer.tts))
    return [(target, tts) for target in sorted(targets, key=lambda t: t == ALL) for tts in engines]


def _adapted(row: pd.Series) -> str:
    return f"{row.wer:.1f} ({'own' if pd.isna(row.lam) else f'{row.lam:g}'})"


def level(confidence: float) -> float:
    """The level of significance: 0.05 for a confidence of 0.95, without what rounding adds to 1 - 0.95."""
    return round(1 - confidence, 12)


def verdict(p: float, change: float, level: float = 0.05) -> str:
    """What a p says in words: "better", "worse" or "not significant"; "undefined" without a p."""
    if pd.isna(p):
        return "undefined"
    if p >= level:
        return "not significant"
    return "better" if change < 0 else "worse"


def p_text(value: float) -> str:
    """A p of three decimals, "<0.001", or "undefined"."""
    if pd.isna(value):
        return "undefined"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _split(heading: str) -> tuple[str, str]:
    for sign, cut in ((" ", 0), ("_", 1)):
        if sign in heading:
            at = heading.index(sign)
            return heading[: at + cut], heading[at + 1 :]
    return "", heading


def _line(cells: Sequence[str], widths: list[int], left: list[bool]) -> str:
    cut = [c if len(c) <= w else c[: w - 1] + "\N{HORIZONTAL ELLIPSIS}" for c, w in zip(cells, widths, strict=True)]
    return "  ".join(
        c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(cut, widths, left, strict=True)
    ).rstrip()
