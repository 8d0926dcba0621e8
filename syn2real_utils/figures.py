"""Figures: tidy DataFrame in, matplotlib Figure out, one style. No model, no GPU, no network.

A figure is closed for pyplot when it is returned, so that a notebook shows it once, as the value of its cell.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from syn2real_utils.errors import UserError, names
from syn2real_utils.selection import is_chosen
from syn2real_utils.statistics import ALL, MODELS
from syn2real_utils.tables import MINUS, blocks, chosen_on, headline, overall, pairs, percent_change

# One colour per model in every figure, after Okabe and Ito's palette for colour-blind readers.
COLOURS = {
    "pretrained": "#767676",
    "real_source": "#00875F",
    "syn_source": "#B87A00",
    "syn_target": "#CC4C02",
    "adapted": "#0068A8",
    "ensemble": "#9A3D7E",
}
INK = "#222222"
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
}
DPI = 200
LARGE, HUGE = 15, 45  # inches; a figure of many facets is wide or tall enough to be read with fewer dots
REFERENCES = ("syn_target", "real_source", "pretrained")
ANNOTATED = 20  # a heatmap of more vectors than this has no room for numbers
TALL = 12  # targets; of more, two stand side by side


@contextmanager
def style() -> Iterator[None]:
    """The house style, whatever the user's matplotlibrc says."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def protocol_of(table: pd.DataFrame) -> str:
    """What a note begins with: "Protocol strict. ", or nothing where the table names none."""
    return f"Protocol {names(table.protocol.unique())}. " if "protocol" in table and len(table) else ""


def note_below(figure: Figure, note: str) -> None:
    """Write small print below a figure, its lines as wide as the figure."""
    most = int(14 * figure.get_figwidth())  # 14 letters of this size to an inch
    lines = [textwrap.fill(line, most) for line in note.splitlines()]
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color="#555555")


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG whose bytes depend on the drawing alone: no date, no version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    with style():
        size = max(figure.get_size_inches())
        dots = DPI * (1 if size <= LARGE else 0.75 if size <= HUGE else 0.5)
        figure.savefig(temporary, format="png", dpi=dots, metadata={"Software": None})
    temporary.replace(path)
    return path


def lam_curves(wer: pd.DataFrame, lam: pd.DataFrame) -> Figure:
    """WER of `adapted` over lam with its interval, one facet per target and TTS; chosen lam and lowest point are marked.

    Args:
        wer: tables/wer.csv.
        lam: tables/lam.csv.
    """
    return _curves(wer, lam, ["adapted"])


def ensemble_comparison(wer: pd.DataFrame) -> Figure:
    """WER over lam of the mean of one vector per source domain (`ensemble`) and of the pooled vector (`adapted`)."""
    rows = wer[is_chosen(wer.lam_source) & (wer.seed.astype(str) != ALL) & (wer.target != ALL)]
    return _curves(wer, rows.rename(columns={"lam": "lam_chosen"}), ["adapted", "ensemble"])


def wer_intervals(wer: pd.DataFrame, changes: pd.DataFrame) -> Figure:
    """Dot, whisker and number per model, one facet per target and TTS; under a model with a lam, its change against syn_target."""
    models = [m for m in MODELS if m in set(wer.model)]
    note = f"Brackets: bootstrap interval over {blocks(wer)}. Below: chosen λ and relative change in WER against syn_target (dotted)."
    with _facets(wer, (3.55, 0.75 + 0.38 * len(models)), note) as (figure, facets):
        cells = [(ax, headline(wer, *cell), _changes_of(changes, *cell)) for cell, ax in facets]
        limits = _near_limits([row for _, found, _ in cells for row in found.values()])
        for ax, found, at in cells:
            _whiskers(ax, found, at, models, limits)
            ax.set_xlabel("WER on real speech (%)")
    return figure


def cosine_heatmap(cosines: pd.DataFrame, module: str = "all") -> Figure:
    """Cosine between the task vectors of single source domains, in blocks by TTS; the mean over seeds.

    Args:
        cosines: tables/cosines.csv.
        module: `all`, `encoder` or `decoder`.
    """
    rows = cosines[cosines.module == module]
    if rows.empty:
        raise UserError(f"no cosines of module '{module}': use one of {names(cosines.module.unique())}")
    matrix = rows.pivot_table(
        index=["tts_a", "domain_a"], columns=["tts_b", "domain_b"], values="cosine", aggfunc="mean"
    )
    n = len(matrix)
    own = np.eye(n, dtype=bool)
    values = np.where(own, np.nan, matrix.to_numpy())
    low, high = (np.nanmin(values), np.nanmax(values)) if n > 1 else (0.0, 1.0)
    colours = {"cmap": "RdBu_r", "center": 0} if low < 0 else {"cmap": "Blues"}
    low = min(low, 0.0)  # white is 0 in every figure
    written = (
        matrix.map(lambda v: f"{v + 0:.2f}".replace("-0.00", "0.00").replace("-", MINUS)) if n <= ANNOTATED else False
    )
    cell = 0.5 if n <= ANNOTATED else 0.2
    with style():
        height = 1.8 + cell * n
        figure, ax = plt.subplots(figsize=(2.2 + cell * n, height))
        if engine := figure.get_layout_engine():
            engine.set(rect=(0, 0, 1, 1 - 0.3 / height))  # type: ignore[call-arg]  # room for the names of the blocks
        sns.heatmap(
            matrix, mask=own, annot=written, fmt="", annot_kws={"size": 8}, square=True, linewidths=0.8, ax=ax,
            vmin=low, vmax=max(high, low + 0.05), cbar_kws={"label": "cosine", "shrink": 0.6, "pad": 0.03}, **colours,
        )  # fmt: skip
        _frame_blocks(ax, matrix.index)
        seeds = f"; mean over {rows.seed.nunique()} seeds" if rows.seed.nunique() > 1 else ""
        note = f"Outlined: the same domain spoken by another TTS; both have its real_source{seeds}.\nHatched: a vector with itself."
        ax.set_xlabel(note, fontsize=8, loc="left", labelpad=8)
        plt.close(figure)
    return figure


@contextmanager
def _facets(
    wer: pd.DataFrame, size: tuple[float, float], note: str
) -> Iterator[tuple[Figure, list[tuple[tuple[str, str], Axes]]]]:
    """One axes per target and TTS, with its title; what was not run says so and is no facet. A note below."""
    cells = pairs(overall(wer))
    engines = len({tts for _, tts in cells})
    rows, columns = grid(len(cells), engines)
    with style():
        figure, axes = plt.subplots(
            rows, columns, figsize=(size[0] * columns, size[1] * rows + 0.2), squeeze=False, sharex="all"
        )
        for ax in axes.flat[len(cells) :]:
            ax.set_axis_off()
        facets = []
        for cell, ax in zip(cells, axes.flat, strict=False):
            ax.set_title(f"{'all targets' if cell[0] == ALL else cell[0]}, {cell[1]}")
            if headline(wer, *cell):
                facets.append((cell, ax))
            else:
                ax.set_axis_off()
                ax.text(0, 1, "not run", transform=ax.transAxes, va="top", color="#888888")
        yield figure, facets
        _label_outer([ax for _, ax in facets], engines)
        note_below(figure, protocol_of(wer) + note)
        plt.close(figure)


def grid(cells: int, engines: int) -> tuple[int, int]:
    """Rows and columns of a facet for each target and TTS: a target a row, of more than `TALL` targets two."""
    columns = engines * (1 if cells <= TALL * engines else 2)
    return -(-cells // columns), columns


def _label_outer(axes: Sequence[Axes], engines: int) -> None:
    """Labels and ticks of x on the lowest axes of a column, of y on the first of a target."""
    spots = {ax: (_row(ax), _column(ax)) for ax in axes}
    for ax, (row, column) in spots.items():
        lowest = row == max(r for r, c in spots.values() if c == column)
        first = column == min(c for r, c in spots.values() if r == row and c // engines == column // engines)
        ax.tick_params(labelbottom=lowest, labelleft=first)
        ax.xaxis.label.set_visible(lowest)
        ax.yaxis.label.set_visible(first)


def _row(ax: Axes) -> int:
    spec = ax.get_subplotspec()
    return spec.rowspan.start if spec else 0


def _column(ax: Axes) -> int:
    spec = ax.get_subplotspec()
    return spec.colspan.start if spec else 0


def _curves(wer: pd.DataFrame, lam: pd.DataFrame, models: Sequence[str]) -> Figure:
    if not wer.model.isin(models).any():
        raise UserError(f"the table has no rows of {names(models)}: evaluate a lam grid first")
    each = " (of each seed; over all targets each has its own)" if (wer.target == ALL).any() else ""
    note = f"●  λ chosen on {chosen_on(wer)}{each}    ○  the lowest point of the curve    band: bootstrap interval over {blocks(wer)}"
    with _facets(wer, (3.45, 2.6), note) as (figure, facets):
        drawn = []
        for (target, tts), ax in facets:
            rows = overall(wer)
            rows = rows[(rows.target == target) & (rows.tts == tts)]
            curves = {m: rows[(rows.model == m) & rows.lam.notna()].sort_values("lam") for m in models}
            marks = lam[(lam.target == target) & (lam.tts == tts)]
            for model, points in curves.items():
                if len(points):
                    _curve(ax, model, points, marks[marks.model == model], named=len(models) == 1)
            references = {m: row.wer for m, row in headline(wer, target, tts).items() if m in REFERENCES}
            drawn.append((ax, curves, references))
            ax.set(xlabel="scaling factor λ", ylabel="WER on real speech (%)")
        most = wer.lam.max()
        facets[0][1].set(xlim=(0, most), xticks=np.linspace(0, most, 6).round(6))
        for name in dict.fromkeys(target for (target, _), _ in facets):
            _finish_target([item for item, ((target, _), _) in zip(drawn, facets, strict=True) if target == name])
    return figure


def _curve(ax: Axes, model: str, points: pd.DataFrame, marks: pd.DataFrame, named: bool) -> None:
    colour = COLOURS[model]
    ax.fill_between(points.lam, points.ci_low, points.ci_high, color=colour, alpha=0.13, linewidth=0)
    ax.plot(points.lam, points.wer, color=colour, linewidth=1.8, marker="o", markersize=2.5, zorder=4, clip_on=False)
    lowest, chosen = [float(points.lam.iloc[int(np.argmin(points.wer))])], sorted(set(marks.lam_chosen.dropna()))
    for lams, face, label, side, size in ((lowest, "white", "lowest", -1, 9.0), (chosen, colour, "chosen", 1, 5.5)):
        if not lams:  # pooled rows have none; an empty line would be laid out at the figure's corner
            continue
        heights = np.interp(lams, points.lam, points.wer)
        ax.plot(lams, heights, "o", markersize=size, markerfacecolor=face, markeredgecolor=colour, markeredgewidth=1.6,
                zorder=5, clip_on=False)  # fmt: skip
        if named and len(lams) == 1 and not (label == "lowest" and lowest == chosen):
            text = "chosen = lowest" if lowest == chosen else label
            _beside(ax, text, (lams[0], heights[0]), colour, side)


def _beside(ax: Axes, text: str, point: tuple[float, float], colour: str, side: int) -> None:
    left, right = ax.get_xlim()[0], max(1.0, point[0])
    align = "left" if point[0] - left < 0.2 else "right" if right - point[0] < 0.2 else "center"
    ax.annotate(
        text, point, xytext=(0, 8 * side), textcoords="offset points", ha=align, va="bottom" if side > 0 else "top",
        color=colour, fontsize=8, path_effects=[withStroke(linewidth=2.5, foreground="white")], zorder=6, annotation_clip=False,
    )  # fmt: skip


def _finish_target(drawn: list[tuple[Axes, dict[str, pd.DataFrame], dict[str, float]]]) -> None:
    """Set the common limits of a target's curves, then draw reference lines and write names in the right margin."""
    tops = [c.ci_high.fillna(c.wer).max() for _, curves, _ in drawn for c in curves.values() if len(c)]
    bottoms = [c.ci_low.fillna(c.wer).min() for _, curves, _ in drawn for c in curves.values() if len(c)]
    near = [v for _, _, references in drawn for m, v in references.items() if m != "pretrained"]
    low, high = min(bottoms + near), max(tops + near)
    far = [references["pretrained"] for _, _, references in drawn if "pretrained" in references]
    high = max([high, *(v for v in far if v <= high + 0.3 * (high - low))])
    pad = max(0.06 * (high - low), 0.5)
    low, high = low - pad, high + pad
    for ax, curves, references in drawn:
        ax.set_ylim(max(0, low) if low > -pad else low, high)
        ax.set_yticks([tick for tick in ax.get_yticks() if max(0, low) <= tick <= high])  # no rate is below zero
        labels = []
        for model, value in references.items():
            if value <= high:
                ax.axhline(value, color=COLOURS[model], linewidth=1.1, linestyle=(0, (4, 2.5)), zorder=3)
            labels.append((min(value, high), f"{model} {value:.1f}{'' if value <= high else ' ↑'}", COLOURS[model]))
        labels += [(c.wer.iloc[-1], model, COLOURS[model]) for model, c in curves.items() if len(c)]
        _margin_labels(ax, labels)


def _margin_labels(ax: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Write `(height, text, colour)` to the right of the axes, pushed apart until none covers another."""
    low, high = ax.get_ylim()
    room = 0.068 * (high - low)
    labels = sorted(labels)
    heights = np.array([height for height, _, _ in labels])
    for _ in range(200):
        close = np.diff(heights) - room < -1e-9
        if not close.any():
            break
        push = np.where(close, (room - np.diff(heights)) / 2, 0)
        heights[1:] += push
        heights[:-1] -= push
    for height, (_, text, colour) in zip(heights, labels, strict=True):
        _beside_row(ax, height, text, colour)


def _changes_of(changes: pd.DataFrame, target: str, tts: str) -> pd.DataFrame:
    """The change of each model at its chosen lam, by model."""
    rows = overall(changes)
    return rows[(rows.target == target) & (rows.tts == tts) & is_chosen(rows.lam_source)].set_index("model")


def _near_limits(rows: Sequence[pd.Series]) -> tuple[float, float]:
    """Limits of WER that hold all but a `pretrained` that is far off."""
    near = [row for row in rows if row.model != "pretrained"] or rows
    low = min(np.nanmin([row.wer, row.ci_low]) for row in near)
    high = max(np.nanmax([row.wer, row.ci_high]) for row in near)
    far = max(np.nanmax([row.wer, row.ci_high]) for row in rows)
    room = max(high - low, 1.0)
    low = min([low, *(np.nanmin([row.wer, row.ci_low]) for row in rows)])
    return max(0.0, low - 0.08 * room), (far if far < high + 0.6 * room else high) + 0.08 * room


def _whiskers(
    ax: Axes, found: dict[str, pd.Series], changes: pd.DataFrame, models: Sequence[str], limits: tuple[float, float]
) -> None:
    if "syn_target" in found:
        ax.axvline(found["syn_target"].wer, color=COLOURS["syn_target"], linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    for height, model in enumerate(models):
        if model not in found:
            _beside_row(ax, height, "not run", "#888888")
            continue
        row, colour = found[model], COLOURS[model]
        inside = row.wer <= limits[1]
        if pd.notna(row.ci_low) and inside:
            ax.plot(
                [row.ci_low, row.ci_high],
                [height, height],
                color=colour,
                linewidth=2.2,
                solid_capstyle="butt",
                alpha=0.5,
            )
        ax.plot(
            min(row.wer, limits[1]),
            height,
            "o" if inside else ">",
            color=colour,
            markersize=6.5,
            clip_on=False,
            zorder=3,
        )
        interval = f"  [{row.ci_low:.1f}, {row.ci_high:.1f}]" if pd.notna(row.ci_low) else ""
        changed = model in changes.index
        _beside_row(ax, height - 0.17 * changed, f"{row.wer:.1f}{interval}", colour)
        if changed:
            lam = "" if pd.isna(row.lam) else f"λ {row.lam:g}: "
            _beside_row(ax, height + 0.24, lam + percent_change(changes.loc[model]), "#555555", 7.5)
    ax.set(xlim=limits, ylim=(len(models) - 0.45, -0.55), yticks=range(len(models)))
    ax.set_yticklabels(models)
    for label, model in zip(ax.get_yticklabels(), models, strict=False):  # there are none in an inner facet
        label.set_color(COLOURS[model])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _beside_row(ax: Axes, height: float, text: str, colour: str, size: float = 8.5) -> None:
    ax.annotate(text, (1, height), xycoords=("axes fraction", "data"), xytext=(9, 0), textcoords="offset points",
                va="center", color=colour, fontsize=size, annotation_clip=False)  # fmt: skip


def _frame_blocks(ax: Axes, index: pd.MultiIndex) -> None:
    """Name the TTS blocks, part them by lines, outline the same domain of another TTS, hatch the diagonal."""
    n = len(index)
    engines = list(dict.fromkeys(index.get_level_values(0)))
    for i, (tts, domain) in enumerate(index):
        ax.add_patch(Rectangle((i, i), 1, 1, facecolor="#F4F4F4", edgecolor="#CCCCCC", hatch="////", linewidth=0))
        for j, (other_tts, other) in enumerate(index):
            if domain == other and tts != other_tts:
                ax.add_patch(Rectangle((j + 0.12, i + 0.12), 0.76, 0.76, fill=False, edgecolor=INK, linewidth=1.5))
    ax.set_xticks(np.arange(n) + 0.5, index.get_level_values(1), rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(np.arange(n) + 0.5, index.get_level_values(1), rotation=0)
    ax.tick_params(length=0)
    ax.set_ylabel("")
    for engine in engines:
        places = np.flatnonzero(index.get_level_values(0) == engine)
        start, middle = places[0], places.mean() + 0.5
        ax.text(middle, -0.18, engine, ha="center", va="bottom", weight="bold")
        ax.text(n + 0.18, middle, engine, ha="left", va="center", rotation=270, weight="bold")
        if start:
            ax.axhline(start, color="white", linewidth=5)
            ax.axvline(start, color="white", linewidth=5)
