"""Go or no-go, and why, in one line: whether the evidence says that the adapted model beats pretrained on real speech."""

import math
from collections.abc import Sequence

import pandas as pd

from syn2real_utils.readyvector import ReadyVector
from syn2real_utils.vectorpick import NONE, Vector, expected_change, promised_change, recorded_lam

LEVEL = 0.05  # of p; with fewer than six clips none can be below it
VOICE = "a voice that it has not heard may gain nothing from tau: prove it with --devel"
GOOD = 5.0  # WER in percent, our choice: of a model that misses one word in twenty there is little to mend


def verdict(
    choice: str,
    picked: Sequence[Vector],
    lam: float,
    keep: float,
    changes: pd.DataFrame | None,
    before: float = math.nan,
) -> tuple[bool, str]:
    """Whether to use the model, and why, in one line.

    The user's own real clips say it where there are any; else what the vector did where it was made.

    Args:
        choice: of the vector.
        picked: the vectors; [] where there is none.
        lam: how far the model was moved.
        keep: share of the pretrained weights in it.
        changes: `proof.changes` on the user's real clips; None: there are none.
        before: WER of pretrained in percent, on those clips, else on the synthetic ones; nan: not measured.
    """
    if changes is not None:
        return _proved(changes, before, bool(picked))
    if before <= GOOD:
        return False, (
            f"pretrained makes {before:.1f} % errors on the synthetic speech of these texts, so it may already be good: "
            "keep pretrained, or prove this model with --devel"
        )
    if not picked:
        why = "no vector was asked for" if choice == NONE else "no vector was found"
        gap = "so this is syn_target, whose gap to real speech is open"
        return False, f"{why}, {gap}: make one with 'syn2real run', or prove this with --devel"
    if keep == 1:
        return False, "with --keep 1 this is pretrained"
    if not 0 < lam <= 1:
        return False, f"lam {lam:g} is outside of what was measured, above 0 and up to 1: prove it with --devel"
    return _promised(picked, lam, keep)


def _proved(changes: pd.DataFrame, before: float, moved: bool) -> tuple[bool, str]:
    """By the user's real clips."""
    rows = {(row.model, row.baseline): row for row in changes.itertuples()}
    row = rows["adapted", "pretrained"]
    told = f"on your real clips the errors of pretrained change by {change(row.relative_change, row.ci_low, row.ci_high)} with adapted"
    if _surely_better(row):
        tau, joint = rows.get(("adapted", "syn_target")), rows.get(("joint", "adapted"))
        if moved and tau is not None and not _surely_better(tau):
            said = change(tau.relative_change, tau.ci_low, tau.ci_high)
            helps = "makes it worse: call with --vector none" if _surely_worse(tau) else "is no sure help"
            told += f"; tau {helps} ({said} against syn_target)"
        if joint is not None and _surely_better(joint):
            told += "; the rival in joint/ is surely better still"
        return True, told
    if _surely_worse(row):
        return False, f"{told}: it is surely worse, keep pretrained"
    if before <= GOOD:
        return (
            False,
            f"pretrained is already good on your real clips (WER {before:.1f} %), and adapted not surely better",
        )
    if row.ci_high < 0:
        return False, f"{told}, but so few clips prove nothing (p {row.p:.2f}): give more of them"
    return False, f"{told}: it is not surely better, keep pretrained or give more texts"


def _promised(picked: Sequence[Vector], lam: float, keep: float) -> tuple[bool, str]:
    """By what the vectors did where they were made."""
    promised, expected = promised_change(picked), expected_change(picked)
    if promised is None:
        return False, (
            "the vector does not say how adapted compares with pretrained where it was made: prove it with --devel"
        )
    which = "the vector" if len(picked) == 1 else "each of the vectors alone"
    told = f"where {which} was made, on clips of its own corpus, WER changed by {_range(promised)} against pretrained"
    if expected is not None:
        told += f" (against syn_target by {_range(expected)})"
        if expected[0] > 0:
            return False, f"{told}: tau made it worse there, call with --vector none"
    if promised[1] >= 0:
        return False, f"{told}: not surely better, prove it with --devel"
    if expected is not None and expected[1] >= 0:
        told += "; tau itself is no sure help"
    low_rank = any(isinstance(vector, ReadyVector) and vector.about.form != "full" for vector in picked)
    if keep or low_rank or lam != recorded_lam(picked):
        told += "; that was whole, at its own lam and without --keep, this one is not"
    return True, f"{told}; {VOICE}"


def change(relative: float, low: float, high: float) -> str:
    """A relative change with its interval, as far as they are defined."""
    if math.isnan(relative):
        return "undefined, for there was no error before"
    interval = "no interval" if math.isnan(low) else f"{low:+.1f}, {high:+.1f}"
    return f"{relative:+.1f} % [{interval}]"


def _surely_better(row) -> bool:
    return bool(row.ci_high < 0 and row.p < LEVEL)


def _surely_worse(row) -> bool:
    return bool(row.ci_low > 0 and row.p < LEVEL)


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.1f} to {interval[1]:+.1f} %"
