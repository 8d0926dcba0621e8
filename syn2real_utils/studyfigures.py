"""Figures of what a profile asks for beside the default, from the tables of studytables.py."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from syn2real_utils.errors import UserError, names
from syn2real_utils.figures import COLOURS, INK, note_below, protocol_of, style
from syn2real_utils.statistics import ALL
from syn2real_utils.tables import overall, signed

GREY = "#888888"
DOTS_NOTE = "large: targets pooled, with bootstrap interval    small: single targets"


def selectors(table: pd.DataFrame) -> Figure:
    """Regret of each selector against the oracle, in points of WER, one facet per TTS.

    Args:
        table: tables/selectors.csv.
    """
    named = table.assign(label=table.selector + "\n" + table.looks_at)
    return _dots(named, "label", "regret", "regret against the oracle λ (points of WER)", COLOURS["adapted"])


def ensembles(table: pd.DataFrame) -> Figure:
    """Difference of each ensemble to the pooled vector at one length of step, in points of WER, one facet per TTS.

    Args:
        table: tables/ensemble_wer.csv.
    """
    named = table[table.ensemble != "pooled"].assign(label=table.ensemble)
    return _dots(named, "label", "difference", "difference to the pooled vector (points of WER)", COLOURS["ensemble"])


def source_counts(table: pd.DataFrame) -> Figure:
    """WER over the number of source domains in the mean vector, one facet per TTS.

    Args:
        table: tables/source_count_wer.csv.
    """
    rows = _spoken(table)
    engines = sorted(set(rows.tts))
    with style():
        figure, axes = plt.subplots(1, len(engines), figsize=(3.6 * len(engines), 2.9), squeeze=False, sharey=True)
        for tts, ax in zip(engines, axes.flat, strict=True):
            own, colour = rows[rows.tts == tts].sort_values("n_sources"), COLOURS["ensemble"]
            ax.fill_between(own.n_sources, own.ci_low, own.ci_high, color=colour, alpha=0.13, linewidth=0)
            ax.plot(own.n_sources, own.wer, color=colour, marker="o", markersize=4, linewidth=1.6)
            ax.vlines(own.n_sources, own.lowest, own.highest, color=INK, linewidth=1)
            ax.set(title=f"{_pooled_name(own)}, {tts}", xlabel="source domains in the mean")
            ax.set_xticks(own.n_sources, [*own.n_sources.astype(str)[:-1], "all"])
        axes[0, 0].set_ylabel("WER on real speech (%)")
        note = "band: bootstrap interval    bar: lowest and highest of single orders    all: of each target"
        note_below(figure, protocol_of(table) + _seeds(table) + note)
        plt.close(figure)
    return figure


def _seeds(table: pd.DataFrame) -> str:
    """Which seeds were heard: often the first alone, where other figures have all."""
    return f"Seed {names(sorted(set(table.seed.astype(str)) - {ALL}))}.    "


def _dots(table: pd.DataFrame, label: str, value: str, title: str, colour: str) -> Figure:
    """A row per label: single targets as small dots, all targets with their interval; one facet per TTS."""
    spoken, engines = _spoken(table), sorted(set(table.tts))
    labels = list(dict.fromkeys(table[label]))
    with style():
        figure, axes = plt.subplots(
            1, len(engines), figsize=(1.6 + 3.2 * len(engines), 1.0 + 0.42 * len(labels)), squeeze=False, sharex=True, sharey=True
        )  # fmt: skip
        for tts, ax in zip(engines, axes.flat, strict=True):
            own = spoken[spoken.tts == tts]
            single = overall(table)
            single = single[(single.tts == tts) & (single.target != ALL)]
            for height, name in enumerate(labels):
                found = single[single[label] == name][value]
                ax.plot(found, np.full(len(found), height), "o", color=GREY, markersize=3, alpha=0.7)
                _whisker(ax, height, own[own[label] == name].iloc[0], value, colour)
            ax.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
            ax.set(title=f"{_pooled_name(own)}, {tts}", yticks=range(len(labels)), ylim=(len(labels) - 0.5, -0.5))
            ax.set_yticklabels(labels)
            ax.set_xlabel(title)
        note_below(figure, protocol_of(table) + _seeds(table) + DOTS_NOTE)
        plt.close(figure)
    return figure


def _whisker(ax: Axes, height: int, row: pd.Series, value: str, colour: str) -> None:
    if pd.notna(row[f"{value}_low"]):
        ends = [row[f"{value}_low"], row[f"{value}_high"]]
        ax.plot(ends, [height, height], color=colour, linewidth=2.2, alpha=0.5, solid_capstyle="butt")
    ax.plot(row[value], height, "o", color=colour, markersize=6.5, zorder=3)
    ax.annotate(signed(row[value]), (row[value], height), xytext=(0, 6), textcoords="offset points", ha="center",
                fontsize=7.5, color=colour, path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip


def _spoken(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that pool the targets, or those of the only target; seeds pooled where there are several."""
    rows = overall(table)
    if rows.empty:
        raise UserError(
            "the table is empty: ask for it in the profile (evaluation.selectors, ensembles, source_counts)"
        )
    return rows[rows.target == ALL] if (rows.target == ALL).any() else rows


def _pooled_name(rows: pd.DataFrame) -> str:
    target = rows.target.iloc[0]
    return "all targets" if target == ALL else str(target)
