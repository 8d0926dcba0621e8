"""Figures of the evidence that a profile switches on: rivals, parts of the vector, its norms, and the plane of the loss.

As figures.py: tidy DataFrame in, matplotlib Figure out, no model, no GPU, no network.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from syn2real_utils.errors import UserError, names
from syn2real_utils.evidencetables import schedules
from syn2real_utils.figures import COLOURS, INK, grid, note_below, protocol_of, style
from syn2real_utils.statistics import ALL
from syn2real_utils.tables import p_text, signed

NULL, RIVAL, TAU = "#999999", "#B87A00", "#5B3A9B"
CONTEST_NOTE = (
    "Relative change in WER against syn_target with its bootstrap interval, at the λ that was chosen; "
    "hollow: that of adapted was taken. Right: WER, and p after Holm (in bold below 0.05). ★ the lowest WER of all."
)
WALL = 4  # times the lowest loss: what is higher has one colour, so that the valley has the others
PLANE_NOTE = (
    "Cross entropy in nats per token on the real speech of the target's first fold: an analysis that looks at the target's labels.\n"
    "Hollow: a model outside the plane, at the foot of its perpendicular; in brackets how far away it lies, in the norm of the weights.\n"
    f"Above {WALL} times its lowest value the loss has one colour; each picture has its own colours. White: where it was measured, joined linearly."
)
INSIDE = ("front-end", "embeddings")  # what lies before the first layer; the last norm lies behind the last
IN, OUT = -1.0, np.inf
STAGES = {"encoder": 1, "decoder": 2, "lm_head": 2}  # any other module lies before the encoder
KINDS = ("attention", "feed-forward", "norms", "front-end", "embeddings")


def contest(changes: pd.DataFrame) -> Figure:
    """Change of every model against syn_target, one facet per target and TTS, those of all targets first.

    Args:
        changes: as `versus.compare` makes it.
    """
    rows = changes[changes.baseline == "syn_target"]
    cells = sorted(rows.groupby(["target", "tts"], sort=False), key=lambda cell: cell[0][0] != ALL)
    if not cells:
        raise UserError("no models to compare: switch some on in the profile's evaluation section")
    models = list(dict.fromkeys(rows.model))
    lines, columns = grid(len(cells), rows.tts.nunique())
    with style():
        size = (4.6 * columns, (0.8 + 0.3 * len(models)) * lines + 0.3)
        figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, sharey="all")
        spread = rows[["relative_change", "ci_low", "ci_high"]].replace([np.inf, -np.inf], np.nan)
        limits = max(-100.0, spread.min().min()), min(150.0, spread.max().max())
        pad = 0.06 * (limits[1] - limits[0] or 1)
        for ax in axes.flat[len(cells) :]:
            ax.set_axis_off()
        for ((target, tts), part), ax in zip(cells, axes.flat, strict=False):
            ax.set_title(f"{'all targets' if target == ALL else target}, {tts}")
            ax.set(xlim=(limits[0] - pad, limits[1] + pad), ylim=(len(models) - 0.5, -0.6), xlabel="change in WER (%)")
            ax.axvline(0, color=COLOURS["syn_target"], linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
            for _, row in part.iterrows():
                _change(ax, models.index(row.model), row)
            ax.set_yticks(range(len(models)), models)
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
        note_below(figure, f"{protocol_of(rows)}{CONTEST_NOTE}\n{_family(rows)}\n{schedules(models)}")
        plt.close(figure)
    return figure


def _family(rows: pd.DataFrame) -> str:
    """What Holm counts, and what it leaves of the smallest p: of many comparisons no single one can be significant."""
    single, pooled = rows[rows.target != ALL], rows[rows.target == ALL]
    count, smallest = single.p.count(), single.p.min()
    said = f"Holm over {count} comparisons of single targets"
    if count:
        said += f", in which the smallest p, {p_text(smallest)}, becomes {p_text(min(1.0, count * smallest))}"
    return f"{said}; of all targets over {pooled.p.count()}." if len(pooled) else f"{said}."


def norms(table: pd.DataFrame) -> Figure:
    """Length of tau by depth and kind of parameter, relative to the weights, and its cosine with syn_target - pretrained.

    in, out: what lies before the first layer (front-end, embeddings) and behind the last (a norm, the head of a CTC model).

    Args:
        table: tables/norms.csv.
    """
    if table.layer.isna().all():
        raise UserError("tables/norms.csv has no layers: expected a model with encoder and decoder layers")
    rows = table[table.module != "all"]
    first = (rows.kind.isin(INSIDE) & (rows.module != "lm_head")) | ~rows.module.isin(STAGES)
    outside = pd.Series(np.where(first, IN, OUT), index=rows.index)
    # From models layers come as integers, which know no infinity.
    rows = rows.assign(layer=rows.layer.astype(float).fillna(outside))
    cells = list(rows.groupby(["target", "tts"], sort=False))
    measures: tuple[tuple[str, str], ...] = (
        ("share", "|τ| / |weights|"),
        ("cosine_target", "cosine with\nsyn_target − pretrained"),
    )
    if rows.cosine_other_tts.notna().any():
        measures += (("cosine_other_tts", "cosine with τ\nof the other TTS"),)
    rows = rows.assign(share=rows.norm / rows.norm_pretrained)
    colours = dict(zip(KINDS, (COLOURS["adapted"], COLOURS["real_source"], "#767676", TAU, RIVAL), strict=True))
    with style():
        size = (3.4 * len(measures), 2.1 * len(cells) + 0.5)
        figure, axes = plt.subplots(len(cells), len(measures), figsize=size, squeeze=False, sharey="col", sharex="all")
        for ((target, tts), _), line in zip(cells, axes, strict=True):
            part = rows[(rows.target == target) & (rows.tts == tts)]
            order = _depth(part)
            for (column, label), ax in zip(measures, line, strict=True):
                for kind, curve in part.groupby("kind"):
                    for i, (module, own) in enumerate(curve.sort_values("layer").groupby("module", sort=False)):
                        at = [order[module, layer] for layer in own.layer]
                        ax.plot(at, own[column], marker="o", markersize=3, color=colours.get(str(kind), INK),
                                label=None if i else str(kind))  # fmt: skip
                ax.set_ylabel(label)
                if column != "share":
                    ax.axhline(0, color="#888888", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
                ax.set_xticks(list(order.values()), [_place(*pair) for pair in order], rotation=90)
            line[0].set_title(f"{target}, {tts}")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=8, frameon=False)
        head = ", and the head" if (rows.module == "lm_head").any() else ""
        note = f"in: front end and embeddings; out: the last norm{head}. Seed {names(sorted(rows.seed.unique()))}."
        note_below(figure, note)
        plt.close(figure)
    return figure


def loss_plane(table: pd.DataFrame) -> Figure:
    """Contours of the target's loss over pretrained + x (syn_target - pretrained) + y tau, with the models as points.

    Args:
        table: tables/loss_plane.csv.
    """
    cells = list(table.groupby(["target", "tts"], sort=False))
    if not cells:
        raise UserError("tables/loss_plane.csv is empty: set evaluation.loss_plane to the points of a side, such as 9")
    columns = table.tts.nunique()
    with style():
        lines = -(-len(cells) // columns)
        figure, axes = plt.subplots(lines, columns, figsize=(4.5 * columns, 3.9 * lines + 0.5), squeeze=False)
        for ax in axes.flat[len(cells) :]:
            ax.set_axis_off()
        for ((target, tts), part), ax in zip(cells, axes.flat, strict=False):
            _contours(ax, part)
            ax.set_title(f"{target}, {tts}: loss on real speech")
        figure.supxlabel(PLANE_NOTE, x=0.01, ha="left", fontsize=8, color="#555555")
        plt.close(figure)
    return figure


def _change(ax: Axes, height: int, row: pd.Series) -> None:
    name = str(row.model)
    colour = COLOURS.get(name, NULL if name.startswith("null") else TAU if "tau" in name else RIVAL)
    low, high = ax.get_xlim()
    if pd.notna(row.ci_low):
        ends = np.clip([row.ci_low, row.ci_high], low, high)
        ax.plot(ends, [height, height], color=colour, linewidth=2.2, alpha=0.5, solid_capstyle="butt")
    hollow = row.lam_choice == "adapted"
    ax.plot(np.clip(row.relative_change, low, high), height, "o", color=colour, markersize=6, zorder=3,
            markerfacecolor="white" if hollow else colour)  # fmt: skip
    p = "" if pd.isna(row.p_holm) else f"p {p_text(row.p_holm)}"
    text = f"{row.wer:.1f} ({signed(row.relative_change)} %)  {p}{'  ★' if row.best else ''}"
    ax.annotate(text, (1, height), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
                va="center", color=colour, fontsize=8, annotation_clip=False,
                weight="bold" if row.p_holm < 0.05 else "normal")  # fmt: skip


def _depth(part: pd.DataFrame) -> dict[tuple[str, float], int]:
    """(module, layer) -> place on the axis: what the encoder begins with, its layers and its end, then the decoder's."""
    pairs = part[["module", "layer"]].drop_duplicates()
    keys = sorted(pairs.itertuples(index=False, name=None), key=lambda pair: (STAGES.get(pair[0], 0), pair[1]))
    return {key: place for place, key in enumerate(keys)}


def _place(module: str, layer: float) -> str:
    name = {IN: "in", OUT: "out"}.get(layer)
    return f"{module[:3]} {name or int(layer)}"


def _contours(ax: Axes, part: pd.DataFrame) -> None:
    models = part[part.model != ""]
    grid = part[part.model == ""].pivot_table(index="y", columns="x", values="loss")
    x, y, loss = grid.columns.to_numpy(), grid.index.to_numpy(), grid.to_numpy()
    if min(loss.shape) > 1:
        top = min(loss.max(), WALL * loss.min())
        levels = np.geomspace(loss.min(), max(top, loss.min() * 1.01), 16)  # closer together near the valley
        filled = ax.contourf(x, y, loss, levels=levels, cmap="viridis_r", alpha=0.85, extend="max")
        ax.contour(x, y, loss, levels=levels, colors="white", linewidths=0.5, alpha=0.6)
        ax.plot(*np.meshgrid(x, y), ".", color="white", markersize=2.5, alpha=0.8)
        bar = ax.figure.colorbar(filled, ax=ax, shrink=0.8, label="nats per token", format="%.2g")
        bar.ax.tick_params(labelsize=7.5)
    start, end = (models[models.model == name] for name in ("syn_target", "adapted"))
    if len(start) and len(end):
        arrow = {"arrowstyle": "->", "color": INK, "linewidth": 1.4}
        ax.annotate("", (end.x.iloc[0], end.y.iloc[0]), (start.x.iloc[0], start.y.iloc[0]), arrowprops=arrow)
    for _, row in models.iterrows():
        inside = row.distance < 1e-6
        colour = COLOURS.get(str(row.model), INK)
        ax.plot(row.x, row.y, "o", color=colour, markersize=7, zorder=4, markerfacecolor=colour if inside else "white",
                markeredgewidth=1.6, clip_on=False)  # fmt: skip
        text = f"{row.model} {row.loss:.2f}" + ("" if inside else f" ({row.distance:.1f})")
        below = row.model == "syn_target"  # pretrained, at the same height, has its name above
        ax.annotate(text, (row.x, row.y), xytext=(0, -14 if below else 7), textcoords="offset points", fontsize=8,
                    ha="center" if row.model == "pretrained" else "right", color=colour, zorder=5,
                    path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip
    ax.locator_params(axis="x", nbins=5)
    ax.set(xlabel="x: from pretrained (0) to syn_target (1)", ylabel="y: along τ, in its lengths")
