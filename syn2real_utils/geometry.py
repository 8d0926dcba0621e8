"""Angles and planes between directions in weight space, streamed: a chunk of every direction in memory at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from syn2real_utils.parameters import check_same, module_of

CHUNK = 1 << 20  # values of every direction that are in memory, in float64


@dataclass(frozen=True)
class Difference:
    """What one model is less another, by parameter; `checkpoints.difference` makes it of two folders."""

    shapes: Mapping[str, list[int]]
    # name, first and last element -> that part of it, flat, in pieces; the next piece may overwrite the one before
    pieces: Callable[[str, int, int], Iterator[Tensor]]

    def write(self, name: str, start: int, into: Tensor) -> None:
        """Write the elements of a parameter from `start` on into a tensor of one dimension."""
        at = 0
        for piece in self.pieces(name, start, start + len(into)):
            into[at : at + len(piece)] = piece
            at += len(piece)


def gram(directions: Sequence[Difference], group: Callable[[str], str] = module_of) -> dict[str, np.ndarray]:
    """Inner products of directions, of "all" parameters and of each module.

    Args:
        directions: n differences of models of one architecture.
        group: name of a parameter -> its module, or a finer part.

    Returns:
        Module -> float64 (n, n); its diagonal holds the squared norms.

    Raises:
        MismatchError: states that do not belong together.
    """
    for other in directions[1:]:
        check_same(directions[0].shapes, other.shapes, "one model", "another")
    products = {"all": np.zeros((len(directions), len(directions)))}
    for name, shape in sorted(directions[0].shapes.items()):
        block = _products(directions, name, torch.Size(shape).numel())
        for module in ("all", group(name)):
            products[module] = products.get(module, 0) + block
    return products


def cosines(products: np.ndarray) -> np.ndarray:
    """Cosines from inner products, (n, n); nan where a norm is 0."""
    norms = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(products / np.outer(norms, norms), -1.0, 1.0)


def plane(directions: Mapping[str, Difference]) -> dict[str, tuple[float, float, float]]:
    """Where models lie in the plane through syn_source, real_source and syn_target.

    The origin is syn_source, x runs along tau = real_source - syn_source, y at a right angle to it towards syn_target. So
    syn_target + lam * tau lies in the plane, lam * |tau| to the right of syn_target.

    Args:
        directions: from syn_source to each other model, by its name, with `real_source` and `syn_target` among them.

    Returns:
        Name -> (x, y, distance from the plane), all in the norm of the weights.
    """
    names, products = list(directions), gram(list(directions.values()))["all"]
    tau, target = names.index("real_source"), names.index("syn_target")
    length = np.sqrt(products[tau, tau])
    x = products[tau] / length
    height = np.sqrt(max(products[target, target] - x[target] ** 2, 0.0))
    y = (products[target] - x[target] * x) / height
    away = np.sqrt(np.clip(np.diag(products) - x**2 - y**2, 0.0, None))
    points = {name: (float(x[i]), float(y[i]), float(away[i])) for i, name in enumerate(names)}
    return {"syn_source": (0.0, 0.0, 0.0), **points}


def _products(directions: Sequence[Difference], name: str, size: int) -> np.ndarray:
    total = torch.zeros(len(directions), len(directions), dtype=torch.float64)
    whole = torch.empty(len(directions), min(CHUNK, size), dtype=torch.float64)
    for start in range(0, size, CHUNK):
        chunk = whole[:, : size - start]
        for one, row in zip(directions, chunk, strict=True):
            one.write(name, start, row)
        total += chunk @ chunk.T
    return total.numpy()
