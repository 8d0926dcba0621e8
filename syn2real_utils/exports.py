"""Export a Whisper folder to the runtimes that people use: CTranslate2 for faster-whisper, ggml for whisper.cpp."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from syn2real_utils import pickles, tensorfiles
from syn2real_utils.backbones import ggml
from syn2real_utils.backbones.sources import WHISPER, check_folder, kind
from syn2real_utils.checkpoints import load_state
from syn2real_utils.errors import UserError, names
from syn2real_utils.lineage import LINEAGE, read_lineage
from syn2real_utils.progress import say
from syn2real_utils.store import check_writable, clear, replacing

# What is written for whom, and the types that the weights can have there.
FORMATS = {"ctranslate2": ("float32", "float16", "int8"), "ggml": ("float16",)}
CONTAINER = "model.bin"  # the weights in a folder of CTranslate2
CARRIED = ("README.md", LINEAGE)  # what tells of the model, beside it
TIED = "proj_out.weight"  # the embedding again; some folders hold it twice


def export(model: Path, to: str, out: Path, quantization: str = "float16", overwrite: bool = False) -> None:
    """Write the Whisper in a `save_pretrained` folder for another runtime.

    Args:
        model: the folder.
        to: "ctranslate2": `out` is a folder that `faster_whisper.WhisperModel` opens, with the model's README.md and
            lineage.json; "ggml": `out` is a file that whisper.cpp opens.
        out: what to write; it appears when it is whole.
        quantization: type of the weights, see `FORMATS`.
        overwrite: replace an export of this format that stands there.

    Raises:
        UserError: no Whisper, a vector, a pickle or damaged weights; an unknown format or type; `out` exists; ctranslate2
            is asked for and not installed; whisper.cpp cannot compute this model.
    """
    _check_wanted(to, quantization)
    check_writable(out)
    tensorfiles.weight_files(model)  # a model, no vector and no pickle
    if (found := kind(check_folder(model))) != WHISPER:
        raise UserError(f"{model} holds a {found}: {to} takes a Whisper only")
    transformers_logging.disable_progress_bar()
    state = load_state(model)
    with pickles.opening(model):  # what is damaged is told before anything is written
        _check_state(model, state)
        WhisperTokenizerFast.from_pretrained(model)
        WhisperFeatureExtractor.from_pretrained(model)
    if to == "ggml":
        with _published_file(out, overwrite) as file:
            ggml.write(file, model, state)
        if (lineage := read_lineage(model)) and lineage.licences:
            say(f"no card fits beside {out.name}: pass on that it is made of {'; '.join(lineage.licences)}")
        return
    large = [key for key, tensor in state.items() if tensor.abs().max() > torch.finfo(torch.float16).max]
    if large and quantization == "float16":
        raise UserError(f"'{large[0]}' of {model} is too large for float16: export with --quantization float32")
    with tensorfiles.published(out, overwrite, known=(CONTAINER,), kind="export to ctranslate2") as folder:
        _convert(model, folder, quantization)
        for name in CARRIED:
            if (model / name).is_file():
                shutil.copyfile(model / name, folder / name)


def _check_wanted(to: str, quantization: str) -> None:
    if to not in FORMATS:
        raise UserError(f"unknown format '{to}': use one of {names(FORMATS)}")
    if quantization not in FORMATS[to]:
        tail = "; whisper.cpp's own tool quantize makes smaller ones from it" if to == "ggml" else ""
        raise UserError(f"{to} has no quantization '{quantization}': use one of {names(FORMATS[to])}{tail}")


def _check_state(model: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Raise UserError unless the tensors are exactly those of this architecture, and finite."""
    with torch.device("meta"):
        expected = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(model)).state_dict()
    shapes = {key: tensor.shape for key, tensor in expected.items() if key != TIED}
    found = {key: tensor.shape for key, tensor in state.items() if key != TIED}
    if odd := [key for key in {**shapes, **found} if shapes.get(key) != found.get(key)]:
        raise UserError(f"{model} is not the Whisper of its config.json: missing, odd or misshapen are {names(odd, 3)}")
    if TIED in state and not torch.equal(state[TIED], state["model.decoder.embed_tokens.weight"]):
        raise UserError(
            f"{model} has an output layer of its own, which neither runtime keeps apart: it is not exported"
        )
    if bad := [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise UserError(f"{model} holds nan or inf in '{bad[0]}': did its training diverge?")


def _convert(model: Path, folder: Path, quantization: str) -> None:
    """Fill `folder` with the container and what faster-whisper reads beside it."""
    try:
        import ctranslate2
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise UserError("ctranslate2 is not installed: pip install ctranslate2, or export to ggml") from error
    TransformersConverter(str(model)).convert(str(folder), quantization=quantization, force=True)
    WhisperTokenizerFast.from_pretrained(model).backend_tokenizer.save(str(folder / "tokenizer.json"))
    WhisperFeatureExtractor.from_pretrained(model).save_pretrained(folder)
    ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32")  # it opens


@contextlib.contextmanager
def _published_file(out: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden file beside `out` that takes its place when the block ends well; otherwise nothing stays."""
    out = out.resolve()
    if out.is_dir():
        raise UserError(f"{out} is a folder: name the file to write, such as {out / 'ggml-model.bin'}")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already: name another output, or give --overwrite")
    if out.exists() and not _is_ggml(out):
        raise UserError(f"{out} is no ggml file, so it is not overwritten: name another output")
    clear(out)
    with tensorfiles.told(out), replacing(out) as partial:
        yield partial


def _is_ggml(file: Path) -> bool:
    with open(file, "rb") as opened:
        return opened.read(len(ggml.MAGIC)) == ggml.MAGIC
