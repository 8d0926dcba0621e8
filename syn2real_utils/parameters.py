"""Which tensors of a state dict a task vector moves, and as what.

BatchNorm statistics and integers are no parameters: a variance plus lam * tau could be negative. A tensor that two keys
share (Whisper's `proj_out`) is one parameter. A weight-normed weight g * v / |v| (the position convolution of
Wav2Vec2-Conformer) is one parameter too: adding to g and to v apart would not add to the weight.

What is no parameter stays the base's. So two models that are subtracted must have the same of it, and integers that tell the
models apart (quantised weights) are refused: a vector would lack what they differ in.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from numbers import Real

import torch
from torch import Tensor

State = Mapping[str, Tensor]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
POSITIONS = "position_ids"  # 0, 1, 2, ...: some versions of transformers save it, others do not
COUNTS = ("num_batches_tracked", POSITIONS)  # integers that may differ between models that belong together
TIED = {"proj_out.weight": "model.decoder.embed_tokens.weight"}  # Whisper; some states hold this tensor twice
BODIES = (
    "model",
    "wav2vec2",
    "wav2vec2_conformer",
    "hubert",
    "wavlm",
)  # first part of the keys below which the modules lie
# The end of a key that holds a part of a weight-normed weight. 0 or g: its norm; 1 or v: its direction.
WEIGHT_NORM = re.compile(r"\.(?:parametrizations\.weight\.original|weight_)([01gv])$")


class MismatchError(ValueError):
    """States or vectors that do not belong together: one line with the key and how it differs."""


def owners(state: State) -> dict[str, str]:
    """Key -> name of the parameter that it is, or is a part of; keys of no parameter are absent."""
    names: dict[str, str] = {}
    first: dict[tuple, str] = {}
    for key in sorted(state):
        if state[key].is_floating_point() and not key.endswith(STATISTICS):
            names[key] = first.setdefault(place(state[key]), WEIGHT_NORM.sub(".weight", key))
    return names


def tied(state: State) -> State:
    """The state in its order, in which a tied key that holds its owner's values again shares its tensor."""
    twice = {
        key: state[owner]
        for key, owner in TIED.items()
        if key in state and owner in state and place(state[key]) != place(state[owner])
    }
    return {**state, **{key: owner for key, owner in twice.items() if torch.equal(state[key], owner)}}


def tied_as(state: State, names: Collection[str]) -> State:
    """The state, `tied` where it then has just the parameters `names`: a tied tensor may be two parameters of another model."""
    found = tied(state)
    return found if set(owners(found).values()) == set(names) else state


def keys_of(state: State) -> dict[str, str]:
    """Name of each parameter, sorted -> a key of it."""
    return {name: key for key, name in sorted(owners(state).items(), key=lambda pair: pair[1])}


def parameter(state: State, key: str) -> Tensor:
    """The parameter that `key` belongs to, in float32 (float64 stays): g * v / |v| where it is weight-normed.

    Raises:
        MismatchError: g or v is missing.
    """
    if not composed(key):
        return _wide(state[key])
    pair = [key[:-1] + end for end in ("01" if key[-1] in "01" else "gv")]
    for other in pair:
        if other not in state:
            raise MismatchError(f"'{other}' is missing: a weight-normed weight is '{key}' and it")
    g, v = (_wide(state[other]) for other in pair)
    return v * (g / _norm_like(g, v))


def composed(key: str) -> bool:
    """Whether `key` holds a part of a weight-normed weight, so that no piece of it can be moved alone."""
    return WEIGHT_NORM.search(key) is not None


def part_of(moved: Tensor, key: str, old: Tensor) -> Tensor:
    """What `key`, now `old`, must hold for its parameter to be `moved`; in the type of `old`."""
    match = WEIGHT_NORM.search(key)
    if match and match[1] in "0g":  # v becomes the weight itself, so that g is its norm
        moved = _norm_like(old, moved)
    return moved.to(old.dtype)


def shapes(state: State, dtype: bool = False) -> dict[str, list]:
    """Name -> shape of each parameter, with `dtype` also its type: what `check_same` compares."""
    found = {}
    for name, key in keys_of(state).items():
        tensor = state[key]
        shape = list(parameter(state, key).shape) if composed(key) else list(tensor.shape)
        found[name] = [*shape, _type(tensor)] if dtype else shape
    return found


def check_alike(
    a: State, b: State, one: str, other: str, dtype: bool = False, equal: Callable[[str], bool] | None = None
) -> None:
    """Raise MismatchError unless two models have the same tensors, and of integers the same values.

    Args:
        a: a model.
        b: another.
        one: what `a` is called.
        other: what `b` is called.
        dtype: whether the types of floats must be the same, too.
        equal: whether an integer tensor is the same in both, where the states are better not read; by its key.
    """
    check_same(_all_shapes(a, dtype), _all_shapes(b, dtype), one, other)
    for key, tensor in sorted(a.items()):
        if tensor.is_floating_point() or key.endswith(COUNTS):
            continue
        if not (equal(key) if equal else torch.equal(tensor, b[key])):
            raise MismatchError(f"'{key}' differs between {one} and {other}, and is {_quantised(tensor)}")


def check_takes(model: State, vector: Mapping[str, list[int]]) -> None:
    """Raise MismatchError unless a model has the parameters of a vector, given by its shapes."""
    for name in sorted(vector.keys() & model.keys()):
        if not model[name].is_floating_point():
            raise MismatchError(f"'{name}' of the model is {_quantised(model[name])}")
    check_same(shapes(model), vector, "the model", "the vector")


def check_same(a: Mapping[str, object], b: Mapping[str, object], one: str, other: str) -> None:
    """Raise MismatchError unless both hold the same names and values; it names the first that differs."""
    for name in sorted(a.keys() ^ b.keys()):
        raise MismatchError(f"'{name}' is in {one if name in a else other} but not in {other if name in a else one}")
    for name in sorted(a):
        if a[name] != b[name]:
            raise MismatchError(f"'{name}' is {a[name]} in {one} but {b[name]} in {other}")


def check_writable(model: State, base: State) -> None:
    """Raise MismatchError unless `base` covers the parameters of `model`, in their shapes and in other memory."""
    sizes = {key: list(tensor.shape) for key, tensor in base.items()}
    check_same({key: list(model[key].shape) for key in base if key in model}, sizes, "the model", "the base")
    written = {place(model[key]) for key in base}
    if left := [key for key in owners(model) if place(model[key]) not in written]:  # a tied key may be absent
        raise MismatchError(f"'{left[0]}' is in the model but not in the base")
    if written & {place(tensor) for tensor in base.values()}:
        raise MismatchError("the base shares memory with the model that is to be written: give a snapshot of it")


def finite(scalar: float) -> float:
    """`scalar`, which may be a tensor without dimensions, as a float; TypeError if it is no real number, ValueError if not finite."""
    if isinstance(scalar, Tensor) and not scalar.ndim:
        scalar = scalar.item()
    if not isinstance(scalar, Real) or isinstance(scalar, bool):
        raise TypeError(f"expected a number such as 0.4, found {scalar!r}")
    if not math.isfinite(scalar):
        raise ValueError(f"expected a finite number such as 0.4, found {scalar}")
    return float(scalar)


def module_of(name: str) -> str:
    """Module of a parameter: "model.encoder.conv1.weight" -> "encoder", "lm_head.weight" -> "lm_head"."""
    first, *rest = name.split(".")
    return rest[0] if first in BODIES and len(rest) > 1 else first


def snapshot(state: State) -> dict[str, Tensor]:
    """A copy of a state in which tensors that shared memory still do."""
    copies = {place(tensor): tensor.detach().clone() for tensor in state.values()}
    return {key: copies[place(tensor)] for key, tensor in state.items()}


def place(tensor: Tensor) -> tuple:
    """Where a tensor lies in memory: the same for two keys of one tensor (an empty one has no address)."""
    return tensor.device, tensor.data_ptr() if tensor.numel() else id(tensor), tensor.shape


def stays_finite(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether nothing is nan or inf as `dtype`. The norm mostly says so at once; else each element is looked at."""
    wide = _wide(tensor).reshape(-1)
    norm = torch.dot(wide, wide).sqrt().item()
    return norm <= torch.finfo(dtype).max or bool(torch.isfinite(tensor.to(dtype)).all())


def not_finite(key: str) -> str:
    """What is said where `stays_finite` says no."""
    return f"'{key}' would hold nan or inf: did a training diverge, is lam too large?"


def _all_shapes(state: State, dtype: bool) -> dict[str, list]:
    """`shapes`, and the same of each tensor that is no parameter; of an integer always with its type."""
    found, names = shapes(state, dtype), owners(state)
    for key in state.keys() - names.keys():
        if key.endswith(POSITIONS):
            continue
        tensor = state[key]
        typed = dtype or not tensor.is_floating_point()
        found[key] = [*tensor.shape, _type(tensor)] if typed else list(tensor.shape)
    return found


def _quantised(tensor: Tensor) -> str:
    return f"of {_type(tensor)}, which no vector moves (quantised?): give the float weights"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _norm_like(g: Tensor, v: Tensor) -> Tensor:
    """Norm of v over the dimensions in which g has size 1, in g's shape."""
    return torch.linalg.vector_norm(v, dim=[d for d, size in enumerate(g.shape) if size == 1], keepdim=True)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
