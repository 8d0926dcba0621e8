"""Where Bark, SpeechT5 and what they need come from: a local folder, else the Hugging Face hub at the commit of `hubnames`.

Engines read safetensors alone. What is published as PyTorch's pickle is turned into safetensors when it is fetched: pickles.py.
"""

from collections.abc import Sequence
from pathlib import Path

from syn2real_utils import hubnames, pickles
from syn2real_utils.errors import RevisionGoneError, UserError
from syn2real_utils.store import Store

KIND = "data/tts"
MODEL = ("*.json", "*.txt", "*.model", "*.safetensors")
BARK, SPEECHT5, VOCODER = "suno/bark", "microsoft/speecht5_tts", "microsoft/speecht5_hifigan"
ARCTIC, XVECTOR = "Matthijs/cmu-arctic-xvectors", "speechbrain/spkrec-xvect-voxceleb"
NEEDS = {"bark": (BARK,), "speecht5": (SPEECHT5, VOCODER, ARCTIC)}  # TTS: repositories, unless the profile names others


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
    if found := given(name, needed, beside):
        return found
    key = {"source": "hub", "name": name, "revision": hubnames.pinned(name), "version": 1}
    return _whole(store.build(KIND, label(name), key, lambda into: _fetch(name, patterns, into)).path, needed)


def given(name: str, needed: str, beside: str | None = None) -> Path | None:
    """The folder that `name` stands for, as in `resolve`; None: it is a repository of the hub.

    Raises:
        UserError: no such folder, one without `needed` or with a pickle alone.
    """
    folder = Path(name).expanduser()
    if beside and (Path(beside).expanduser() / folder.name).is_dir():
        folder = Path(beside).expanduser() / folder.name
    if folder.is_dir():
        return _whole(folder, needed)
    if name.startswith((".", "~", "/")) or name.count("/") != 1:
        raise UserError(f"no folder {name} with a TTS model: name one that holds {needed}, or a repository of the hub")
    return None


def label(repository: str) -> str:
    """The start of the name that a repository has in the store."""
    return repository.replace("/", "-")


def _whole(folder: Path, needed: str) -> Path:
    pickles.refuse(folder)
    if not (folder / needed).is_file():
        raise UserError(f"the folder {folder} has no {needed}: expected the files of its repository on the hub")
    return folder


def _fetch(name: str, patterns: Sequence[str], into: Path) -> None:
    """Files of a repository of the hub."""
    known = hubnames.HUB.get(name)
    try:
        snapshot = pickles.pull(name, hubnames.pinned(name), patterns, known.kind if known else "model")
    except RevisionGoneError as error:
        raise UserError(
            f"{error}: name a folder with a copy of {name} as `model` of the TTS (see data/README.md), or use kokoro or pico"
        ) from error
    except UserError as error:
        size = f" ({known.megabytes} MB)" if known and known.megabytes else ""
        raise UserError(
            f"{error}; {name}{size} is missing here: fetch it where the network is and name its folder as `model` "
            "of the TTS (see data/README.md), or use kokoro or pico"
        ) from error
    pickles.put(snapshot, patterns, into)
