"""Weights that are published as PyTorch's pickle alone become safetensors, once, when they are fetched.

A pickle can run code when it is opened, so everything here reads safetensors. There is one exception to that rule: at a commit
that `hubnames` pins, which cannot change, a repository may have nothing else. Backbones and TTS engines share it.
"""

import contextlib
import fnmatch
import pickle
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import save_file

from syn2real_utils import hub, hubnames, tensorfiles
from syn2real_utils.errors import UserError, names, out_of_memory
from syn2real_utils.progress import say

PICKLES = {"pytorch_model.bin": "model.safetensors", "embedding_model.ckpt": "embedding_model.safetensors"}
# What libraries raise for damaged weights, and for settings of another kind than they should be
DAMAGED = (
    pickle.UnpicklingError, SafetensorError, StrictDataclassError, OSError, ValueError, LookupError, TypeError, AttributeError,
    RuntimeError,
)  # fmt: skip
# What a user may call in a folder of a pickle that he or she trusts; weights_only builds tensors and runs no code.
COMMAND = (
    'python -c "import torch, safetensors.torch as s; s.save_file({{k: t.clone().contiguous() for k, t in '
    "torch.load('{pickled}', weights_only=True).items()}}, '{safe}', {{'format': 'pt'}})\""
)


def pull(name: str, revision: str | None, patterns: Sequence[str], kind: Literal["model", "dataset"] = "model") -> Path:
    """The hub's own folder of a repository on this machine, fetched unless it is there.

    Pickles come only at the commit that `hubnames` pins, and only where the repository has no safetensors.

    Raises:
        UserError: what `hub.pull` raises, or a model without safetensors at another commit.
    """
    pinned = revision is not None and revision == hubnames.pinned(name)
    snapshot = hub.pull(name, revision, patterns, kind, otherwise=tuple(PICKLES) if pinned else ())
    if kind == "model" and not pinned and not any(snapshot.glob("*.safetensors")):
        raise UserError(
            f"{name} has no safetensors, and hubnames.py does not pin its commit {snapshot.name}, so its pickles are not read"
        )
    return snapshot


def put(snapshot: Path, patterns: Sequence[str], into: Path) -> None:
    """Copy what `pull` gave and `patterns` name into a folder; pickles are left out and become safetensors."""
    for file in sorted(snapshot.rglob("*")):
        inside = file.relative_to(snapshot).as_posix()
        if file.is_file() and any(fnmatch.fnmatch(inside, pattern) for pattern in patterns):
            (into / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, into / inside)
    if any(snapshot.glob("*.safetensors")):
        return
    for pickled, safe in PICKLES.items():
        if (snapshot / pickled).is_file():
            say(f"making {safe} of {pickled}, which is published in no other form")
            unpickle(snapshot / pickled, into / safe)


def unpickle(pickled: Path, safe: Path) -> None:
    """Write the tensors of a published pickle as safetensors. This is the one place where a pickle is read, against the rule.

    `put` calls this once, for what `pull` let through and for no other file, and PyTorch's `weights_only=True` builds tensors
    and refuses code.
    """
    with opening(pickled.parent):
        tensors = torch.load(pickled, map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            raise ValueError(f"{pickled.name} is no table of tensors")
        # clones, for tied tensors share memory, which safetensors has no word for; popped, so that memory holds one copy
        save_file({key: tensors.pop(key).clone().contiguous() for key in list(tensors)}, safe, {"format": "pt"})


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Turn what damaged files raise into the user's one line."""
    try:
        yield
    except DAMAGED as error:
        if out_of_memory(error):
            raise
        first, *more = str(error).strip().splitlines() or [type(error).__name__]
        said = f"{first} {more[0].strip()}" if more and first.endswith(":") else first
        raise UserError(f"cannot open the model in {folder}: {said.split('. ')[0]}: fetch it again") from error


def refuse(folder: Path) -> None:
    """Raise UserError for a folder with weights in pickles alone, with what makes safetensors of them."""
    pickles = [file.name for file in folder.iterdir() if file.suffix in tensorfiles.PICKLES]
    if not pickles or any(folder.glob("*.safetensors")):
        return
    pickles.sort(key=lambda name: (name not in PICKLES, name))
    how = "from_pretrained and save_pretrained of transformers"
    if (first := pickles[0]) in PICKLES:
        how = f"in that folder, {COMMAND.format(pickled=first, safe=PICKLES[first])}"
    raise UserError(
        f"the folder {folder} has its weights only in {names(pickles, 2)}, pickles, which can run code when they are read: "
        f"if you trust them, make safetensors of them with {how}"
    )
