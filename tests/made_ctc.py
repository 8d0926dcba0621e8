"""Tiny random CTC models of transformers' own classes, saved as snapshots of the hub are."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import (
    HubertConfig,
    HubertForCTC,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)

from syn2real_utils import audio

UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"
FRONT = {  # a feature encoder with the strides of the real one, 20 ms a frame, and few channels
    "conv_dim": (24, 24, 24, 24),
    "conv_kernel": (10, 8, 4, 4),
    "conv_stride": (8, 5, 4, 2),
    "num_feat_extract_layers": 4,
}
BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SIDE = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "conv_depthwise_kernel_size": 7}
KINDS = {
    "rotary": (Wav2Vec2ConformerConfig, Wav2Vec2ConformerForCTC, {"position_embeddings_type": "rotary"}),
    "relative": (Wav2Vec2ConformerConfig, Wav2Vec2ConformerForCTC, {"position_embeddings_type": "relative"}),
    "group": (Wav2Vec2Config, Wav2Vec2ForCTC, {"feat_extract_norm": "group"}),
    "layer": (Wav2Vec2Config, Wav2Vec2ForCTC, {"do_stable_layer_norm": True}),
    "hubert": (HubertConfig, HubertForCTC, {"do_stable_layer_norm": True}),
}


def snapshot(folder: Path, kind: str, letters: str = UPPER, seed: int = 0, **sizes) -> Path:
    """A `save_pretrained` folder of a random model with a vocabulary of letters; `sizes` go into its config."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *letters]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    config, model, own = KINDS[kind]
    values = {"feat_extract_norm": "layer"} | FRONT | BODY | SIDE | own | sizes
    made = config(vocab_size=len(tokens), pad_token_id=0, **values)
    masks = made.feat_extract_norm == "layer"
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=masks).save_pretrained(folder)
    torch.manual_seed(seed)
    model(made).save_pretrained(folder)
    return folder


def tone(file: Path, seconds: float, pitch: int) -> Path:
    """A clip of a chord, with a little noise."""
    at = np.arange(int(seconds * audio.SAMPLE_RATE)) / audio.SAMPLE_RATE
    wave = 0.2 * np.sin(2 * np.pi * pitch * at) + 0.1 * np.sin(2 * np.pi * 1.5 * pitch * at)
    noise = 0.02 * np.random.default_rng(pitch).standard_normal(len(at))
    audio.write(file, (wave + noise).astype(np.float32))
    return file
