"""Ensembles of task vectors from model folders: the rules of ensembles.py, streamed, so that many vectors fit in memory."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from syn2real_utils import checkpoints, ensembles, parameters
from syn2real_utils.progress import say
from syn2real_utils.tensorfiles import PIECE, Pieces
from syn2real_utils.vectors import TaskVector

RULES = ("norm-weighted", "similarity-weighted", "ties", "dare")
CHUNK = 4 * PIECE  # elements of every vector that are in memory at once
Pair = tuple[Path, Path]  # real, synthetic


def merged(rule: str, pairs: Sequence[Pair], density: float = 1.0, seed: int = 0) -> TaskVector:
    """One vector of the vectors real - synthetic of several pairs of model folders.

    Beside the result, one vector at most is in memory as a whole (TIES), whatever their number.

    Args:
        rule: one of `RULES`.
        pairs: folders of models of one architecture.
        density: the share of elements that TIES or DARE keeps.
        seed: of what DARE drops.

    Raises:
        MismatchError: models that do not belong together.
    """
    say(f"{rule} of {len(pairs)} vectors")
    states = [[checkpoints.load_state(folder) for folder in pair] for pair in pairs]
    first = states[0][0]
    for pair, folders in zip(states, pairs, strict=True):
        for state, folder in zip(pair, folders, strict=True):
            parameters.check_alike(first, state, "the first model", str(folder))
    shapes = parameters.shapes(first)
    taus = [checkpoints.between(pair, loaded) for pair, loaded in zip(pairs, states, strict=True)]
    combine = _rule(rule, taus, shapes, density, seed)
    tensors = {}
    for name, shape in shapes.items():
        flat = torch.empty(torch.Size(shape).numel())
        for start, stop in _chunks(len(flat)):
            flat[start:stop] = combine(_stack(taus, name, start, stop), name, start)
        tensors[name] = flat.view(shape)
    return TaskVector(tensors)


def _rule(
    rule: str, taus: Sequence[Pieces], shapes: dict[str, list[int]], density: float, seed: int
) -> Callable[[Tensor, str, int], Tensor]:
    """What makes elements of the result of those of all vectors, after it has seen the whole vectors."""
    if rule == "dare":
        return lambda part, name, start: ensembles.dare(part, density, ensembles.dice(seed, name, start))
    if rule == "ties":
        thresholds = torch.tensor([ensembles.threshold(_magnitudes(tau, shapes), density) for tau in taus])
        return lambda part, name, start: ensembles.ties(part, thresholds)
    weigh = {"norm-weighted": ensembles.norm_weights, "similarity-weighted": ensembles.similarity_weights}[rule]
    weights = weigh(_products(taus, shapes))
    say(f"  weights {', '.join(f'{weight:.3f}' for weight in weights.tolist())}")
    return lambda part, name, start: ensembles.weighted(part, weights)


def _products(taus: Sequence[Pieces], shapes: dict[str, list[int]]) -> Tensor:
    """Inner products of the vectors in float64, (n, n)."""
    total = torch.zeros(len(taus), len(taus), dtype=torch.float64)
    for name, shape in shapes.items():
        for start, stop in _chunks(torch.Size(shape).numel()):
            part = _stack(taus, name, start, stop).double()
            total += part @ part.T
    return total


def _magnitudes(tau: Pieces, shapes: dict[str, list[int]]) -> Tensor:
    """|tau| of a whole vector, flat."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    flat, place = torch.empty(sum(sizes)), 0
    for name, size in zip(shapes, sizes, strict=True):
        for start, stop in _chunks(size):
            torch.abs(_stack([tau], name, start, stop)[0], out=flat[place + start : place + stop])
        place += size
    return flat


def _stack(taus: Sequence[Pieces], name: str, start: int, stop: int) -> Tensor:
    """Elements `start` to `stop` of a parameter of every vector, (n, elements) in float32."""
    rows = torch.empty(len(taus), stop - start)
    for row, tau in zip(rows, taus, strict=True):
        place = 0
        for piece in tau(name, start, stop):  # in memory that the next piece is put into
            row[place : place + len(piece)] = piece
            place += len(piece)
    return rows


def _chunks(size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, CHUNK):
        yield start, min(start + CHUNK, size)
