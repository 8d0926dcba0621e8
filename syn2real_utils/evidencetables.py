"""Text of the tables that a profile switches on, for results.md: selectors, ensembles, source counts, places and transfer."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from syn2real_utils.errors import names
from syn2real_utils.statistics import ALL
from syn2real_utils.tables import ALSO, blocks, overall, p_text, percent, percent_change, points

SCHEDULES = {  # places that are no part of tau: all of it is added, by factors that directions.py has
    "rising": "from nothing at the input of encoder and decoder (front end, embeddings) to twice the step at their output, so the last layers get most",
    "falling": "from twice the step at their input to nothing at their output, so the first layers get most",
}


@dataclass(frozen=True)
class Shown:
    """How a table is shown."""

    title: str
    columns: dict[str, str]  # column -> its heading; `CHANGES` have their interval with them
    note: str  # what is compared with what


CHANGES = ("relative_change", "difference", "regret", "to_default")  # in percent; in points of WER
COMPARED = {
    "model": "added to syn_target", "lam": "lam", "wer": "WER", "baseline": "against", "wer_baseline": "its WER",
    "relative_change": "relative change",
}  # fmt: skip
FAMILY = "p after Holm over all models and TTS of one baseline."
SHOWN = {
    "selectors": Shown(
        "Ways to choose lam",
        {
            "selector": "lam by", "looks_at": "which looks at", "lam": "lam", "wer": "WER", "wer_oracle": "WER of the oracle",
            "regret": "difference to the oracle, points",
            "to_default": "difference to the run's own choice, points", "relative_change": "relative change",
        },
        "The oracle is the best lam on the target's own labels, picked on these very clips. Relative change, p and verdict: of adapted at "
        "the lam that was chosen against syn_target.",
    ),
    "ensemble_wer": Shown(
        "Ways to make one vector of several",
        {"ensemble": "vector", "lam": "lam", "wer": "WER", "difference": "difference to the pooled vector, points"},
        "All take a step of one length, that of the pooled vector at its chosen lam.",
    ),
    "source_count_wer": Shown(
        "How many source domains",
        {
            "n_sources": "source domains", "wer": "WER", "lowest": "lowest order", "highest": "highest order",
            "difference": "difference to all source domains, points",
        },
        "The mean of a vector per source domain, its orders pooled; the largest number is all of each target.",
    ),
    "place_changes": Shown("Parts of tau, each added alone", COMPARED, f"adapted has all of tau. {FAMILY}"),
    "transfer_changes": Shown("tau of another TTS", COMPARED, f"adapted has the tau of its own TTS. {FAMILY}"),
}  # fmt: skip


def sections(found: dict[str, pd.DataFrame], confidence: float = 0.95) -> dict[str, pd.DataFrame]:
    """Title -> text of each of `SHOWN` that was computed and has rows.

    Args:
        found: tables by name, with the columns protocol and verdict.
        confidence: of their intervals.
    """
    return {
        shown.title: evidence(found[name], name, confidence)
        for name, shown in SHOWN.items()
        if name in found and len(found[name])
    }


def evidence(table: pd.DataFrame, name: str, confidence: float = 0.95) -> pd.DataFrame:
    """Text of one of `SHOWN`: over all targets, or of the only one, seeds pooled; `attrs["note"]` says what the numbers are."""
    shown, rows = SHOWN[name], overall(table)
    pooled = bool((rows.target == ALL).any())
    rows = rows[rows.target == ALL] if pooled else rows
    as_it_is = bool((rows.p_holm == rows.p).all())
    headings = shown.columns | {"p_holm": "p" if as_it_is else "p (Holm)", "verdict": "verdict"}
    cells = [
        {"target": "all targets" if pooled else row.target, "TTS": row.tts}
        | {heading: _cell(row, column) for column, heading in headings.items()}
        for _, row in rows.iterrows()
    ]
    result = pd.DataFrame(cells)
    said = [
        f"Protocol {names(table.protocol.unique())}, seed {names(sorted(set(table.seed.astype(str)) - {ALL}))}; WER in percent; "
        f"{100 * confidence:g} % bootstrap intervals over {blocks(table)}{ALSO}.",
        shown.note,
        schedules(table["model"]) if "model" in table else "",
        "own: each target at its own lam." if "lam" in headings and (result["lam"] == "own").any() else "",
        f"Each p by itself; single targets, with p after Holm: {name}.csv." if pooled and as_it_is else "",
    ]
    result.attrs["note"] = " ".join(filter(None, said))
    return result


def schedules(models: Iterable[str]) -> str:
    """What those of `SCHEDULES` are that stand among `models`."""
    said = [f"{name}: {words}" for name, words in SCHEDULES.items() if name in set(models)]
    return f"{'; '.join(said)}." if said else ""


def _cell(row: pd.Series, column: str) -> str:
    """A number as its column wants it; a change with its interval."""
    value = row[column]
    if column in CHANGES:
        low, high = (f"{column}_{end}" if f"{column}_{end}" in row else f"ci_{end}" for end in ("low", "high"))
        ends = pd.Series({"relative_change": value, "difference": value, "ci_low": row[low], "ci_high": row[high]})
        return percent_change(ends) if column == "relative_change" else points(ends)
    if column == "p_holm":
        return p_text(value)
    if column == "lam":
        return "own" if pd.isna(value) else f"{value:g}"
    return percent(value) if isinstance(value, float) else str(value)
