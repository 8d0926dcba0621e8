"""Exports, checked by what the runtimes hear: the same real clips through transformers, faster-whisper and whisper.cpp."""

import json
import shutil
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration

from syn2real_utils import audio, exports, stages, store
from syn2real_utils.backbones import sources
from syn2real_utils.bench.runtimes import transcribe_with
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import Lineage, write_lineage
from syn2real_utils.profile import load_profile
from syn2real_utils.store import Store
from syn2real_utils.text import normalise
from tests.test_cli import call, home, tree  # noqa: F401

LANGUAGES = {"base": "es", "tiny.en": "en"}
BESIDE = ["config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json"]
SENTENCES = {  # clear ones: where a model is in doubt, the last digit of a sum decides
    "vehicles/ship/cartoon/tugboat",
    "vehicles/masstransit/cartoon/schoolbus",
}
WORDS_OFF = 0.1  # share of words that int8, or whisper.cpp in float16, may hear otherwise: 1 of 10
real = pytest.mark.real
both = pytest.mark.parametrize("name", LANGUAGES)


@pytest.fixture(scope="module")
def clips(real_clips, shared_data: Store, tmp_path_factory) -> dict[str, list[Path]]:
    """Clips with silence up to 30 s behind them: there all three runtimes have the same log-mel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYN2REAL_HOME", str(shared_data.root))
        rows = stages.real_rows(load_profile("quickstart"))
    heard = {"base": rows[rows.utterance.isin(SENTENCES)].path.tolist(), "tiny.en": real_clips["tiny.en"][::2]}
    folder = tmp_path_factory.mktemp("clips")
    return {name: [_padded(Path(path), folder) for path in paths] for name, paths in heard.items()}


def _padded(path: Path, folder: Path) -> Path:
    wave = audio.read(path)
    file = folder / f"{path.stem}.wav"
    soundfile.write(file, np.pad(wave, (0, 30 * audio.SAMPLE_RATE - len(wave))), audio.SAMPLE_RATE, subtype="FLOAT")
    return file


@pytest.fixture(scope="module")
def said(clips, shared_data: Store) -> dict[str, list[str]]:
    """What transformers hears in them, greedily at 30 s."""
    return {name: transcribe_with("transformers", sources.resolve(name, shared_data), clips[name], language).texts
            for name, language in LANGUAGES.items()}  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path, shared_data: Store) -> Path:
    """A random Whisper of one narrow layer a side, with the settings and words of tiny.en."""
    folder = tmp_path / "tiny"
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = WhisperConfig(vocab_size=51_864, **sizes, **heads)
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    for file in sources.resolve("tiny.en", shared_data).iterdir():
        if file.suffix == ".json" and file.name not in ("config.json", "done.json"):
            shutil.copyfile(file, folder / file.name)
    return folder


def _off(language: str, expected: list[str], found: list[str]) -> float:
    """Share of words that differ, after the normaliser that scores have."""
    return jiwer.wer([normalise(t, language) for t in expected], [normalise(t, language) for t in found])


@real
@both
def test_faster_whisper_hears_the_very_same_text(name, clips, said, shared_data, tmp_path):
    out = tmp_path / "out"
    exports.export(sources.resolve(name, shared_data), "ctranslate2", out, "float32")
    assert tree(out) == BESIDE
    assert transcribe_with("faster-whisper", out, clips[name], LANGUAGES[name]).texts == said[name]


@real
def test_faster_whisper_hears_the_same_words_in_int8(clips, said, shared_data, tmp_path):
    out = tmp_path / "out"
    exports.export(sources.resolve("tiny.en", shared_data), "ctranslate2", out, "int8")
    assert (out / "model.bin").stat().st_size < 45e6  # 39 million weights, most of a byte
    heard = transcribe_with("faster-whisper-int8", out, clips["tiny.en"], "en")
    assert heard.seconds > 0 and _off("en", said["tiny.en"], heard.texts) <= WORDS_OFF


@real
@both
def test_whisper_cpp_hears_the_same_words(name, clips, said, shared_data, tmp_path):
    out = tmp_path / "ggml.bin"
    exports.export(sources.resolve(name, shared_data), "ggml", out)
    heard = transcribe_with("whisper.cpp", out, clips[name], LANGUAGES[name]).texts
    assert _off(LANGUAGES[name], said[name], heard) <= WORDS_OFF
    assert ("autobús" in "".join(heard).lower()) == (name == "base")  # words are bytes: ú is two of them


@real
def test_what_tells_of_the_model_goes_along_and_an_export_is_replaced_only_when_asked(tiny, tmp_path, capsys, home):  # noqa: F811
    write_lineage(tiny, Lineage(kind="model", architecture="whisper/WhisperForConditionalGeneration", speech="pico"))
    (tiny / "README.md").write_text("A model.")
    asked = ["export", tiny, "--to", "ctranslate2", "-o", tmp_path / "out"]
    assert call(capsys, *asked)[:2] == (0, f"wrote {tmp_path / 'out'}\n")
    assert tree(tmp_path / "out") == sorted([*BESIDE, "README.md", "lineage.json"])
    assert json.loads((tmp_path / "out" / "lineage.json").read_text())["speech"] == "pico"

    status, _, err = call(capsys, *asked)
    assert status == 2 and "exists already" in err and len(err.splitlines()) == 1
    assert call(capsys, *asked, "--quantization", "int8", "--overwrite")[0] == 0

    file = tmp_path / "ggml.bin"
    exports.export(tiny, "ggml", file)
    before = file.read_bytes()
    with pytest.raises(UserError, match="exists already"):
        exports.export(tiny, "ggml", file)
    exports.export(tiny, "ggml", file, overwrite=True)
    assert file.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"home", "tiny", "out", "ggml.bin"}  # nothing half-written


def _with(folder: Path, **changed: torch.Tensor | None) -> None:
    state = load_file(folder / "model.safetensors")
    state |= {key: tensor for key, tensor in changed.items() if tensor is not None}
    save_file({key: state[key] for key in state if changed.get(key, 0) is not None}, folder / "model.safetensors")


NORM, MATRIX = "model.encoder.layer_norm.weight", "model.encoder.layers.0.fc1.weight"
REFUSED = {
    "unknown format": (lambda folder: None, ["--to", "onnx"], "unknown format 'onnx': use one of ctranslate2, ggml"),
    "unknown type": (lambda folder: None, ["--to", "ggml", "--quantization", "int8"], "ggml has no quantization 'int8'"),
    "a missing tensor": (lambda folder: _with(folder, **{NORM: None}), ["--to", "ggml"], NORM),
    "nan": (lambda folder: _with(folder, **{NORM: torch.full((16,), torch.nan)}), ["--to", "ctranslate2"], "nan"),
    "too large for float16": (
        lambda folder: _with(folder, **{MATRIX: torch.full((64, 16), 7e4)}), ["--to", "ggml"], "too large for float16"
    ),
    "not for whisper.cpp": (
        lambda folder: WhisperForConditionalGeneration(
            WhisperConfig(vocab_size=51_870, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                          decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64)
        ).save_pretrained(folder), ["--to", "ggml"], "export to ctranslate2"
    ),
    "a pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), ["--to", "ggml"], "is a pickle"
    ),
    "a vector": (
        lambda folder: (folder / "model.safetensors").rename(folder / "vector.safetensors"), ["--to", "ggml"],
        "is a task vector, expected a model",
    ),
    "no Whisper": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), ["--to", "ggml"], "'bert' model"
    ),
    "a folder for a file": (lambda folder: folder.with_name("out").mkdir(), ["--to", "ggml"], "name the file to write"),
    "somebody's file": (
        lambda folder: folder.with_name("out").write_text("mine"), ["--to", "ggml", "--overwrite"], "is no ggml file"
    ),
    "somebody's folder": (
        lambda folder: (folder.with_name("out") / "photos").mkdir(parents=True), ["--to", "ctranslate2", "--overwrite"],
        "is no export to ctranslate2, so it is not overwritten",
    ),
}  # fmt: skip


@real
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused_in_one_line(case, tiny, tmp_path, capsys, home):  # noqa: F811
    spoil, arguments, message = REFUSED[case]
    spoil(tiny)
    before = tree(tmp_path)
    status, _, err = call(capsys, "export", tiny, "-o", tmp_path / "out", *arguments)
    assert status == 2 and message in err and err.startswith("error: ") and len(err.splitlines()) == 1, err
    assert tree(tmp_path) == before


def test_a_file_is_published_whole_or_not_at_all(tmp_path):
    out = tmp_path / "ggml.bin"
    killed, other = (tmp_path / f".ggml.bin.{host}-4194304.partial" for host in (store.HOST, "another"))
    for left in (killed, other):
        left.write_text("half")

    def half() -> None:
        with exports._published_file(out, False) as file:
            file.write_text("half")
            raise OSError("the cable")

    with pytest.raises(UserError, match="cannot make .*ggml.bin"):
        half()
    assert [path.name for path in tmp_path.iterdir()] == [other.name]
    with exports._published_file(out, False) as file:
        file.write_text("whole")
    assert out.read_text() == "whole" and {path.name for path in tmp_path.iterdir()} == {out.name, other.name}


def test_a_runtime_that_is_not_known_or_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="use one of transformers, faster-whisper, faster-whisper-int8, whisper.cpp"):
        transcribe_with("vosk", tmp_path, [], "es")
    with pytest.raises(UserError, match="no model at"):
        transcribe_with("whisper.cpp", tmp_path / "nothing.bin", [], "es")
