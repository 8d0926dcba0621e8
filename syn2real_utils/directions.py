"""Directions in weight space that are no task vector of a run: weighted sums of models, noise, and parts of a vector.

Null vectors and rivals (rivals.py) and the search for where the signal lies (localisation.py) move a model along them. One
vector is in memory; the models behind it are mapped and read one parameter at a time.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from syn2real_utils import checkpoints, parameters
from syn2real_utils.parameters import State
from syn2real_utils.store import Artifact
from syn2real_utils.vectors import TaskVector

LAYER = re.compile(r"^(.*(?:encoder|decoder))\.layers\.(\d+)\.")
KINDS = {  # of parameter, by what its name holds; the first that fits
    "norms": r"norm",
    "attention": r"attn",
    "feed-forward": r"\.fc[12]\.|\.ffn[12]|feed_forward",
    "front-end": r"encoder\.(?:conv[12]|embed_positions)\.|feature_(?:extractor|projection)|conv_module|pos_conv",
    "embeddings": r"embed_tokens|embed_positions|lm_head|proj_out",
}
FRONT_HALF = 0.5  # depth at which the front half of a stack of layers ends


@dataclass(frozen=True)
class Direction:
    """A weighted sum of models, as a vector: the weights sum to 0."""

    parts: tuple[tuple[float, Artifact], ...]
    noise: int | None = None  # seed: a random vector in which every tensor has the norm that it has in the sum
    place: str | None = None  # one of `PLACES`: which of it is kept

    def key(self) -> list[object]:
        """What the direction is made from, JSON-able."""
        return [[[weight, model.fingerprint] for weight, model in self.parts], self.noise, self.place]

    def vector(self) -> TaskVector:
        """The vector in memory."""
        states = [(weight, checkpoints.load_state(model.path)) for weight, model in self.parts]
        items = weighted_sum(states)
        if self.noise is not None:
            items = ((name, _noise(tensor, f"{self.noise}:{name}")) for name, tensor in items)
        tensors = dict(items)
        if self.place is not None:
            depths = depths_of(tensors)
            tensors = {name: PLACES[self.place](name, depths[name]) * tensor for name, tensor in tensors.items()}
        return TaskVector(tensors)

    def norm(self) -> float:
        """Its length, with one parameter in memory at a time; of a whole one, noise or not."""
        states = [(weight, checkpoints.load_state(model.path)) for weight, model in self.parts]
        squares = (
            float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2 for _, tensor in weighted_sum(states)
        )
        return math.sqrt(sum(squares))

    def times(self, factor: float) -> "Direction":
        """The direction, so many times as long."""
        return replace(self, parts=tuple((factor * weight, model) for weight, model in self.parts))

    def at(self, place: str) -> "Direction":
        """The part of the direction that lies in one place."""
        return replace(self, place=place)


def between(real: Artifact, syn: Artifact) -> Direction:
    """theta_real - theta_syn."""
    return Direction(((1.0, real), (-1.0, syn)))


def total(directions: Sequence[Direction]) -> Direction:
    """The sum of directions that are neither noise nor a part."""
    return Direction(tuple(part for direction in directions for part in direction.parts))


@torch.no_grad()
def weighted_sum(states: Sequence[tuple[float, State]]) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, sum of weight * theta) in float32, sorted by name, one parameter in memory at a time."""
    (_, first), *others = states
    for _, other in others:
        parameters.check_alike(first, other, "one model", "another")
    keys = [parameters.keys_of(state) for _, state in states]
    for name in keys[0]:
        one = parameters.parameter(first, keys[0][name])
        summed = torch.zeros_like(one, dtype=torch.promote_types(one.dtype, torch.float32))
        for (weight, state), key in zip(states, keys, strict=True):
            summed.add_(parameters.parameter(state, key[name]), alpha=weight)
        yield name, summed.to(torch.float32)


def kind_of(name: str) -> str:
    """Kind of a parameter: a key of `KINDS`, or "other"."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), "other")


def block_of(name: str) -> str:
    """Module, layer and kind of a parameter: "encoder/3/attention"; what lies in no layer has an empty one."""
    layer = LAYER.match(name)
    return f"{parameters.module_of(name)}/{layer[2] if layer else ''}/{kind_of(name)}"


def depths_of(tensors: State) -> dict[str, float]:
    """How deep each parameter lies in its own stack, the encoder or the decoder: 0 at its input, 1 at its output.

    Layer i of n lies at (i + 1/2) / n. Whisper's token embeddings, which are its output too, lie at 0, and so does all that a CTC
    model does to its features.
    """
    layers = {name: LAYER.match(name) for name in tensors}
    most: dict[str, int] = {}
    for found in layers.values():
        if found:
            most[found[1]] = max(most.get(found[1], 0), int(found[2]) + 1)
    return {
        name: (int(found[2]) + 0.5) / most[found[1]] if found else float(_is_behind(name))
        for name, found in layers.items()
    }


def _is_behind(name: str) -> bool:
    """Whether what lies in no layer lies behind the last one."""
    return "lm_head" in name or (kind_of(name) == "norms" and "feature_" not in name)


def _kept(kind: str) -> Callable[[str, float], float]:
    return lambda name, depth: float(kind_of(name) == kind)


def _module(module: str) -> Callable[[str, float], float]:
    return lambda name, depth: float(parameters.module_of(name) == module)


# Place -> the factor of a parameter by its name and depth. The schedules have the mean 1 over the layers.
PLACES: dict[str, Callable[[str, float], float]] = {
    "encoder": _module("encoder"),
    "decoder": _module("decoder"),
    "attention": _kept("attention"),
    "feed-forward": _kept("feed-forward"),
    "front-end": _kept("front-end"),
    "embeddings": _kept("embeddings"),
    "norms": _kept("norms"),
    "rising": lambda name, depth: 2 * depth,
    "falling": lambda name, depth: 2 * (1 - depth),
    "front": lambda name, depth: float(depth < FRONT_HALF),
    "back": lambda name, depth: float(depth >= FRONT_HALF),
}


def _noise(tensor: Tensor, seed: str) -> Tensor:
    """A Gaussian tensor of the same shape and norm; the same for the same seed on every machine."""
    digest = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    drawn = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(digest % 2**63))
    norm, wanted = (torch.linalg.vector_norm(one, dtype=torch.float64) for one in (drawn, tensor))
    return drawn * (wanted / norm).float() if norm > 0 else torch.zeros_like(tensor)
