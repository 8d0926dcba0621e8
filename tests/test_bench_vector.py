"""What the bench `vector` measures on, at a size that tests can afford."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration

from syn2real_utils import checkpoints
from syn2real_utils.bench import vector
from syn2real_utils.errors import JobError

TINY = {
    "vocab_size": 60_000,  # more than the tokens that the generation settings name
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}


def test_models_are_whispers_in_shards_and_unequal_work_is_noticed(tmp_path):
    base, real, syn = vector.build(tmp_path, TINY, shard_bytes=100_000)
    assert len(list(base.glob("*.safetensors"))) > 1
    model, report = WhisperForConditionalGeneration.from_pretrained(base, output_loading_info=True)
    assert model.dtype == torch.float16 and not any(report.values())

    checkpoints.subtract(real, syn, tmp_path / "tau")
    checkpoints.apply(base, tmp_path / "tau", vector.LAM, tmp_path / "ours")
    checkpoints.apply(base, tmp_path / "tau", vector.LAM, tmp_path / "theirs")
    found = vector._compare(tmp_path / "ours", tmp_path / "theirs", base, real, syn)
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())

    key, name = next(iter(json.loads((base / "model.safetensors.index.json").read_text())["weight_map"].items()))
    state = load_file(tmp_path / "theirs" / name)
    state[key].view(torch.int16).flatten()[0] += 2
    save_file(state, tmp_path / "theirs" / name)
    with pytest.raises(JobError, match="one step of float16"):
        vector._compare(tmp_path / "ours", tmp_path / "theirs", base, real, syn)
