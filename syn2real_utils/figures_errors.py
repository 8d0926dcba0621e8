"""Figures of the errors: the scoring audit, and the anatomy of a gain by domain, length and word. As figures.py."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from syn2real_utils.audit import PERMUTATIONS, rank_correlation, rank_p
from syn2real_utils.errors import UserError
from syn2real_utils.figures import COLOURS, INK, note_below, protocol_of, style
from syn2real_utils.statistics import ALL
from syn2real_utils.tables import MINUS, p_text, signed

GREY = "#767676"
EDITS = {"substitutions": "#0068A8", "deletions": "#E0A030", "insertions": "#CC4C02"}
BY = {"domain": "target domain", "words": "words of the reference", "seconds": "length of the clip"}
LEVEL = 0.05
NAMED = 6  # domains; of more, the names would cover each other
VALUES = 3  # of a measure of quality, that something be seen over it
DOMAINS = 8  # from which a rank correlation says something
SHOWN = 8  # words gained, and words lost


def audit(table: pd.DataFrame) -> Figure:
    """Substitutions, deletions and insertions of each model, and in numbers what the scoring hides; per TTS.

    Args:
        table: tables/audit.csv; targets are pooled where there are several.
    """
    if table.empty:
        raise UserError("the audit has no rows: score some models first")
    rows = table[table.target == ALL] if (table.target == ALL).any() else table
    facets = [(key, part) for key, part in rows.groupby(["target", "tts"], sort=False)]
    widest = rows[list(EDITS)].sum(axis=1).max()
    with style():
        height = 0.9 + 0.34 * max(len(part) for _, part in facets)
        figure, axes = plt.subplots(
            len(facets),
            2,
            figsize=(9.4, height * len(facets) + 0.3),
            squeeze=False,
            gridspec_kw={"width_ratios": [1.1, 1]},
        )
        for (ax, beside), ((target, tts), part) in zip(axes, facets, strict=True):
            left = np.zeros(len(part))
            for edit, colour in EDITS.items():
                ax.barh(part.model, part[edit], left=left, color=colour, height=0.66, label=edit)
                left = left + part[edit].to_numpy()
            ax.set_title(f"{'all targets' if target == ALL else target}, {tts}")
            ax.set(xlim=(0, widest * 1.03), ylim=(len(part) - 0.4, -0.6))
            ax.tick_params(axis="y", length=0)
            _columns(beside, part)
        axes[-1, 0].set_xlabel("errors in 100 words")
        axes[-1, 0].legend(loc="upper left", bbox_to_anchor=(-0.02, -0.16), ncol=3, frameon=False, fontsize=8)
        note = (
            "CER: character errors. raw: neither text normalised. raw reference: only the hypothesis is, as the paper's code scores; (floor): "
            "what a perfect recogniser gets so. Loops and hallucinations in 100 clips, by the rules of audit.py."
        )
        note_below(figure, protocol_of(table) + note)
        plt.close(figure)
    return figure


def anatomy(table: pd.DataFrame) -> Figure:
    """Difference in WER with its interval, by domain, by words and by length; a column per TTS.

    Args:
        table: tables/anatomy.csv.
    """
    if table.empty:
        raise UserError("the anatomy has no rows: score syn_target and adapted first")
    kinds, engines = [by for by in BY if by in set(table.by)], list(dict.fromkeys(table.tts))
    sizes = [table[table.by == by].value.nunique() for by in kinds]
    ends = table[["difference_low", "difference_high", "difference"]].to_numpy(dtype=float)
    limit = min(1.12 * np.nanmax(np.abs(ends)), 100.0) or 1.0
    with style():
        figure, axes = plt.subplots(
            len(kinds), len(engines), figsize=(4.4 * len(engines), sum(0.6 + 0.3 * n for n in sizes) + 0.4), squeeze=False,
            sharex="all", gridspec_kw={"height_ratios": [n + 1 for n in sizes]},
        )  # fmt: skip
        for row, by in enumerate(kinds):
            for column, tts in enumerate(engines):
                ax, part = axes[row, column], table[(table.by == by) & (table.tts == tts)]
                values = list(dict.fromkeys(table.value[table.by == by]))
                _forest(ax, part.set_index("value").reindex(values), labelled=column == 0)
                ax.set_title(f"by {BY[by]}, {tts}")
                ax.set_xlim(-limit, limit)
        for ax in axes[-1]:
            ax.set_xlabel("change in WER (points)")
        note = "adapted at its chosen λ against syn_target; left is better. Filled: p (Holm, over both TTS) below 0.05. In brackets: words, once a seed."
        note_below(figure, protocol_of(table) + note)
        plt.close(figure)
    return figure


def words(table: pd.DataFrame, shown: int = SHOWN) -> Figure:
    """The reference words of the biggest net gain and of the biggest net loss, per TTS.

    Args:
        table: tables/words.csv.
        shown: of either, at most.
    """
    if table.empty:
        raise UserError("no word was ever wrong: there is nothing to show")
    engines = list(dict.fromkeys(table.tts))
    found = {tts: _extremes(table[table.tts == tts], shown) for tts in engines}
    most = max([1, *(part.net.abs().max() for part in found.values() if len(part))])
    height = max(len(part) for part in found.values())
    with style():
        figure, axes = plt.subplots(
            1, len(engines), figsize=(3.7 * len(engines), 1.2 + 0.21 * max(height, 2)), squeeze=False
        )
        for ax, (tts, part) in zip(axes.flat, found.items(), strict=True):
            colours = np.where(part.net > 0, COLOURS["adapted"], COLOURS["syn_target"])
            ax.barh(range(len(part)), part.net, color=colours, height=0.68)
            for place, row in enumerate(part.itertuples()):
                side = 1 if row.net > 0 else -1
                text = f"{row.word} ({row.wrong_before}→{row.wrong_after} of {row.n})"
                ax.annotate(text, (0, place), xytext=(-4 * side, 0), textcoords="offset points", va="center",
                            ha="right" if side > 0 else "left", fontsize=7.5)  # fmt: skip
            ax.axvline(0, color=INK, linewidth=0.8)
            ax.set(title=tts, yticks=[], xlim=(-1.6 * most, 1.6 * most), ylim=(max(height, 2) - 0.4, -0.6))
            ax.set_xticks(
                sorted({-int(most), 0, int(most)}), [signed_count(n) for n in sorted({-int(most), 0, int(most)})]
            )
            ax.spines["left"].set_visible(False)
            ax.set_xlabel("heard rightly more often (right), less often (left)")
        note = "adapted at its chosen λ against syn_target. In brackets: how often the word was wrong, before→after, of how many, once a seed."
        note_below(figure, protocol_of(table) + note)
        plt.close(figure)
    return figure


def quality(table: pd.DataFrame) -> Figure:
    """What tau gained in a domain over how its synthetic clips are: their pace, and where it is known, how they are heard.

    Args:
        table: tables/quality.csv.
    """
    if table.empty:
        raise UserError("no domain has both synthetic clips and a change: there is nothing to show")
    axis = {"pace": "seconds a letter, synthetic over real", "flagged": "clips left out by quality control (%)"}
    if table.cer_synthetic.notna().any():
        axis["cer_synthetic"] = "CER of another recogniser on the synthetic clips (%)"
    axis = {column: label for column, label in axis.items() if column == "pace" or table[column].nunique() >= VALUES}
    engines = sorted(set(table.tts))
    shades = dict(zip(engines, ("#0068A8", "#B87A00", "#9A3D7E", "#00875F"), strict=False))
    domains = f"{table.target.nunique()} domains"
    heights = table[["relative_change", "ci_high"]].replace(np.inf, np.nan).max().max()
    top = 1.1 * max(heights, 10.0)  # where an interval without an upper end stops
    with style():
        figure, axes = plt.subplots(1, len(axis), figsize=(max(4.8, 3.9 * len(axis)), 3.4), sharey=True, squeeze=False)
        for ax, (column, label) in zip(axes.flat, axis.items(), strict=True):
            ax.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
            for tts, part in table.groupby("tts"):
                shade = shades.get(tts, INK)
                ends = part[["ci_low", "ci_high"]].replace(np.inf, top)
                spread = np.abs(ends.sub(part.relative_change, axis=0).to_numpy(dtype=float).T)
                ax.errorbar(part[column], part.relative_change, yerr=np.where(np.isfinite(spread), spread, 0), fmt="o",
                            color=shade, markersize=5, linewidth=1, alpha=0.75, label=tts)  # fmt: skip
                open_ended = part[part.ci_high == np.inf]
                ax.plot(open_ended[column], [top] * len(open_ended), "^", color=shade, markersize=6)
                named = (
                    part
                    if len(part) <= NAMED
                    else part.loc[[part.relative_change.idxmin(), part.relative_change.idxmax()]]
                )
                for row in named.itertuples():  # of many, all names would cover each other
                    ax.annotate(row.target, (getattr(row, column), row.relative_change), xytext=(5, 3),
                                textcoords="offset points", fontsize=7, color=shade)  # fmt: skip
            said = _ranks(table, column) if table.target.nunique() >= DOMAINS else ""
            ax.set_title(f"rank correlation of {domains}\n{said}" if said else "", fontsize=9)
            ax.set_xlabel(label)
            ax.margins(x=0.25)
        axes.flat[0].set_ylabel("relative change in WER (%)")
        figure.legend(
            *axes.flat[0].get_legend_handles_labels(),
            loc="outside upper right",
            ncols=len(engines),
            frameon=False,
            fontsize=8,
        )
        note = "adapted at its chosen λ against syn_target, with its bootstrap interval"
        note += (
            f"\np of a rank correlation: by itself, of {PERMUTATIONS:,} permutations"
            if any(ax.get_title(loc="left") for ax in axes.flat)
            else ""
        )
        note += "\n▲ the interval has no upper end" if (table.ci_high == np.inf).any() else ""
        note_below(figure, protocol_of(table) + note)
        plt.close(figure)
    return figure


def _ranks(table: pd.DataFrame, column: str) -> str:
    """Spearman's rho of a measure and the change, with its p: a line per TTS."""
    said = []
    for tts, part in table.groupby("tts"):
        rho, p = (f(part[column], part.relative_change) for f in (rank_correlation, rank_p))
        if not np.isnan(rho):
            verdict = " (not significant)" if p >= LEVEL else ""
            said.append(f"{tts} {rho:+.2f}, p {p_text(p)}{verdict}".replace("-", MINUS))
    return "\n".join(said)


def signed_count(value: int) -> str:
    """A count with its sign; zero has none."""
    return f"{value:+d}".replace("-", MINUS) if value else "0"


def _columns(ax: Axes, part: pd.DataFrame) -> None:
    """Numbers beside the bars, one column each, with a heading."""
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(len(part) - 0.4, -0.6))
    places = {
        "WER": 0.06,
        "CER": 0.19,
        "raw": 0.32,
        "raw reference\n(floor)": 0.52,
        "loops": 0.74,
        "hallucinations": 0.91,
    }
    for head, place in places.items():
        ax.annotate(head, (place, 1), xycoords="axes fraction", ha="center", va="bottom", fontsize=7.5, color="#555555")
    for height, row in enumerate(part.itertuples()):
        known = not np.isnan(row.wer_raw)
        released = f"{row.wer_raw_reference:.1f} ({row.floor:.1f})" if known else "–"
        numbers = (row.wer, row.cer, row.wer_raw, released, row.loops, row.hallucinations)
        for place, value in zip(places.values(), numbers, strict=True):
            cell = value if isinstance(value, str) else "–" if np.isnan(value) else f"{value:.1f}"
            ax.text(place, height, cell, ha="center", va="center", fontsize=8)


def _forest(ax: Axes, part: pd.DataFrame, labelled: bool) -> None:
    """Dot and whisker per value, filled where it is significant, with its numbers to the right."""
    ax.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    for height, (_, row) in enumerate(part.iterrows()):
        if pd.isna(row.difference):
            continue
        colour = COLOURS["adapted"] if row.difference < 0 else COLOURS["syn_target"] if row.difference > 0 else GREY
        ax.plot([row.difference_low, row.difference_high], [height, height], color=colour, linewidth=2.2, alpha=0.5,
                solid_capstyle="butt")  # fmt: skip
        face = colour if row.p_holm < LEVEL else "white"
        ax.plot(row.difference, height, "o", color=colour, markerfacecolor=face, markersize=6)
        text = f"{signed(row.difference)} ({row.n_words:.0f})"
        ax.annotate(text, (1, height), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
                    va="center", fontsize=8, color=colour, annotation_clip=False)  # fmt: skip
    ax.set(yticks=range(len(part)), ylim=(len(part) - 0.4, -0.6))
    ax.set_yticklabels(part.index if labelled else [])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _extremes(part: pd.DataFrame, shown: int) -> pd.DataFrame:
    """The biggest net gains, then the biggest net losses, ties by how often the word is said and by the alphabet."""
    gains = part[part.net > 0].sort_values(["net", "n", "word"], ascending=[False, False, True]).head(shown)
    losses = part[part.net < 0].sort_values(["net", "n", "word"], ascending=[True, False, True]).head(shown)
    return pd.concat([gains, losses])
