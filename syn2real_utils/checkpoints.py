"""Models and task vectors on disk: the equations of vectors.py on folders, one tensor in memory at a time.

A model is a `save_pretrained` folder, with a lineage.json when we trained it; without one it is taken for a pretrained
backbone, its own parent. A vector is a folder with vector.safetensors: float32, its lineage in the header.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from syn2real_utils import lineage as lineages
from syn2real_utils import parameters, tensorfiles, vectors
from syn2real_utils.errors import UserError, names
from syn2real_utils.lineage import LINEAGE, Lineage, architecture, read_lineage, write_lineage
from syn2real_utils.parameters import MismatchError
from syn2real_utils.tensorfiles import VECTOR
from syn2real_utils.vectors import TaskVector

__all__ = [
    "Lineage",
    "apply",
    "architecture",
    "cosine",
    "info",
    "load_state",
    "load_vector",
    "mean",
    "read_lineage",
    "save_vector",
    "subtract",
    "weights_hash",
    "write_lineage",
]

SETTINGS = (
    ".json",
    ".txt",
    ".model",
    ".jinja",
)  # config, generation_config, tokenizer and preprocessor files, the index
NOT_COPIED = (LINEAGE, "done.json", "trainer_state.json")  # they tell of the base, not of what is made of it
TIED = {"proj_out.weight": "model.decoder.embed_tokens.weight"}  # Whisper; some folders hold this tensor twice


def load_state(folder: Path | str) -> dict[str, Tensor]:
    """Tensors of a model in the order of its files, mapped into memory; a tied key shares its owner's tensor.

    Raises:
        UserError: no model, a pickle, or a file that is missing, damaged or not as the index says.
    """
    state: dict[str, Tensor] = {}
    for file in tensorfiles.weight_files(Path(folder)):
        state |= tensorfiles.read(file)[0]
    for key, owner in TIED.items():
        if key in state and owner in state and torch.equal(state[key], state[owner]):
            state[key] = state[owner]
    return state


def load_vector(path: Path | str) -> tuple[TaskVector, Lineage]:
    """A task vector, mapped into memory, and its lineage. `path`: the folder, or the file in it.

    Raises:
        UserError: it is no task vector, or it is damaged.
    """
    file = Path(path) / VECTOR if Path(path).is_dir() else Path(path)
    if not file.is_file() or file.suffix != ".safetensors":
        raise UserError(
            f"no task vector at {path}: expected a folder with {VECTOR}, as 'syn2real vector subtract' makes it"
        )
    tensors, metadata = tensorfiles.read(file)
    if "lineage" not in metadata or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise UserError(f"{file} is no task vector: expected float32 tensors and a lineage in the header")
    return TaskVector(tensors), Lineage.from_json(metadata["lineage"], file)


def weights_hash(folder: Path | str) -> str:
    """sha256 over key, type, shape and bytes of a model's tensors, tied ones once, in whatever files they lie."""
    state, digest, seen = load_state(folder), sha256(), set()
    for key in sorted(state):
        if (place := parameters.place(state[key])) not in seen:
            seen.add(place)
            digest.update(f"{key} {state[key].dtype} {list(state[key].shape)}\n".encode())
            digest.update(tensorfiles.as_bytes(state[key]))
    return digest.hexdigest()


def save_vector(out: Path | str, vector: TaskVector, lineage: Lineage, overwrite: bool = False) -> None:
    """Write a task vector as the folder `out`."""
    _publish_vector(out, vector.shapes(), iter(vector.tensors.items()), lineage, overwrite)


def subtract(real: Path | str, syn: Path | str, out: Path | str, overwrite: bool = False) -> Lineage:
    """Write tau = theta_real - theta_syn as the folder `out`, and return its lineage.

    Raises:
        UserError: models of another architecture, size, type or parent; `out` exists; what `load_state` raises.
    """
    lineage = lineages.of_vector("subtract", [(real, lineages.origin(real)), (syn, lineages.origin(syn))])
    base, moved = load_state(syn), load_state(real)
    with _matching(f"{real} - {syn}"):
        _publish_vector(out, parameters.shapes(moved), vectors.difference(base, moved), lineage, overwrite)
    return lineage


def mean(paths: Sequence[Path | str], out: Path | str, overwrite: bool = False) -> Lineage:
    """Write the mean of task vectors as the folder `out`, and return its lineage.

    Raises:
        UserError: no vectors, or vectors of another architecture, size or parent; `out` exists.
    """
    loaded = [load_vector(path) for path in paths]
    if not loaded:
        raise UserError("no task vectors to take the mean of: give at least one")
    lineage = lineages.of_vector("mean", [(path, origin) for path, (_, origin) in zip(paths, loaded, strict=True)])
    first = loaded[0][0]
    with _matching(f"mean of {names(paths)}"):
        for other, _ in loaded[1:]:
            parameters.check_same(first.shapes(), other.shapes(), "the first", "another")
        tensors = ((name, _mean_of(name, [vector for vector, _ in loaded])) for name in first.tensors)
        _publish_vector(out, first.shapes(), tensors, lineage, overwrite)
    return lineage


def apply(base: Path | str, vector: Path | str, lam: float | str, out: Path | str, overwrite: bool = False) -> Lineage:
    """Write theta_base + lam * tau as the folder `out`, in the base's files, types and settings; return its lineage.

    Raises:
        UserError: lam is no finite number; a vector of another architecture, size or parent; `out` exists; what
            `load_state` and `load_vector` raise.
    """
    factor, (tau, tau_origin) = _number(lam), load_vector(vector)
    origin, state = lineages.origin(base), load_state(base)
    lineages.check_relatives([(base, origin), (vector, tau_origin)])
    with _matching(f"{base} + lam * {vector}"):
        parameters.check_same(parameters.shapes(state), tau.shapes(), "the model", "the vector")
    if not origin.parent and tau_origin.parent:  # then the base must be the pretrained model itself
        origin = origin.model_copy(update={"parent": weights_hash(base)})
        lineages.check_relatives([(base, origin), (vector, tau_origin)])
    lineage = lineages.of_adapted(origin, tau_origin, factor)
    with tensorfiles.published(Path(out), overwrite) as folder:
        moved = tau.moved(state, factor)
        for file in tensorfiles.weight_files(Path(base)):
            what = f"{base} + {factor:g} * {vector}"
            tensorfiles.write(folder / file.name, tensorfiles.header_of(file), moved, what)
        _copy_settings(Path(base), folder)
        write_lineage(folder, lineage)
        parameters.check_same(_layout(load_state(folder)), _layout(state), "what was written", "the base")
    return lineage


def cosine(a: Path | str, b: Path | str) -> dict[str, float]:
    """Cosine of two task vectors of one backbone, of "all" and of each module."""
    (one, one_origin), (other, other_origin) = load_vector(a), load_vector(b)
    lineages.check_relatives([(a, one_origin), (b, other_origin)])
    with _matching(f"{a} and {b}"):
        return one.cosines(other)


def info(path: Path | str) -> dict[str, object]:
    """What a model or a vector is, as plain data; `not_finite` names the tensors that hold nan or inf."""
    is_vector = Path(path).is_file() or (Path(path) / VECTOR).is_file()
    if is_vector:
        vector, lineage = load_vector(path)
        state = vector.tensors
    else:
        state, lineage = load_state(path), lineages.origin(path)
    unique = {parameters.place(tensor): tensor for tensor in state.values()}.values()
    return {
        "path": str(path),
        "kind": lineage.kind,
        "architecture": lineage.architecture,
        "tensors": len(unique),
        "parameters": sum(tensor.numel() for tensor in unique),
        "types": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in unique}),
        "not_finite": sorted(key for key, tensor in state.items() if not torch.isfinite(tensor).all()),
        **({"norms": vector.norms()} if is_vector else {"weights_hash": weights_hash(path)}),
        "lineage": json.loads(lineage.to_json()),
    }


def _publish_vector(
    out: Path | str,
    shapes: Mapping[str, list[int]],
    tensors: Iterator[tuple[str, Tensor]],
    lineage: Lineage,
    overwrite: bool,
) -> None:
    with tensorfiles.published(Path(out), overwrite) as folder:
        header = tensorfiles.float32_header(shapes, {"format": "pt", "lineage": lineage.to_json()})
        tensorfiles.write(folder / VECTOR, header, tensors, f"vector {out}")
        parameters.check_same(load_vector(folder)[0].shapes(), shapes, "what was written", "the vector")


def _copy_settings(base: Path, folder: Path) -> None:
    for file in sorted(base.iterdir()):
        if file.is_file() and file.suffix in SETTINGS and file.name not in NOT_COPIED:
            shutil.copyfile(file, folder / file.name)


def _mean_of(name: str, loaded: Sequence[TaskVector]) -> Tensor:
    return TaskVector.mean(TaskVector({name: vector.tensors[name]}) for vector in loaded).tensors[name]


def _layout(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {key: [*tensor.shape, str(tensor.dtype)] for key, tensor in state.items()}


def _number(lam: float | str) -> float:
    try:
        return vectors.finite(float(lam))
    except (TypeError, ValueError) as error:
        raise UserError(f"lam '{lam}' is no finite number: give one such as 0.4") from error


@contextlib.contextmanager
def _matching(what: str) -> Iterator[None]:
    """Turn a MismatchError into the user's."""
    try:
        yield
    except MismatchError as error:
        raise UserError(f"{what}: these do not belong together: {error}") from error
