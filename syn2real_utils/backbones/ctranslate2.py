"""Read a Whisper model in CTranslate2's container and convert it losslessly into an ordinary transformers folder.

The container (format version 6, little-endian), as CTranslate2 4.x writes it:

    u32 version | string spec | u32 revision | u32 n | n variables | u32 m | m aliases
    variable = string name | u8 rank | rank x u32 size | u8 dtype | u32 bytes | data
    alias    = string name | string variable;   string = u16 length with the final NUL | characters | NUL

Query, key and value are fused: `linear_0` of self-attention is q,k,v; in cross-attention
`linear_0` is q and `linear_1` is k,v.
"""

import json
import math
import mmap
import struct
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from syn2real_utils.errors import UserError, names

VERSION, SPEC = 6, "WhisperSpec"
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
END = "<|endoftext|>"
FIRST_MERGE = ["Ġ", "t"]  # of every Whisper vocabulary; Ġ is how byte-level BPE writes the space
SIDES = ("encoder", "decoder")
MULTILINGUAL_VOCABULARY = 51_865  # tokens at least; the English-only models have one less
PARTS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}  # of linear layers and of layer norms


class Container:
    """The variables of a container by name; the file is mapped, not read, until a variable is used.

    Raises:
        UserError: the file is no container of this version, no Whisper, or cut short.
    """

    def __init__(self, path: Path):
        self.path = path
        self.variables: dict[str, np.ndarray] = {}
        try:
            with open(path, "rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._at = 0
            self._read()
        except (OSError, ValueError, KeyError, struct.error) as error:
            raise UserError(f"{path} is damaged or no CTranslate2 container: delete it and fetch it again") from error

    def _read(self) -> None:
        version, spec, _revision = self._number("<I"), self._string(), self._number("<I")
        if (version, spec) != (VERSION, SPEC):
            raise UserError(f"{self.path} holds {spec} in format {version}: expected {SPEC} in format {VERSION}")
        for _ in range(self._number("<I")):
            name = self._string()
            shape = [self._number("<I") for _ in range(self._number("<B"))]
            dtype = np.dtype(DTYPES[self._number("<B")])
            size = self._number("<I")
            if size != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name}: {size} bytes for the shape {shape}")
            self.variables[name] = np.frombuffer(self._bytes, dtype, math.prod(shape), self._at).reshape(shape)
            self._at += size
        for _ in range(self._number("<I")):
            alias, name = self._string(), self._string()
            self.variables[alias] = self.variables[name]
        if self._at != len(self._bytes):
            raise ValueError(f"{len(self._bytes) - self._at} bytes too many")

    def _number(self, kind: str) -> int:
        (value,) = struct.unpack_from(kind, self._bytes, self._at)
        self._at += struct.calcsize(kind)
        return value

    def _string(self) -> str:
        length = self._number("<H")
        text = self._bytes[self._at : self._at + length]
        if len(text) != length or not text.endswith(b"\0"):
            raise ValueError("a name is cut short")
        self._at += length
        return text[:-1].decode()


def convert(container: Path, settings: Path, tokenizer: Path, into: Path) -> None:
    """Write a container as a `save_pretrained` folder in float32 that `transformers.pipeline` opens.

    Args:
        container: `model.bin`.
        settings: the `config.json` beside it (suppressed tokens, language tokens, alignment heads).
        tokenizer: the `tokenizer.json` beside it.
        into: existing folder.

    Raises:
        UserError: the container is damaged, quantised or not the Whisper that its settings describe.
    """
    variables = Container(container).variables
    words = _tokenizer(tokenizer)
    known = json.loads(settings.read_text(encoding="utf-8"))
    config = _config(variables, words, known)
    tensors = _tensors(variables, config)
    _check_names(tensors, config)
    config.save_pretrained(into)
    _generation(known, words, config).save_pretrained(into)
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    WhisperProcessor(extractor, words).save_pretrained(into)
    extractor.save_pretrained(into)  # preprocessor_config.json too, for those who look for it
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})


def _check_names(tensors: dict[str, torch.Tensor], config: WhisperConfig) -> None:
    """Raise UserError unless the tensors are exactly those of a model of this architecture."""
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items() if name != "proj_out.weight"}  # tied
    odd = [name for name in {**expected, **tensors} if name not in tensors or expected.get(name) != tensors[name].shape]
    if odd:
        raise UserError(f"the container is not the Whisper expected: missing, odd or misshapen are {names(odd, 3)}")


def _tensors(variables: dict[str, np.ndarray], config: WhisperConfig) -> dict[str, torch.Tensor]:
    """State of the transformers model without its tied output: float16 widened to float32, which is exact."""
    tensors = {}
    for name, values in variables.items():
        if values.ndim == 0 or name == "decoder/projection/weight":  # settings; tied to the embedding
            continue
        if values.dtype not in (np.float32, np.float16):
            raise UserError(f"the variable {name} is quantised ({values.dtype}): expected float16 or float32")
        wide = torch.from_numpy(values.astype(np.float32))
        for key, tensor in _rename(name, wide, config.d_model):
            tensors[f"model.{key}"] = tensor
    return tensors


def _rename(name: str, values: torch.Tensor, width: int) -> list[tuple[str, torch.Tensor]]:
    """Names in transformers and tensors of one variable; fused projections give several."""
    side, *path, part = name.split("/")
    outside = {
        ("embeddings", "weight"): "embed_tokens.weight",
        ("position_encodings", "encodings"): "embed_positions.weight",
        ("layer_norm", "gamma"): "layer_norm.weight",
        ("layer_norm", "beta"): "layer_norm.bias",
    }
    if len(path) == 1:
        return [(f"{side}.{outside.get((path[0], part), f'{path[0]}.{part}')}", values)]
    layer, block, *inner = path
    kind = PARTS.get(part, part)
    prefix = f"{side}.layers.{layer.removeprefix('layer_')}"
    if block == "ffn":
        place = {"layer_norm": "final_layer_norm", "linear_0": "fc1", "linear_1": "fc2"}[inner[0]]
        return [(f"{prefix}.{place}.{kind}", values)]
    attention = {"self_attention": "self_attn", "attention": "encoder_attn"}[block]
    if inner[0] == "layer_norm":
        return [(f"{prefix}.{attention}_layer_norm.{kind}", values)]
    fused = {
        ("self_attn", "linear_0"): ["q_proj", "k_proj", "v_proj"],
        ("encoder_attn", "linear_0"): ["q_proj"],
        ("encoder_attn", "linear_1"): ["k_proj", "v_proj"],
    }.get((attention, inner[0]), ["out_proj"])
    pieces = zip(fused, values.split(width), strict=True)
    kept = [(projection, piece) for projection, piece in pieces if _kept(projection, kind, piece)]
    return [(f"{prefix}.{attention}.{projection}.{kind}", piece.clone()) for projection, piece in kept]


def _kept(projection: str, kind: str, values: torch.Tensor) -> bool:
    """Whether transformers has this tensor: keys have no bias there, so the container's must be zero."""
    if (projection, kind) != ("k_proj", "bias"):
        return True
    if values.any():
        raise UserError("the container has a bias on its attention keys: it is no Whisper that transformers can hold")
    return False


def _config(variables: dict[str, np.ndarray], words: WhisperTokenizer, known: dict) -> WhisperConfig:
    """The architecture, read from the shapes of the variables."""
    try:
        vocabulary, width = variables["decoder/embeddings/weight"].shape
        mels = variables["encoder/conv1/weight"].shape[1]
        last = "/ffn/linear_1/bias"  # once in each layer
        layers = {side: sum(n.startswith(side) and n.endswith(last) for n in variables) for side in SIDES}
        widths = {side: len(variables[f"{side}/layer_0/ffn/linear_0/bias"]) for side in SIDES}
        heads = {side: int(variables[f"{side}/num_heads"]) for side in SIDES}
        positions = {side: len(variables[f"{side}/position_encodings/encodings"]) for side in SIDES}
    except KeyError as error:
        raise UserError(f"the container has no variable {error}: it is no whole Whisper") from error
    ids = words.get_added_vocab()
    return WhisperConfig(
        architectures=["WhisperForConditionalGeneration"],
        vocab_size=vocabulary,
        num_mel_bins=mels,
        d_model=width,
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=heads["encoder"],
        decoder_attention_heads=heads["decoder"],
        encoder_ffn_dim=widths["encoder"],
        decoder_ffn_dim=widths["decoder"],
        max_source_positions=positions["encoder"],
        max_target_positions=positions["decoder"],
        bos_token_id=ids[END],
        eos_token_id=ids[END],
        pad_token_id=ids[END],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        begin_suppress_tokens=known["suppress_ids_begin"],
        dtype="float32",
    )


def _generation(known: dict, words: WhisperTokenizer, config: WhisperConfig) -> GenerationConfig:
    """What `generate` must know; the prompt comes from language and task, not from forced tokens."""
    ids = words.get_added_vocab()
    multilingual = config.vocab_size >= MULTILINGUAL_VOCABULARY
    settings: dict[str, object] = {
        "suppress_tokens": known["suppress_ids"],
        "begin_suppress_tokens": known["suppress_ids_begin"],
        "alignment_heads": known["alignment_heads"],
        "is_multilingual": multilingual,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "max_initial_timestamp_index": 50,  # 1 s, as in OpenAI's decoder
        "return_timestamps": False,
    }
    if multilingual:
        languages = {token: number for token, number in ids.items() if number in known["lang_ids"]}
        settings["lang_to_id"] = dict(sorted(languages.items()))
        settings["task_to_id"] = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        max_length=config.max_target_positions,
        **settings,
    )


def _tokenizer(path: Path) -> WhisperTokenizer:
    """The tokenizer with Whisper's special tokens marked as such.

    Some exports took the first merge (" t") for a header and lost it, which tears apart every word that starts with t:
    it is put back.
    """
    written = json.loads(path.read_text(encoding="utf-8"))
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in written["model"]["merges"]]
    if FIRST_MERGE not in merges:
        merges.insert(0, FIRST_MERGE)
    written["model"]["merges"] = merges
    special = [token["content"] for token in written["added_tokens"] if token["special"] and token["content"] != END]
    return WhisperTokenizer(
        tokenizer_object=Tokenizer.from_str(json.dumps(written)),
        pad_token=END,
        extra_special_tokens=special,
        model_max_length=1024,
    )
