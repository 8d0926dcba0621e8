"""Where Bark, SpeechT5 and what they need come from: a local folder, else the Hugging Face hub at the commit of `hubnames`.

Engines read safetensors alone. What is published as PyTorch's pickle is turned into safetensors when it is fetched: `unpickle`.
"""

import contextlib
import pickle
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from syn2real_utils import hub, hubnames, tensorfiles
from syn2real_utils.errors import UserError, names
from syn2real_utils.progress import say
from syn2real_utils.store import Store

KIND = "data/tts"
MODEL = ("*.json", "*.txt", "*.model", "*.safetensors")
PICKLES = {"pytorch_model.bin": "model.safetensors", "embedding_model.ckpt": "embedding_model.safetensors"}
BARK, SPEECHT5, VOCODER = "suno/bark", "microsoft/speecht5_tts", "microsoft/speecht5_hifigan"
ARCTIC, XVECTOR = "Matthijs/cmu-arctic-xvectors", "speechbrain/spkrec-xvect-voxceleb"
NEEDS = {"bark": (BARK,), "speecht5": (SPEECHT5, VOCODER, ARCTIC)}  # TTS: repositories, unless the profile names others
# What a user may call in a folder of a pickle that he or she trusts; weights_only builds tensors and runs no code.
COMMAND = (
    'python -c "import torch, safetensors.torch as s; s.save_file({{k: t.clone().contiguous() for k, t in '
    "torch.load('{pickled}', weights_only=True).items()}}, '{safe}', {{'format': 'pt'}})\""
)


def resolve(name: str, needed: str, store: Store, patterns: Sequence[str] = MODEL, beside: str | None = None) -> Path:
    """A folder with what `name` stands for, weights in safetensors; fetched when it is not on this machine.

    Args:
        name: path of a folder, or a repository of the hub.
        needed: a file that it must hold.
        store: keeps what is fetched.
        patterns: files to fetch beside the weights.
        beside: a local folder that may hold it below the repository's short name, such as `speecht5_hifigan`.

    Raises:
        UserError: no such folder, one without `needed` or with a pickle alone, or the hub cannot be reached or has no such commit.
    """
    folder = Path(name).expanduser()
    if beside and (Path(beside).expanduser() / folder.name).is_dir():
        folder = Path(beside).expanduser() / folder.name
    if not folder.is_dir():
        if name.startswith((".", "~", "/")) or name.count("/") != 1:
            raise UserError(
                f"no folder {name} with a TTS model: name one that holds {needed}, or a repository of the hub"
            )
        key = {"source": "hub", "name": name, "revision": hubnames.pinned(name), "version": 1}
        folder = store.build(KIND, label(name), key, lambda into: _fetch(name, patterns, into)).path
    _refuse_pickles(folder)
    if not (folder / needed).is_file():
        raise UserError(f"the folder {folder} has no {needed}: expected the files of the repository {Path(name).name}")
    return folder


def label(repository: str) -> str:
    """The start of the name that a repository has in the store."""
    return repository.replace("/", "-")


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Turn what damaged files raise into the user's one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (pickle.UnpicklingError, SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise UserError(f"cannot open the model in {folder}: {said}: fetch it again") from error


def unpickle(pickled: Path, safe: Path) -> None:
    """Write the tensors of a published pickle as safetensors. This is the one place where a pickle is read, against the project's rule.

    At the commits of `hubnames` Bark, SpeechT5, its vocoder and the x-vector encoder are published in no other form. So `_fetch`
    calls this once, for those commits and for no other file, and PyTorch's `weights_only=True` builds tensors and refuses code.
    """
    with opening(pickled.parent):
        tensors = torch.load(pickled, map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            raise ValueError(f"{pickled.name} is no table of tensors")
        # clones, for tied tensors share memory, which safetensors has no word for; popped, so that memory holds one copy
        save_file({key: tensors.pop(key).clone().contiguous() for key in list(tensors)}, safe, {"format": "pt"})


def _fetch(name: str, patterns: Sequence[str], into: Path) -> None:
    """Files of a repository of the hub; its pickles only where its commit is pinned, and as safetensors."""
    known, revision = hubnames.HUB.get(name), hubnames.pinned(name)
    try:
        wanted = [*patterns, *PICKLES] if revision else patterns
        snapshot = hub.pull(name, revision, wanted, known.kind if known else "model")
    except UserError as error:
        size = f" ({known.megabytes} MB)" if known and known.megabytes else ""
        raise UserError(
            f"{error}; {name}{size} is missing here: fetch it where the network is and name its folder as `model` "
            "of the TTS (see data/README.md), or use kokoro or pico"
        ) from error
    if not revision and not any(snapshot.glob("*.safetensors")):
        raise UserError(
            f"{name} has no safetensors, and hubnames.py pins none of its commits, so its pickles are not read: fetch it, "
            "make safetensors of it (see data/README.md), and name its folder as `model` of the TTS"
        )
    shutil.copytree(snapshot, into, ignore=shutil.ignore_patterns(*PICKLES), dirs_exist_ok=True)
    for pickled, safe in PICKLES.items():
        if revision and (snapshot / pickled).is_file() and not (snapshot / safe).is_file():
            say(f"making {safe} of {name}'s {pickled}")
            unpickle(snapshot / pickled, into / safe)


def _refuse_pickles(folder: Path) -> None:
    """Raise UserError for a folder with weights in pickles alone."""
    pickles = [file.name for file in folder.iterdir() if file.suffix in tensorfiles.PICKLES]
    if pickles and not any(folder.glob("*.safetensors")):
        pickles.sort(key=lambda name: (name not in PICKLES, name))
        command = COMMAND.format(pickled=pickles[0], safe=PICKLES.get(pickles[0], PICKLES["pytorch_model.bin"]))
        raise UserError(
            f"the folder {folder} has its weights only in {names(pickles, 2)}, pickles, which can run code when they are read: "
            f"if you trust them, make safetensors of them with, in that folder: {command}"
        )
