"""Write a Whisper as the one file that whisper.cpp opens.

The file (little-endian; every number a 4-byte integer or float), as the loader in whisper.cpp reads it:

    magic | 11 hyperparameters | mel bins, FFT bins, that many floats | n, n words | tensors until the file ends
    word   = length | bytes;   tensors = dimensions, length of the name, type | sizes, the innermost first | name | data

Words end before the special tokens, which whisper.cpp numbers itself by the size of the vocabulary. Matrices and
convolutions are float16; biases, norms and position embeddings float32. (The format knows files that are float32
throughout, but whisper.cpp 1.8.5 aborts on their convolutions.) There is no output projection: it is the embedding.
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperTokenizerFast

from syn2real_utils import tensorfiles
from syn2real_utils.errors import UserError
from syn2real_utils.progress import track

MAGIC = struct.pack("<I", 0x67676D6C)  # "ggml"
VOCABULARIES = {51_864: 50_256, 51_865: 50_257, 51_866: 50_257}  # English, multilingual, large-v3: end of text of each
FLOAT32, FLOAT16 = 0, 1  # types of ggml
LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)")
BLOCKS = {
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
}
OUTSIDE = {
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "encoder.layer_norm.weight": "encoder.ln_post.weight",
    "encoder.layer_norm.bias": "encoder.ln_post.bias",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.embed_tokens.weight": "decoder.token_embedding.weight",
    "decoder.layer_norm.weight": "decoder.ln.weight",
    "decoder.layer_norm.bias": "decoder.ln.bias",
}
WIDE = ("encoder.positional_embedding", "decoder.positional_embedding")  # float32 though they are matrices


def write(file: Path, model: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write the `save_pretrained` folder `model`, whose tensors are `state`, as `file`.

    Raises:
        UserError: whisper.cpp cannot compute this model, or a weight is too large for float16.
    """
    config = WhisperConfig.from_pretrained(model)
    tokenizer = WhisperTokenizerFast.from_pretrained(model)
    _check(config, tokenizer)
    filters = WhisperFeatureExtractor.from_pretrained(model).mel_filters.T  # (mel bins, FFT bins)
    words = _words(tokenizer)
    with open(file, "wb") as out:
        out.write(MAGIC)
        _integers(out, *_hyperparameters(config), FLOAT16)
        _integers(out, *filters.shape)
        out.write(np.ascontiguousarray(filters, dtype="<f4").tobytes())
        _integers(out, len(words))
        for word in words:
            _integers(out, len(word))
            out.write(word)
        for key in track([key for key in state if key != "proj_out.weight"], "write the tensors"):
            _tensor(out, _name(key.removeprefix("model.")), state[key])


def _check(config: WhisperConfig, tokenizer: WhisperTokenizerFast) -> None:
    """Raise UserError where whisper.cpp takes for granted what this model has otherwise."""
    end = VOCABULARIES.get(config.vocab_size)
    if end is None or tokenizer.eos_token_id != end:
        raise UserError(
            f"whisper.cpp knows only Whisper's own vocabularies ({', '.join(map(str, VOCABULARIES))} tokens), this one has "
            f"{config.vocab_size} with its end of text at {tokenizer.eos_token_id}: export to ctranslate2"
        )
    widths = {config.encoder_ffn_dim, config.decoder_ffn_dim}
    if widths != {4 * config.d_model} or config.activation_function != "gelu" or config.scale_embedding:
        raise UserError(
            "whisper.cpp computes only gelu, feed-forward layers of 4 x d_model and embeddings as they are: "
            "this Whisper is built otherwise, export to ctranslate2"
        )


def _hyperparameters(config: WhisperConfig) -> list[int]:
    return [
        config.vocab_size,
        config.max_source_positions,
        config.d_model,
        config.encoder_attention_heads,
        config.encoder_layers,
        config.max_target_positions,
        config.d_model,
        config.decoder_attention_heads,
        config.decoder_layers,
        config.num_mel_bins,
    ]


def _words(tokenizer: WhisperTokenizerFast) -> list[bytes]:
    """Every token before the end of text, as the bytes that it stands for; a number without a token is empty."""
    bytes_of = _alphabet()
    known = {number: token for token, number in tokenizer.get_vocab().items()}
    return [bytes(bytes_of[letter] for letter in known.get(number, "")) for number in range(tokenizer.eos_token_id)]


def _alphabet() -> dict[str, int]:
    """The byte behind each letter of byte-level BPE: visible Latin-1 is itself, the others follow from chr(256) on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _name(key: str) -> str:
    """The name of a tensor in whisper.cpp."""
    if found := LAYER.fullmatch(key):
        side, number, block, part = found.groups()
        return f"{side}.blocks.{number}.{BLOCKS[block]}.{part}"
    return OUTSIDE.get(key, key)  # the convolutions have the same names


def _tensor(out: BinaryIO, name: str, tensor: torch.Tensor) -> None:
    narrow = tensor.ndim > 1 and name not in WIDE
    values = tensor.to(torch.float16 if narrow else torch.float32)
    if not torch.isfinite(values).all():
        raise UserError(
            f"'{name}' is too large for float16, which whisper.cpp computes in: export to ctranslate2 in float32"
        )
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        values = values[:, None]  # whisper.cpp adds them to (channels, frames)
    encoded = name.encode()
    _integers(out, values.ndim, len(encoded), FLOAT16 if narrow else FLOAT32, *reversed(values.shape))
    out.write(encoded)
    out.write(tensorfiles.as_bytes(values))


def _integers(out: BinaryIO, *numbers: int) -> None:
    out.write(struct.pack(f"<{len(numbers)}i", *numbers))
