"""The idea in three drawings: the quadrants of the domain shift, the pipeline, and the geometry of a run's weights."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from syn2real_utils.errors import UserError, names
from syn2real_utils.figures import COLOURS, INK, grid, style

TAU = "#5B3A9B"  # the colour of the task vector
PALE = "#F6F6F4"
# Where names stand beside their points, in points of type; pretrained and syn_target can lie close together.
LABELS = {"syn_source": (0, -12), "real_source": (0, -12), "syn_target": (-36, -4), "pretrained": (0, 9)}


def quadrants() -> Figure:
    """Source and target domain, synthetic and real speech: three corners can be trained, tau leads to the fourth."""
    with style():
        figure, ax = _canvas(6.6, 4.1, (0, 10), (0, 6.6))
        corners = {
            "syn_source": ((1.7, 3.6), "syn_source", "TTS of source texts"),
            "real_source": ((6.2, 3.6), "real_source", "recorded source speech"),
            "syn_target": ((1.7, 0.6), "syn_target", "TTS of target texts"),
            "adapted": ((6.2, 0.6), "adapted", "no target speech needed"),
        }
        for model, ((x, y), name, note) in corners.items():
            _box(ax, (x, y), (3.2, 1.7), name, note, COLOURS[model], dashed=model == "adapted")
        _arrow(ax, (4.95, 4.45), (6.15, 4.45), TAU, "τ")
        _arrow(ax, (4.95, 1.45), (6.15, 1.45), TAU, "λ τ", dashed=True)
        for x, text in ((3.3, "synthetic speech"), (7.8, "real speech")):
            ax.text(x, 6.0, text, ha="center", weight="bold")
        for y, text in ((4.45, "source\ndomain"), (1.45, "target\ndomain")):
            ax.text(0.8, y, text, ha="center", va="center", weight="bold")
        caption = (
            "τ = real_source − syn_source is measured where both kinds of speech exist and added where one is missing."
        )
        ax.text(0.1, 0.0, caption, fontsize=8, color="#555555")
        plt.close(figure)
    return figure


def overview() -> Figure:
    """The pipeline from speech and texts to the adapted model."""
    with style():
        figure, ax = _canvas(8.4, 3.9, (0, 14), (0, 6.5))
        boxes = {
            "real": ((0.1, 4.9), "source: real speech", "recordings and their texts", INK),
            "source": ((0.1, 2.7), "source: TTS speech", "the same texts, spoken by TTS", INK),
            "target": ((0.1, 0.5), "target: TTS speech", "texts only, spoken by TTS", INK),
            "real_source": ((5.0, 4.9), "real_source", "fine-tuned", COLOURS["real_source"]),
            "syn_source": ((5.0, 2.7), "syn_source", "fine-tuned", COLOURS["syn_source"]),
            "syn_target": ((5.0, 0.5), "syn_target", "fine-tuned", COLOURS["syn_target"]),
            "tau": ((9.9, 3.8), "task vector τ", "real_source − syn_source", TAU),
            "adapted": ((9.9, 0.5), "adapted", "syn_target + λ τ", COLOURS["adapted"]),
        }
        for place, name, note, colour in boxes.values():
            _box(ax, place, (3.9, 1.35), name, note, colour)
        for y in (5.57, 3.37, 1.17):
            _arrow(ax, (4.05, y), (4.95, y), INK)
        _arrow(ax, (8.95, 5.57), (9.85, 4.75), COLOURS["real_source"])
        _arrow(ax, (8.95, 3.37), (9.85, 4.2), COLOURS["syn_source"])
        _arrow(ax, (8.95, 1.17), (9.85, 1.17), COLOURS["syn_target"])
        _arrow(ax, (11.85, 3.75), (11.85, 1.9), TAU, "× λ")
        caption = "Every model starts from the same pretrained backbone. λ is chosen on source domains; WER is counted on real target speech."
        ax.text(0.1, -0.15, caption, fontsize=8, color="#555555")
        plt.close(figure)
    return figure


def geometry(points: pd.DataFrame, lam: pd.DataFrame | None = None) -> Figure:
    """A run's models in the plane of syn_source, real_source and syn_target: the paper's drawing with real weights.

    Args:
        points: tables/geometry.csv.
        lam: tables/lam.csv, to mark the chosen lam; None marks none.
    """
    if points.empty:
        raise UserError("the geometry has no points: expected tables/geometry.csv of a run")
    cells = list(points.groupby(["target", "tts"], sort=True))
    rows, columns = grid(len(cells), points.tts.nunique())
    with style():
        figure, axes = plt.subplots(rows, columns, figsize=(4.1 * columns, 3.4 * rows + 0.2), squeeze=False)
        for ax in axes.flat[len(cells) :]:
            ax.set_axis_off()
        for ax, ((target, tts), cell) in zip(axes.flat, cells, strict=False):
            _plane(ax, cell, _chosen(lam, str(target), str(tts), cell.seed.iloc[0]))
            ax.set_title(f"{target}, {tts}")
        note = f"Seed {names(sorted(points.seed.unique()))}. Distances are norms of weights, to scale. pretrained lies above the plane by the number in brackets."
        figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color="#555555")
        plt.close(figure)
    return figure


def _plane(ax: Axes, cell: pd.DataFrame, chosen: float | None) -> None:
    models = cell[cell.model != "adapted"].set_index("model")
    path = cell[cell.model == "adapted"].sort_values("lam")
    at: Mapping[str, np.ndarray] = {name: np.array([row.x, row.y]) for name, row in models.iterrows()}
    _arrow(ax, at["syn_source"], at["real_source"], TAU, shrink=4)
    end = path.iloc[-1]
    _arrow(ax, at["syn_target"], (end.x, end.y), TAU, shrink=2, dashed=True)
    middle = (at["syn_source"] + at["real_source"]) / 2
    _label(ax, middle, f"τ, norm {np.linalg.norm(at['real_source'] - at['syn_source']):.2f}", TAU, (0, -11))
    ax.plot(path.x, path.y, "|", color=TAU, markersize=5)
    for name, point in at.items():
        ax.plot(*point, "o", color=COLOURS[name], markersize=7, zorder=4)
        text = f"pretrained (+{models.distance[name]:.2f})" if name == "pretrained" else name
        below = name == "pretrained" and point[1] < at["syn_target"][1]
        _label(ax, point, text, COLOURS[name], (0, -12) if below else LABELS[name])
    if chosen is not None:
        x = at["syn_target"][0] + chosen * (at["real_source"][0] - at["syn_source"][0])
        ax.plot(x, end.y, "o", color=COLOURS["adapted"], markersize=7 if chosen else 3.5, zorder=5)
        _label(ax, (x, end.y), f"adapted, λ {chosen:g}", COLOURS["adapted"], (0, 9))
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.22)
    ax.set(xlabel="along τ", ylabel="towards syn_target, at a right angle to τ")


def _chosen(lam: pd.DataFrame | None, target: str, tts: str, seed: object) -> float | None:
    if lam is None:
        return None
    rows = lam[
        (lam.target == target) & (lam.tts == tts) & (lam.model == "adapted") & (lam.seed.astype(str) == str(seed))
    ]
    return float(rows.lam_chosen.iloc[0]) if len(rows) else None


def _canvas(width: float, height: float, xlim: tuple[float, float], ylim: tuple[float, float]) -> tuple[Figure, Axes]:
    figure, ax = plt.subplots(figsize=(width, height))
    ax.set(xlim=xlim, ylim=(ylim[0] - 0.3, ylim[1]))
    ax.set_axis_off()
    return figure, ax


def _box(
    ax: Axes,
    place: tuple[float, float],
    size: tuple[float, float],
    name: str,
    note: str,
    colour: str,
    dashed: bool = False,
) -> None:
    line = (0, (4, 2.5)) if dashed else "solid"
    box = FancyBboxPatch(
        place, *size, "round,pad=0,rounding_size=0.18", facecolor=PALE, edgecolor=colour, linewidth=1.6, linestyle=line
    )
    ax.add_patch(box)
    x, y = place[0] + size[0] / 2, place[1] + size[1] / 2
    ax.text(x, y + 0.08, name, ha="center", va="bottom", color=colour, weight="bold")
    ax.text(x, y - 0.08, note, ha="center", va="top", color="#555555", fontsize=8)


def _arrow(
    ax: Axes,
    start: tuple[float, float] | np.ndarray,
    end: tuple[float, float] | np.ndarray,
    colour: str,
    label: str = "",
    dashed: bool = False,
    shrink: float = 0,
) -> None:
    line = (0, (4, 2.5)) if dashed else "solid"
    how: dict[str, Any] = {
        "arrowstyle": "-|>",
        "mutation_scale": 13,
        "color": colour,
        "linewidth": 1.6,
        "linestyle": line,
    }
    ax.add_patch(FancyArrowPatch(tuple(start), tuple(end), shrinkA=shrink, shrinkB=shrink, **how))
    if label:
        upright = start[0] == end[0]
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        _label(ax, middle, label, colour, (14, 0) if upright else (0, 8), size=10)


def _label(
    ax: Axes,
    point: tuple[float, float] | np.ndarray,
    text: str,
    colour: str,
    offset: tuple[float, float],
    size: float = 8,
) -> None:
    ax.annotate(
        text, tuple(point), xytext=offset, textcoords="offset points", ha="center", va="center",
        color=colour, fontsize=size, zorder=6,
    )  # fmt: skip
