"""Safetensors files of a model or a vector: mapped into memory, or streamed piece by piece.

Pages of a mapped file count as resident memory as soon as they are read, so what goes through whole checkpoints takes
them from a `Source`, which lets go of them again, and `write` makes the pieces in a few threads at once: Python lets
others run while it reads, writes and computes.
"""

import contextlib
import json
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from syn2real_utils import store
from syn2real_utils.errors import UserError, disk_full, names
from syn2real_utils.parameters import not_finite, stays_finite
from syn2real_utils.progress import track

WEIGHTS, INDEX, VECTOR = "model.safetensors", "model.safetensors.index.json", "vector.safetensors"
CARD = "README.md"  # beside them
OLD = ".old"  # ending of the name that a folder has while another takes its place
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
PIECE = 1 << 18  # elements that one step reads, computes and writes: they stay in the processor's cache
SPAN = 32 * PIECE  # elements that a thread takes at a time
BLOCK = 1 << 21  # bytes; a system that caches files in pages of this size maps them whole
THREADS = min(4, os.cpu_count() or 1)  # more would only wait for memory or the disk
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}

# Files in the folder of a model, a vector or an export: kinds, and names of kinds that may be anybody's
OURS = (".json", ".safetensors", ".jinja", ".model", ".bin", ".lock")
NAMED = (
    "README.md",
    "report.md",
    "texts_dropped.csv",
    "devel.csv",
    "merges.txt",
    "vocab.txt",
    "vocabulary.txt",
    "LICENSE.txt",
)
DTYPES = FLOATS | {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}

Pieces = Callable[[str, int, int], Iterator[Tensor]]  # key, first and last element -> that part of it, flat
_buffers = threading.local()


@dataclass(frozen=True)
class Source:
    """Where a tensor lies in a file, which is mapped: reading it so moves no bytes."""

    data: mmap.mmap  # the file
    begin: int  # bytes from the start of the file
    dtype: torch.dtype
    size: int  # elements

    def pieces(self, start: int, stop: int) -> Iterator[Tensor]:
        """Elements `start` to `stop`, flat, a piece at a time, not to be overwritten; afterwards their pages are let go."""
        if start == stop:
            return
        first, last = (self.begin + place * self.dtype.itemsize for place in (start, stop))
        yield from torch.frombuffer(self.data, dtype=self.dtype, count=stop - start, offset=first).split(PIECE)
        whole = range(first // BLOCK * BLOCK, min(-(-last // BLOCK) * BLOCK, len(self.data)))
        self.data.madvise(mmap.MADV_DONTNEED, whole.start, len(whole))

    def wide(self, start: int, stop: int, place: int = 0) -> Iterator[Tensor]:
        """`pieces` in float32 (float64 stays), to be overwritten; the next one, or another source at `place`, replaces it."""
        wide = torch.promote_types(self.dtype, torch.float32)
        for piece in self.pieces(start, stop):
            yield _buffer("wide", place, len(piece), wide).copy_(piece)


def scratch(piece: Tensor) -> Tensor:
    """Memory of this thread like `piece`, until the next call."""
    return _buffer("scratch", 0, len(piece), piece.dtype)


def _buffer(role: str, place: int, size: int, dtype: torch.dtype) -> Tensor:
    """Memory of this thread that is used again: asking for new memory for each piece cost more than the arithmetic."""
    held: dict[Any, Tensor] = _buffers.__dict__
    if (role, place, dtype) not in held:
        held[role, place, dtype] = torch.empty(PIECE, dtype=dtype)
    return held[role, place, dtype][:size]


def sources(file: Path) -> dict[str, Source]:
    """Key of each tensor of a file -> where it lies."""
    tensors, header, data = read(file)[0], header_of(file), _mapped(file)
    entries = json.loads(header[8:])
    return {
        k: Source(data, len(header) + entries[k]["data_offsets"][0], t.dtype, t.numel()) for k, t in tensors.items()
    }


def weight_files(folder: Path) -> list[Path]:
    """The weights of a `save_pretrained` folder: one file, or the shards that its index names.

    Raises:
        UserError: no such folder, a vector, a pickle, no weights, a missing shard or a damaged index.
    """
    if not folder.is_dir():
        raise UserError(f"no model at {folder}: expected a folder as save_pretrained writes it")
    if (folder / WEIGHTS).exists():  # where both are, transformers reads this one
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        return _shards(folder)
    if (folder / VECTOR).exists():
        raise UserError(f"{folder} is a task vector, expected a model")
    if pickles := sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES):
        raise UserError(
            f"{folder / pickles[0]} is a pickle, which can run code when it is read: convert the model to safetensors "
            "(transformers: from_pretrained, then save_pretrained)"
        )
    raise UserError(f"{folder} has no weights: expected {WEIGHTS}, or shards with {INDEX}")


def read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of one file in the order of its bytes, mapped into memory, and the metadata of its header.

    safetensors checks the file; the tensors are made here, because its own reads a little of each: where a system caches files
    in pages of 2 MB, that maps much of the file.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            keys, metadata = opened.offset_keys(), opened.metadata() or {}
        header, data = header_of(file), _mapped(file)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is damaged or cut short ({str(error).splitlines()[0]}): fetch or make it again"
        ) from error
    entries = json.loads(header[8:])
    if odd := [key for key in keys if entries[key]["dtype"] not in DTYPES]:
        raise UserError(f"{file}: '{odd[0]}' is of type {entries[odd[0]]['dtype']}, expected one of {names(DTYPES)}")
    return {key: _tensor(data, len(header), entries[key]) for key in keys}, metadata


def _mapped(file: Path) -> mmap.mmap:
    with open(file, "rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)  # what torch takes for writable


def _tensor(data: mmap.mmap, begin: int, entry: dict[str, Any]) -> Tensor:
    """A tensor of a mapped file by its entry in the header, which is `begin` bytes long."""
    dtype, shape, (start, stop) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if start == stop:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=(stop - start) // dtype.itemsize, offset=begin + start).view(shape)


def header_of(file: Path) -> bytes:
    """The header of a file as it stands in it: 8 bytes of length, then JSON. Source: the safetensors format."""
    with open(file, "rb") as opened:
        length = opened.read(8)
        return length + opened.read(int.from_bytes(length, "little"))


def float32_header(shapes: Mapping[str, list[int]], metadata: dict[str, str]) -> bytes:
    """Header of a file that holds float32 tensors in the order of `shapes`."""
    entries: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, shape in shapes.items():
        end = start + 4 * torch.Size(shape).numel()  # 4 bytes each
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors lie at multiples of 8
    return len(text).to_bytes(8, "little") + text


def write(file: Path, header: bytes, pieces: Pieces, what: str) -> None:
    """Write a header and what it announces, made by `pieces` in a few threads and cast; UserError at nan or inf."""
    entries = json.loads(header[8:])
    entries.pop("__metadata__", None)
    spans = []
    for key in sorted(entries, key=lambda key: entries[key]["data_offsets"]):
        size = torch.Size(entries[key]["shape"]).numel()
        spans += [(key, start, min(start + SPAN, size)) for start in range(0, size, SPAN)]

    def make(span: tuple[str, int, int]) -> None:
        key, start, stop = span
        begin, end = (len(header) + offset for offset in entries[key]["data_offsets"])
        dtype = FLOATS.get(entries[key]["dtype"])
        with open(file, "r+b") as opened:
            place = begin + start * (end - begin) // torch.Size(entries[key]["shape"]).numel()
            opened.seek(place)
            for piece in pieces(key, start, stop):
                if dtype and not stays_finite(piece, dtype):
                    raise UserError(f"{what}: {not_finite(key)}")
                if dtype and piece.dtype != dtype:
                    piece = _buffer("write", 0, len(piece), dtype).copy_(piece)
                opened.write(as_bytes(piece))
            _let_write(opened, place)

    with open(file, "wb") as opened:
        opened.write(header)
        opened.truncate(len(header) + max((entry["data_offsets"][1] for entry in entries.values()), default=0))
    with _one_thread_each(), ThreadPoolExecutor(THREADS) as threads:
        done = threads.map(make, spans)
        for _ in track(spans, what):
            next(done)


def _let_write(file: BufferedRandom, start: int) -> None:
    """Let the system begin to write what lies between `start` and here, where it else waits until there is much of it.

    The advice says that it is not needed any more; what is still to be written stays in the cache.
    """
    file.flush()
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # some file systems take no advice
            os.posix_fadvise(file.fileno(), start, file.tell() - start, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let torch use one thread per thread of ours: pieces are small, and splitting them costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in C order, as a view where it lies so."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


@contextlib.contextmanager
def published(
    out: Path, overwrite: bool, known: Sequence[str] = (WEIGHTS, INDEX, VECTOR), kind: str = "model or vector"
) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its place when the block ends well; otherwise nothing stays.

    What processes of this machine that were killed left beside `out` goes, but for the folder that one was just replacing.

    Args:
        out: the folder.
        overwrite: replace a folder that stands there, if it holds one of the files `known`.
        known: by which a folder of this kind is known.
        kind: what it is called.

    Raises:
        UserError: `out` exists (and `overwrite` is false, or it is none of this kind), or cannot be written.
    """
    with told(out):
        _mend(out.resolve())
        out = check_free(out, overwrite, known, kind)
        partial = store.partial_of(out)
        partial.mkdir(parents=True)
        try:
            yield partial
            _put(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def told(out: Path) -> Iterator[None]:
    """Turn what a disk refuses while `out` is made into the user's error."""
    try:
        yield
    except OSError as error:
        if disk_full(error):
            raise UserError(f"no space left on the disk while making {out}: free some and call again") from error
        raise UserError(f"cannot make {out}: {error}") from error


def check_free(
    out: Path, overwrite: bool, known: Sequence[str] = (WEIGHTS, INDEX, VECTOR), kind: str = "model or vector"
) -> Path:
    """Return the whole path of `out` if `published` may write there; what it raises is said before the work begins."""
    out = out.resolve()
    store.check_name(out)
    taken = _taken(out)
    if taken and not overwrite:
        raise UserError(f"{out} exists already: name another output, or give --overwrite (overwrite=True)")
    if taken and not any((out / name).is_file() for name in known):
        raise UserError(f"{out} is no {kind}, so it is not overwritten: name another output")
    if taken and (foreign := sorted(path.name for path in out.iterdir() if not _ours(path, known))):
        raise UserError(
            f"{out} holds more than a {kind} ({names(foreign, 3)}), so it is not overwritten: name another output"
        )
    return out


def check_kept(out: Path | str, inputs: Sequence[Path | str], replaced: Sequence[Path | str] = ()) -> None:
    """Raise UserError where writing `out` would take away what it is made of.

    Args:
        out: the folder to write.
        inputs: folders or files that must stay.
        replaced: folders of which `out` may be one, but which it must not hold.
    """
    place = Path(out).resolve()
    for path in (*inputs, *replaced):
        whole = Path(path).resolve()
        if place in whole.parents or (place == whole and path in inputs):
            raise UserError(f"{path} would be lost, for {out} is made of it and written there: name another output")


def _ours(path: Path, known: Sequence[str]) -> bool:
    """Whether something in a folder is of a kind that lies in a model's; a folder in it, if it is such a one and nothing else."""
    if path.is_dir():
        return any((path / name).is_file() for name in known) and all(_ours(inner, known) for inner in path.iterdir())
    return path.name in (*known, *NAMED) or path.suffix in OURS


def _taken(out: Path) -> bool:
    """Whether something stands there; an empty folder is free to be taken."""
    return out.exists() and not (out.is_dir() and not any(out.iterdir()))


def _mend(out: Path) -> None:
    """Put back the folder that a killed process was replacing, where none took its place; delete what else such ones left."""
    for old in store.left_over(out, OLD):
        if not _taken(out):
            with contextlib.suppress(FileNotFoundError):  # another process has just put it back
                old.rename(out)
    store.clear(out, OLD)
    store.clear(out)


def _put(partial: Path, out: Path) -> None:
    old = store.partial_of(out, OLD)
    if out.exists():
        out.rename(old)
    try:
        partial.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _shards(folder: Path) -> list[Path]:
    try:
        places = dict(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
        files = [folder / name for name in sorted(set(places.values()))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / INDEX} is damaged: expected a weight_map of keys to files") from error
    for file in files:
        if file.parent != folder or not file.is_file():
            raise UserError(
                f"{folder / INDEX} names {file.name}, which is not in its folder: fetch or make the model again"
            )
        keys = {key for key, name in places.items() if name == file.name}
        if odd := sorted(keys ^ read(file)[0].keys()):
            raise UserError(
                f"{folder / INDEX} and {file.name} disagree about '{odd[0]}': fetch or make the model again"
            )
    return files
