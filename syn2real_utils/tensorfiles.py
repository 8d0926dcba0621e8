"""Safetensors files of a model or a vector: mapped into memory when read, written one tensor at a time."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from syn2real_utils.errors import UserError
from syn2real_utils.progress import track

WEIGHTS, INDEX, VECTOR = "model.safetensors", "model.safetensors.index.json", "vector.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def weight_files(folder: Path) -> list[Path]:
    """The weights of a `save_pretrained` folder: one file, or the shards that its index names.

    Raises:
        UserError: no such folder, a vector, a pickle, no weights, a missing shard or a damaged index.
    """
    if not folder.is_dir():
        raise UserError(f"no model at {folder}: expected a folder as save_pretrained writes it")
    if (folder / INDEX).exists():
        return _shards(folder)
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / VECTOR).exists():
        raise UserError(f"{folder} is a task vector, expected a model")
    if pickles := sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES):
        raise UserError(
            f"{folder / pickles[0]} is a pickle, which can run code when it is read: convert the model to safetensors "
            "(transformers: from_pretrained, then save_pretrained)"
        )
    raise UserError(f"{folder} has no weights: expected {WEIGHTS}, or shards with {INDEX}")


def read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of one file in the order of its bytes, mapped into memory, and the metadata of its header."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.offset_keys()}, opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is damaged or cut short ({str(error).splitlines()[0]}): fetch or make it again"
        ) from error


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


def write(file: Path, header: bytes, tensors: Iterator[tuple[str, Tensor]], what: str) -> None:
    """Write a header and, taken from `tensors` one at a time, what it announces; UserError at nan or inf."""
    entries = json.loads(header[8:])
    entries.pop("__metadata__", None)
    keys = sorted(entries, key=lambda key: entries[key]["data_offsets"])
    with open(file, "wb") as opened:
        opened.write(header)
        for key in track(keys, what):
            found, tensor = next(tensors)
            begin, end = entries[key]["data_offsets"]
            if found != key or tensor.nbytes != end - begin:
                raise RuntimeError(f"{file} expects '{key}' of {end - begin} bytes, got '{found}' of {tensor.nbytes}")
            if not torch.isfinite(tensor).all():
                raise UserError(f"{what}: '{key}' would hold nan or inf: did a training diverge, is lam too large?")
            opened.write(as_bytes(tensor))


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in C order, as a view where it lies so."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


@contextlib.contextmanager
def published(
    out: Path, overwrite: bool, known: Sequence[str] = (WEIGHTS, INDEX, VECTOR), kind: str = "model or vector"
) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its place when the block ends well; otherwise nothing stays.

    Args:
        out: the folder.
        overwrite: replace a folder that stands there, if it holds one of the files `known`.
        known: by which a folder of this kind is known.
        kind: what it is called.

    Raises:
        UserError: `out` exists (and `overwrite` is false, or it is none of this kind), or cannot be written.
    """
    out = out.resolve()
    taken = out.exists() and not (out.is_dir() and not any(out.iterdir()))
    if taken and not overwrite:
        raise UserError(f"{out} exists already: name another output, or ask to overwrite it")
    if taken and not any((out / name).is_file() for name in known):
        raise UserError(f"{out} is no {kind}, so it is not overwritten: name another output")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        _put(partial, out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"no space left on the disk while making {out}: free some and call again") from error
        raise UserError(f"cannot make {out}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put(partial: Path, out: Path) -> None:
    old = partial.with_suffix(".old")
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
    except (ValueError, KeyError, TypeError) as error:
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
