"""Angles and planes between directions in weight space, streamed: one parameter of every direction in memory at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from syn2real_utils import vectors
from syn2real_utils.parameters import MismatchError, State, module_of

Direction = tuple[State, State]  # (from, to): the difference to - from
CHUNK = 1 << 20  # values of every direction that are widened to float64 at once


def gram(directions: Sequence[Direction], group: Callable[[str], str] = module_of) -> dict[str, np.ndarray]:
    """Inner products of directions, of "all" parameters and of each module.

    Args:
        directions: n pairs of states of one architecture.
        group: name of a parameter -> its module, or a finer part.

    Returns:
        Module -> float64 (n, n); its diagonal holds the squared norms.

    Raises:
        MismatchError: states that do not belong together.
    """
    streams = [vectors.difference(base, moved, same_types=False) for base, moved in directions]
    products = {"all": np.zeros((len(directions), len(directions)))}
    for items in zip(*streams, strict=True):
        name = items[0][0]
        if any(other != name for other, _ in items):
            raise MismatchError(f"'{name}' is in one model but not in another: use models of one architecture")
        block = _products([tensor.flatten() for _, tensor in items])
        for module in ("all", group(name)):
            products[module] = products.get(module, 0) + block
    return products


def cosines(products: np.ndarray) -> np.ndarray:
    """Cosines from inner products, (n, n); nan where a norm is 0."""
    norms = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(products / np.outer(norms, norms), -1.0, 1.0)


def plane(states: Mapping[str, State]) -> dict[str, tuple[float, float, float]]:
    """Where models lie in the plane through syn_source, real_source and syn_target.

    The origin is syn_source, x runs along tau = real_source - syn_source, y at a right angle to it towards syn_target. So
    syn_target + lam * tau lies in the plane, lam * |tau| to the right of syn_target.

    Args:
        states: by name, with `syn_source`, `real_source` and `syn_target` among them.

    Returns:
        Name -> (x, y, distance from the plane), all in the norm of the weights.
    """
    names = [name for name in states if name != "syn_source"]
    products = gram([(states["syn_source"], states[name]) for name in names])["all"]
    tau, target = names.index("real_source"), names.index("syn_target")
    length = np.sqrt(products[tau, tau])
    x = products[tau] / length
    height = np.sqrt(max(products[target, target] - x[target] ** 2, 0.0))
    y = (products[target] - x[target] * x) / height
    away = np.sqrt(np.clip(np.diag(products) - x**2 - y**2, 0.0, None))
    points = {name: (float(x[i]), float(y[i]), float(away[i])) for i, name in enumerate(names)}
    return {"syn_source": (0.0, 0.0, 0.0), **points}


def _products(rows: Sequence[Tensor]) -> np.ndarray:
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for chunk in _chunks(rows):
        total += chunk @ chunk.T
    return total.numpy()


def _chunks(rows: Sequence[Tensor]) -> Iterator[Tensor]:
    for start in range(0, rows[0].numel(), CHUNK):
        yield torch.stack([row[start : start + CHUNK].double() for row in rows])
