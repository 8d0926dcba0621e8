"""Whisper small as the hub has it, with fewer and narrower layers: from the checkpoint to the adapted model."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizerFast, pipeline

from syn2real_utils import checkpoints, stages, training
from syn2real_utils.backbones import sources
from syn2real_utils.backbones.base import open_backbone
from syn2real_utils.backbones.clips import Examples
from syn2real_utils.checkpoints import load_state
from syn2real_utils.errors import UserError
from syn2real_utils.evaluation import sweep
from syn2real_utils.profile import BackbonePart, TrainingPart, load_profile
from tests.made_ctc import tone

# The fields of openai/whisper-small's config.json; lists of many tokens are shortened.
PUBLISHED = {
    "_name_or_path": "openai/whisper-small", "activation_dropout": 0.0, "activation_function": "gelu",
    "architectures": ["WhisperForConditionalGeneration"], "attention_dropout": 0.0, "begin_suppress_tokens": [220, 50257],
    "bos_token_id": 50257, "d_model": 768, "decoder_attention_heads": 12, "decoder_ffn_dim": 3072, "decoder_layerdrop": 0.0,
    "decoder_layers": 12, "decoder_start_token_id": 50258, "dropout": 0.0, "encoder_attention_heads": 12,
    "encoder_ffn_dim": 3072, "encoder_layerdrop": 0.0, "encoder_layers": 12, "eos_token_id": 50257,
    "forced_decoder_ids": [[1, 50259], [2, 50359], [3, 50363]], "init_std": 0.02, "is_encoder_decoder": True,
    "max_length": 448, "max_source_positions": 1500, "max_target_positions": 448, "model_type": "whisper",
    "num_hidden_layers": 12, "num_mel_bins": 80, "pad_token_id": 50257, "scale_embedding": False,
    "suppress_tokens": [1, 2, 7, 8, 9, 50361, 50362], "torch_dtype": "float32", "transformers_version": "4.27.0.dev0",
    "use_cache": True, "vocab_size": 51865,
}  # fmt: skip
ENGLISH = {  # what openai/whisper-small.en has otherwise
    "_name_or_path": "openai/whisper-small.en", "begin_suppress_tokens": [220, 50256], "bos_token_id": 50256,
    "decoder_start_token_id": 50257, "eos_token_id": 50256, "forced_decoder_ids": [[1, 50362]], "pad_token_id": 50256,
    "suppress_tokens": [1, 2, 7, 8, 9, 50360, 50361], "vocab_size": 51864,
}  # fmt: skip
SMALLER = {  # of each size, the divisor
    "d_model": 48, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_layers": 6, "decoder_layers": 6,
    "num_hidden_layers": 6, "encoder_attention_heads": 6, "decoder_attention_heads": 6,
}  # fmt: skip
KINDS = {
    "small": ("base", "es", {}),
    "small.en": ("tiny.en", "en", ENGLISH),
}  # the tokenizer of, a language, the config
TRAIN = TrainingPart(epochs=1, batch_size=2, learning_rate=1e-3, warmup_ratio=0.0, max_steps=1)


def snapshot(folder: Path, tokenizer: Path, own: dict) -> Path:
    """A folder as the hub has it: settings and tokenizer of the real one, smaller random weights."""
    values = PUBLISHED | own
    values |= {name: values[name] // divisor for name, divisor in SMALLER.items()}
    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("model.safetensors", "config.json", "done.json"))
    (folder / "config.json").write_text(json.dumps(values))
    torch.manual_seed(0)
    state = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(folder)).state_dict()
    save_file(
        {k: t for k, t in state.items() if k != "proj_out.weight"}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_from_checkpoint_to_adapted_model(kind, shared_data, tmp_path):
    like, language, own = KINDS[kind]
    folder = snapshot(tmp_path / kind, sources.resolve(like, shared_data), own)
    asr = open_backbone(
        sources.resolve(str(folder), shared_data), language, BackbonePart(name=kind, precision="float32")
    )
    clips = [tone(tmp_path / f"{i}.wav", 0.5 + 0.4 * i, 200 + 90 * i) for i in range(2)]
    for seed, name in enumerate(("real", "syn", "target")):
        words = [f"{name} one", f"{name} two, three"]
        training.finetune(asr, Examples.of(asr, clips, words), TRAIN, seed, 1, name, tmp_path / name)
    checkpoints.subtract(tmp_path / "real", tmp_path / "syn", tmp_path / "tau")
    for lam in (0, 0.5):
        checkpoints.apply(tmp_path / "target", tmp_path / "tau", lam, tmp_path / f"lam{lam}")
    states = {name: load_state(tmp_path / name) for name in ("real", "syn", "target", "lam0", "lam0.5")}
    for key, tensor in states["target"].items():
        assert torch.equal(states["lam0"][key], tensor)
        moved = tensor + 0.5 * (states["real"][key] - states["syn"][key])
        torch.testing.assert_close(states["lam0.5"][key], moved)
    tau = checkpoints.load_vector(tmp_path / "tau")[0]
    assert "model.decoder.embed_tokens.weight" in tau.tensors and "proj_out.weight" not in tau.tensors, "tied: once"
    features, adapted = [asr.features(clip) for clip in clips], asr.load(tmp_path / "lam0.5")
    heard = sweep(asr, asr.load(tmp_path / "target"), tau, [0.0, 0.5], features, 2)
    assert heard[0.5] == asr.transcribe(adapted, features, 2)
    assert adapted.config.vocab_size == own.get("vocab_size", 51865)
    read = pipeline("automatic-speech-recognition", model=str(tmp_path / "lam0.5"), device="cpu")
    words = {"max_new_tokens": 4} | ({"language": "es", "task": "transcribe"} if language == "es" else {})
    assert isinstance(read(str(clips[0]), generate_kwargs=words)["text"], str)


def test_weights_that_are_not_whole_are_refused(shared_data, tmp_path):
    """A missing tensor would be drawn at random and a nan would be written as exclamation marks."""
    folder = snapshot(tmp_path / "small", sources.resolve("base", shared_data), {})
    asr, file = (
        open_backbone(folder, "es", BackbonePart(name="small", precision="float32")),
        folder / "model.safetensors",
    )
    whole = load_file(file)
    key = "model.encoder.layers.0.fc1.weight"
    for state, message in (
        ({k: t for k, t in whole.items() if k != key}, f"its weights lack {key}"),
        (whole | {key: whole[key] * math.nan}, f"not finite in {key}"),
        (whole | {key: whole[key][:1]}, "cannot open the model in .*small: "),
    ):
        save_file(state, file, {"format": "pt"})
        with pytest.raises(UserError, match=message):
            asr.load()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot open the model in .*small: "):
        asr.load()


def test_a_fine_tune_keeps_all_that_its_tokenizer_needs(shared_data, tmp_path):
    """Older folders have vocab.json and merges.txt in place of tokenizer.json."""
    folder = snapshot(tmp_path / "small", sources.resolve("base", shared_data), {})
    WhisperTokenizerFast.from_pretrained(folder).backend_tokenizer.model.save(str(folder))
    (folder / "tokenizer.json").unlink()
    (folder / "lineage.json").write_text("{}")
    asr = open_backbone(folder, "es", BackbonePart(name="small", precision="float32"))
    training.save(asr, asr.load(), tmp_path / "out")
    assert (tmp_path / "out" / "merges.txt").is_file() and not (tmp_path / "out" / "lineage.json").exists()
    read = pipeline("automatic-speech-recognition", model=str(tmp_path / "out"), device="cpu")
    words = {"max_new_tokens": 4, "language": "es", "task": "transcribe"}
    assert isinstance(read(str(tone(tmp_path / "a.wav", 0.5, 200)), generate_kwargs=words)["text"], str)


def test_settings_of_a_local_backbone_are_part_of_what_is_made_of_it(shared_data, tmp_path, monkeypatch):
    """Words that a model may not say change its transcripts, with the same weights."""
    monkeypatch.setenv("SYN2REAL_HOME", str(shared_data.root))
    folder = snapshot(tmp_path / "small", sources.resolve("base", shared_data), {})
    profile = load_profile("quickstart", {"backbone.name": str(folder)})
    before, weights = stages.backbone_key(profile), stages.parent(profile)
    (folder / "generation_config.json").write_text(
        json.dumps(json.loads((folder / "generation_config.json").read_text()) | {"suppress_tokens": [1]})
    )
    assert stages.backbone_key(profile) != before and stages.parent(profile) == weights
    assert "settings" not in stages.backbone_key(load_profile("quickstart"))
