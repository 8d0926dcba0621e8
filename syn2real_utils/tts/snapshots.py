"""Where Bark, SpeechT5 and what they need come from: a local folder, else the Hugging Face hub at the commit of `hubnames`.

Some of them are published as PyTorch's pickles alone. Those are read with PyTorch's own `weights_only=True`, which builds
tensors and runs no code.
"""

import contextlib
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError

from syn2real_utils import hub, hubnames
from syn2real_utils.errors import UserError

MODEL = ("*.json", "*.txt", "*.model", "*.safetensors", "pytorch_model*.bin")
BARK, SPEECHT5, VOCODER = "suno/bark", "microsoft/speecht5_tts", "microsoft/speecht5_hifigan"
ARCTIC, XVECTOR = "Matthijs/cmu-arctic-xvectors", "speechbrain/spkrec-xvect-voxceleb"
NEEDS = {"bark": (BARK,), "speecht5": (SPEECHT5, VOCODER, ARCTIC)}  # TTS: repositories, unless the profile names others


def resolve(name: str, needed: str, patterns: Sequence[str] = MODEL, beside: str | None = None) -> Path:
    """A folder with what `name` stands for, fetched when it is not on this machine.

    Args:
        name: path of a folder, or a repository of the hub.
        needed: a file that it must hold.
        patterns: files to fetch.
        beside: a local folder that may hold it below the repository's short name, such as `speecht5_hifigan`.

    Raises:
        UserError: no such folder, one without `needed`, or the hub cannot be reached or has no such commit.
    """
    folder = Path(name).expanduser()
    if beside and (Path(beside).expanduser() / folder.name).is_dir():
        folder = Path(beside).expanduser() / folder.name
    if not folder.is_dir():
        if name.startswith((".", "~", "/")) or name.count("/") != 1:
            raise UserError(
                f"no folder {name} with a TTS model: name one that holds {needed}, or a repository of the hub"
            )
        folder = _fetched(name, patterns)
    if not (folder / needed).is_file():
        raise UserError(f"the folder {folder} has no {needed}: expected the files of the repository {Path(name).name}")
    return folder


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Turn what transformers raises on damaged files into the user's one line."""
    try:
        yield
    except (pickle.UnpicklingError, SafetensorError, OSError, ValueError, KeyError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise UserError(f"cannot open the model in {folder}: {said}: fetch it again") from error


def there(name: str) -> bool:
    """Whether the repository is on this machine already."""
    known = hubnames.HUB.get(name)
    try:
        snapshot_download(
            name, revision=hubnames.pinned(name), repo_type=known.kind if known else "model", local_files_only=True
        )
    except (LocalEntryNotFoundError, HFValidationError, ValueError, OSError):
        return False
    return True


def _fetched(name: str, patterns: Sequence[str]) -> Path:
    known = hubnames.HUB.get(name)
    try:
        return hub.pull(name, hubnames.pinned(name), patterns, known.kind if known else "model")
    except UserError as error:
        size = f" ({known.megabytes} MB)" if known and known.megabytes else ""
        raise UserError(
            f"{error}; {name}{size} is missing here: fetch it where the network is and name its folder as `model` "
            "of the TTS (see data/README.md), or use kokoro or pico"
        ) from error
