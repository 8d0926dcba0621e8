"""Short contexts for Whisper: a few stand-ins for the silence up to 30 s, which every Whisper was trained with.

A clip of 2 s fills the first 100 of the encoder's 1,500 positions; the others hear silence. Cutting them off costs a pretrained
model its bearings: it loops. But they are nearly all alike, but for their positions, so a few can stand for all: behind the
clip's own positions come `STAND_INS` positions of silence, each in the middle of a block of the rest, narrow blocks near the
clip and wide ones far from it. An attention that sees one key in place of m equal ones gives the same result when log m is added
to that key's logit. That is what the encoder's own attention and the decoder's attention to the encoder do here. So a
model that is trained and heard so behaves as one that hears 30 s, at the cost of half a second of audio more. The method
is ours; the gap that it leaves is measured in every run (tables/context_gaps.csv).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration

FRAMES_PER_POSITION = 2  # log-mel frames of 10 ms; the encoder's second convolution has stride 2
FLOOR = 2.0  # silence lies this far below the loudest log-mel value: 8 in log10, divided by 4
STAND_INS = (
    24  # our choice, on clips of domains that the quickstart does not use: benchmarks/README.md has what others gave
)


@contextmanager
def short_context(model: WhisperForConditionalGeneration, features: torch.Tensor) -> Iterator[torch.Tensor]:
    """Let the model take clips that are shorter than 30 s inside this block.

    Args:
        model: put back as it was when the block ends.
        features: log-mel (batch, mel bins, frames); frames even, 3,000 at most.

    Yields:
        The features with the stand-ins' silence behind them, which the encoder takes now.
    """
    encoder = model.get_encoder()
    positions, full = encoder.embed_positions, encoder.config.max_source_positions
    heard = math.ceil(features.shape[-1] / FRAMES_PER_POSITION)
    places, sizes = stand_ins(heard, full)
    index = torch.tensor([*range(heard), *places], device=positions.weight.device)
    bias = torch.tensor([0.0] * heard + [math.log(size) for size in sizes], device=features.device).view(1, 1, 1, -1)

    def attend(module: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        on = features.device.type
        dtype = torch.get_autocast_dtype(on) if torch.is_autocast_enabled(on) else next(module.parameters()).dtype
        return args, inputs | {"attention_mask": bias.to(dtype)}

    attentions = [layer.self_attn for layer in encoder.layers] + [
        layer.encoder_attn for layer in model.get_decoder().layers
    ]
    encoder.embed_positions = nn.Embedding.from_pretrained(positions.weight[index], freeze=True)
    encoder.config.max_source_positions = len(index)
    hooks = [module.register_forward_pre_hook(attend, with_kwargs=True) for module in attentions if places]
    try:
        yield _with_silence(features, FRAMES_PER_POSITION * len(places))
    finally:
        for hook in hooks:
            hook.remove()
        encoder.embed_positions, encoder.config.max_source_positions = positions, full


@lru_cache(maxsize=64)
def stand_ins(heard: int, full: int) -> tuple[list[int], list[int]]:
    """The positions that stand for the silence from position `heard` up to `full`, and how many each stands for.

    The widths of their blocks grow by one factor, from 1; where no more than `STAND_INS` positions are left, each stands for itself.
    """
    rest = full - heard
    if rest <= STAND_INS:
        return list(range(heard, full)), [1] * rest
    growth = _growth(rest)
    edges = [heard + round((growth**n - 1) / (growth - 1)) for n in range(STAND_INS + 1)]
    blocks = [(start, stop) for start, stop in itertools.pairwise([*edges[:-1], full]) if stop > start]
    return [(start + stop - 1) // 2 for start, stop in blocks], [stop - start for start, stop in blocks]


def stack(clips: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features of several clips as (batch, mel bins, longest frames); the shorter get frames of silence behind them."""
    longest = max(clip.shape[-1] for clip in clips)
    return torch.stack([_with_silence(clip[None], longest - clip.shape[-1])[0] for clip in clips])


def _with_silence(features: torch.Tensor, frames: int) -> torch.Tensor:
    """Features (batch, mel bins, frames) with frames of silence behind each clip."""
    silence = features.amax((1, 2), keepdim=True) - FLOOR
    return torch.cat([features, silence.expand(-1, features.shape[1], frames)], dim=-1)


def _growth(rest: int) -> float:
    """The factor at which `STAND_INS` widths from 1 on sum to `rest`."""
    low, high = 1.0 + 1e-6, float(rest)
    for _ in range(100):
        middle = (low + high) / 2
        total = (middle**STAND_INS - 1) / (middle - 1)
        low, high = (middle, high) if total < rest else (low, middle)
    return low
