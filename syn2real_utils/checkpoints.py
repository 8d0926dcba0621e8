"""Models and task vectors on disk: the equations of vectors.py on folders, a few pieces in memory at a time.

A model is a `save_pretrained` folder, with a lineage.json when we trained it; without one it is taken for a pretrained
backbone, its own parent. A vector is a folder with vector.safetensors: float32, its lineage in the header; or its factors of
low rank (lora.py).
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from syn2real_utils import checksums, lora, parameters, tensorfiles, vectors
from syn2real_utils import lineage as lineages
from syn2real_utils.errors import UserError, names
from syn2real_utils.geometry import Difference
from syn2real_utils.lineage import LINEAGE, MADE_FROM, Lineage, architecture, read_lineage, write_lineage
from syn2real_utils.parameters import MismatchError, State
from syn2real_utils.tensorfiles import VECTOR, Pieces, Source
from syn2real_utils.vectors import TaskVector

__all__ = [
    "Lineage",
    "apply",
    "architecture",
    "between",
    "cosine",
    "difference",
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
# They tell of the base, not of what is made of it.
NOT_COPIED = (LINEAGE, MADE_FROM, "done.json", "trainer_state.json", "stopping.json")


def load_state(folder: Path | str) -> dict[str, Tensor]:
    """Tensors of a model in the order of its files, mapped into memory; a tied key shares its owner's tensor.

    Raises:
        UserError: no model, a pickle, or a file that is missing, damaged or not as the index says.
    """
    state: dict[str, Tensor] = {}
    for file in tensorfiles.weight_files(Path(folder)):
        state |= tensorfiles.read(file)[0]
    return dict(parameters.tied(state))


def load_vector(path: Path | str) -> tuple[TaskVector, Lineage]:
    """A task vector, mapped into memory, and its lineage. `path`: the folder, or the file in it.

    One of low rank is multiplied out. A published one is compared with its checksum.

    Raises:
        UserError: it is no task vector, or it is damaged.
    """
    file = _vector_file(path)
    if not file.is_file() or file.suffix != ".safetensors":
        raise UserError(
            f"no task vector at {path}: expected a folder with {VECTOR}, as 'syn2real vector subtract' makes it"
        )
    checksums.check(file.parent, [file.name])
    tensors, metadata = tensorfiles.read(file)
    if lora.HEADER in metadata:
        tensors = lora.expand(tensors, metadata[lora.HEADER], file)
    if "lineage" not in metadata or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise UserError(f"{file} is no task vector: expected float32 tensors and a lineage in the header")
    return TaskVector(tensors), Lineage.from_json(metadata["lineage"], file)


def weights_hash(folder: Path | str) -> str:
    """sha256 over key, type, shape and bytes of a model's tensors, tied ones once, in whatever files they lie."""
    state, digest, seen = load_state(folder), sha256(), set()
    sources = {k: s for file in tensorfiles.weight_files(Path(folder)) for k, s in tensorfiles.sources(file).items()}
    for key in sorted(state):
        if (place := parameters.place(state[key])) not in seen:
            seen.add(place)
            digest.update(f"{key} {state[key].dtype} {list(state[key].shape)}\n".encode())
            for piece in sources[key].pieces(0, state[key].numel()):
                digest.update(tensorfiles.as_bytes(piece))
    return digest.hexdigest()


def save_vector(out: Path | str, vector: TaskVector, lineage: Lineage, overwrite: bool = False) -> None:
    """Write a task vector as the folder `out`."""

    def pieces(name: str, start: int, stop: int) -> Iterator[Tensor]:
        yield from vector.tensors[name].flatten()[start:stop].split(tensorfiles.PIECE)

    _publish_vector(out, vector.shapes(), pieces, lineage, overwrite)


def subtract(real: Path | str, syn: Path | str, out: Path | str, overwrite: bool = False) -> Lineage:
    """Write tau = theta_real - theta_syn as the folder `out`, and return its lineage.

    Raises:
        UserError: models of another architecture, size, type or parent, or quantised ones; `out` exists; what `load_state`
            raises.
    """
    tensorfiles.check_kept(out, [real, syn])
    lineage = lineages.of_vector("subtract", [(real, lineages.origin(real)), (syn, lineages.origin(syn))])
    states = [load_state(real), load_state(syn)]
    with _matching(f"{real} - {syn}"):
        same = _same_bytes(real, syn)
        parameters.check_alike(states[0], states[1], "the real model", "the synthetic one", dtype=True, equal=same)
    _publish_vector(out, parameters.shapes(states[0]), between([real, syn], states), lineage, overwrite)
    return lineage


def mean(paths: Sequence[Path | str], out: Path | str, overwrite: bool = False) -> Lineage:
    """Write the mean of task vectors as the folder `out`, and return its lineage.

    Raises:
        UserError: no vectors, or vectors of another architecture, size or parent; `out` exists.
    """
    tensorfiles.check_kept(out, [], [_vector_file(path).parent for path in paths])
    loaded = [load_vector(path) for path in paths]
    if not loaded:
        raise UserError("no task vectors to take the mean of: give at least one")
    lineage = lineages.of_vector("mean", [(path, origin) for path, (_, origin) in zip(paths, loaded, strict=True)])
    first = loaded[0][0]
    with _matching(f"mean of {names(paths)}"):
        for other, _ in loaded[1:]:
            parameters.check_same(first.shapes(), other.shapes(), "the first", "another")
    steps = [_steps(path, tau) for path, (tau, _) in zip(paths, loaded, strict=True)]
    _publish_vector(out, first.shapes(), _mean_of(steps), lineage, overwrite)
    return lineage


def apply(base: Path | str, vector: Path | str, lam: float | str, out: Path | str, overwrite: bool = False) -> Lineage:
    """Write theta_base + lam * tau as the folder `out`, in the base's files, types and settings; return its lineage.

    Raises:
        UserError: lam is no finite number; a vector of another architecture, size or parent; a quantised base; `out`
            exists; what `load_state` and `load_vector` raise.
    """
    tensorfiles.check_kept(out, [_vector_file(vector).parent], [base])
    factor, (tau, tau_origin) = number(lam), load_vector(vector)
    origin, state = lineages.origin(base), load_state(base)
    lineages.check_relatives([(base, origin), (vector, tau_origin)])
    with _matching(f"{base} + lam * {vector}"):
        parameters.check_takes(state, tau.shapes())
    if not origin.parent and tau_origin.parent:  # then the base must be the pretrained model itself
        origin = origin.model_copy(update={"parent": weights_hash(base)})
        lineages.check_relatives([(base, origin), (vector, tau_origin)])
    lineage = lineages.of_adapted(origin, tau_origin, factor)
    with tensorfiles.published(Path(out), overwrite) as folder:
        moved = _moved(base, state, vector, tau, factor)
        for file in tensorfiles.weight_files(Path(base)):
            what = f"{base} + {factor:g} * {vector}"
            tensorfiles.write(folder / file.name, tensorfiles.header_of(file), moved, what)
        copy_settings(Path(base), folder)
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
        **({"norms": vector.norms(), **_form(path)} if is_vector else {"weights_hash": weights_hash(path)}),
        "lineage": json.loads(lineage.to_json()),
    }


def _publish_vector(
    out: Path | str,
    shapes: Mapping[str, list[int]],
    pieces: Pieces,
    lineage: Lineage,
    overwrite: bool,
) -> None:
    with tensorfiles.published(Path(out), overwrite) as folder:
        header = tensorfiles.float32_header(shapes, {"format": "pt", "lineage": lineage.to_json()})
        tensorfiles.write(folder / VECTOR, header, pieces, f"vector {out}")
        parameters.check_same(load_vector(folder)[0].shapes(), shapes, "what was written", "the vector")


def copy_settings(base: Path, folder: Path, but: Sequence[str] = ()) -> None:
    """Copy what a model's folder holds beside its weights, but for what tells of the base alone and what `but` names."""
    for file in sorted(base.iterdir()):
        if file.is_file() and file.suffix in SETTINGS and file.name not in (*NOT_COPIED, *but):
            shutil.copyfile(file, folder / file.name)


def _moved(base: Path | str, state: State, vector: Path | str, tau: TaskVector, factor: float) -> Pieces:
    """Pieces of what `tau.moved(state, factor)` yields."""
    names, places, steps = parameters.owners(state), _sources(base), _steps(vector, tau)

    def pieces(key: str, start: int, stop: int) -> Iterator[Tensor]:
        if key not in names or factor == 0:
            yield from places[key].pieces(start, stop)
        elif parameters.composed(key):
            parts = {other: state[other] for other in names if names[other] == names[key]}
            whole = TaskVector({names[key]: tau.tensors[names[key]]}).apply(parts, factor)[key]
            yield from whole.flatten()[start:stop].split(tensorfiles.PIECE)
        else:
            for old, step in zip(places[key].wide(start, stop), steps(names[key], start, stop), strict=True):
                yield vectors.moved_piece(old, step, factor, tensorfiles.scratch(step))

    return pieces


def between(folders: Sequence[Path | str], states: Sequence[State]) -> Pieces:
    """Pieces of the first model minus the second."""
    keys, places = [parameters.keys_of(state) for state in states], [_sources(folder) for folder in folders]
    whole = {name for found in keys for name, key in found.items() if parameters.composed(key)}
    # of these alone the tensors are kept: each file is mapped once more for them
    parts = [{k: state[k] for k, name in parameters.owners(state).items() if name in whole} for state in states]

    def pieces(name: str, start: int, stop: int) -> Iterator[Tensor]:
        real, syn = (found[name] for found in keys)
        if name in whole:
            tau = parameters.parameter(parts[0], real) - parameters.parameter(parts[1], syn)
            yield from tau.flatten()[start:stop].split(tensorfiles.PIECE)
        else:
            for new, old in zip(places[0][real].wide(start, stop), places[1][syn].wide(start, stop, 1), strict=True):
                yield new.sub_(old)

    return pieces


def difference(base: Path | str, moved: Path | str) -> Difference:
    """What a model is less another, streamed from their folders; weights may be of a lower precision in one of them.

    Raises:
        MismatchError: models of another architecture or size, or quantised ones.
        UserError: what `load_state` raises.
    """
    states = [load_state(moved), load_state(base)]
    parameters.check_alike(states[0], states[1], str(moved), str(base), equal=_same_bytes(moved, base))
    return Difference(parameters.shapes(states[0]), between([moved, base], states))


def _mean_of(steps: Sequence[Pieces]) -> Pieces:
    """Pieces of the mean of vectors."""

    def pieces(name: str, start: int, stop: int) -> Iterator[Tensor]:
        for taus in zip(*(step(name, start, stop) for step in steps), strict=True):
            yield vectors.mean_piece(taus, tensorfiles.scratch(taus[0]))

    return pieces


def _steps(path: Path | str, tau: TaskVector) -> Pieces:
    """Pieces of a vector, not to be overwritten: streamed from its file, or what its factors there gave."""
    found = tensorfiles.sources(_vector_file(path))

    def pieces(name: str, start: int, stop: int) -> Iterator[Tensor]:
        if name in found:
            yield from found[name].pieces(start, stop)
        else:
            yield from tau.tensors[name].flatten()[start:stop].split(tensorfiles.PIECE)

    return pieces


def _form(path: Path | str) -> dict[str, object]:
    """How a vector's file holds it: whole, or in low rank."""
    header = tensorfiles.read(_vector_file(path))[1].get(lora.HEADER)
    return {"form": "lora", **lora.described(header, _vector_file(path))} if header else {"form": "full"}


def _vector_file(path: Path | str) -> Path:
    return Path(path) / VECTOR if Path(path).is_dir() else Path(path)


def _sources(folder: Path | str) -> dict[str, Source]:
    files = tensorfiles.weight_files(Path(folder))
    return {key: source for file in files for key, source in tensorfiles.sources(file).items()}


def _same_bytes(a: Path | str, b: Path | str) -> Callable[[str], bool]:
    """Whether a tensor, by its key, is the same in two models; a piece of each in memory."""
    one, other = _sources(a), _sources(b)

    def same(key: str) -> bool:
        pieces = (places[key].pieces(0, places[key].size) for places in (one, other))
        return all(torch.equal(*pair) for pair in zip(*pieces, strict=True))

    return same


def _layout(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {key: [*tensor.shape, str(tensor.dtype)] for key, tensor in state.items()}


def number(lam: float | str) -> float:
    """`lam` as a finite number; UserError if it is none."""
    try:
        return parameters.finite(float(lam))
    except (TypeError, ValueError) as error:
        raise UserError(f"lam '{lam}' is no finite number: give one such as 0.4") from error


@contextlib.contextmanager
def _matching(what: str) -> Iterator[None]:
    """Turn a MismatchError into the user's."""
    try:
        yield
    except MismatchError as error:
        raise UserError(f"{what}: these do not belong together: {error}") from error
