"""Short contexts for Whisper: a few stand-ins for the silence up to 30 s, which every Whisper was trained with.

A clip of 2 s fills the first 100 of the encoder's 1,500 positions; the others hear silence. Cutting them off costs a pretrained
model its bearings: it loops. But they are nearly all alike, but for their positions, so a few can stand for all: behind the
clip's own positions come a few positions of silence, each in the middle of a block of the rest, narrow blocks near the
clip and wide ones far from it. An attention that sees one key in place of m equal ones gives the same result when log m is added
to that key's logit. That is what the encoder's own attention and the decoder's attention to the encoder do here. So a
model that is trained and heard so behaves as one that hears 30 s, at the cost of half a second of audio more. The method
is ours; the gap that it leaves is measured in every run (tables/context_gaps.csv).

Models learn with `LEARNING` stand-ins and are heard with `HEARING`. A model that was trained bridges the gap that few of them
leave; one that was moved along a vector, which was never trained, does not: with 24 it heard nothing in clips of a second that
it hears at 30 s.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration

FRAMES_PER_POSITION = 2  # log-mel frames of 10 ms; the encoder's second convolution has stride 2
PLAIN_POSITIONS = 300  # above it the weights of all attentions, if they are kept for the way back, take too much memory
FULL_POSITIONS = 1_500  # of 30 s
PLAIN_LOGITS = 4 * FULL_POSITIONS**2  # of a head, over all clips of a pass; more take too much memory anyway
FLOOR = 2.0  # silence lies this far below the loudest log-mel value: 8 in log10, divided by 4
# Both our choice, by benchmarks/README.md: fewer are faster, more are nearer to 30 s
LEARNING = 24
HEARING = 128


@contextmanager
def short_context(
    model: WhisperForConditionalGeneration, features: torch.Tensor, most: int = LEARNING
) -> Iterator[torch.Tensor]:
    """Let the model take clips that are shorter than 30 s inside this block.

    Args:
        model: put back as it was when the block ends.
        features: log-mel (batch, mel bins, frames); frames even, 3,000 at most.
        most: stand-ins.

    Yields:
        The features with the stand-ins' silence behind them, which the encoder takes now.
    """
    encoder = model.get_encoder()
    positions, full = encoder.embed_positions, encoder.config.max_source_positions
    places, bias = _stood_for(features.shape[-1], full, most)
    index = torch.tensor(places, device=positions.weight.device)
    bias = bias.to(features.device)
    attentions = [layer.self_attn for layer in encoder.layers] + [
        layer.encoder_attn for layer in model.get_decoder().layers
    ]
    encoder.embed_positions = nn.Embedding.from_pretrained(positions.weight[index], freeze=True)
    encoder.config.max_source_positions = len(index)
    added = FRAMES_PER_POSITION * len(places) - features.shape[-1]
    try:
        with (
            _plain_attention(model, features.device, _few(len(features), len(index))),
            _biased(attentions if added else [], lambda: bias),
        ):
            yield _with_silence(features, added)
    finally:
        encoder.embed_positions, encoder.config.max_source_positions = positions, full


@dataclass
class Heard:
    """What the encoder made of some clips, each with its own context and stand-ins."""

    states: torch.Tensor  # (clips, positions, dimensions), zeros behind the shorter clips
    bias: torch.Tensor  # (clips, 1, 1, positions): log of how many positions each stands for, -inf behind the clip

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all clips but these."""
        self.states, self.bias = (
            self.states[: len(rows)],
            self.bias[rows],
        )  # of the states the decoder has its keys by now

    @contextmanager
    def attended(self, model: WhisperForConditionalGeneration) -> Iterator[None]:
        """Inside this block the model's decoder attends to what is kept as if it were 30 s of each clip."""
        attentions = [layer.encoder_attn for layer in model.get_decoder().layers]
        with _plain_attention(model, self.states.device), _biased(attentions, lambda: self.bias):
            yield


def hear(model: WhisperForConditionalGeneration, clips: Sequence[torch.Tensor]) -> Heard:
    """Encode log-mel features (mel bins, frames) of several clips; those of one length share passes, so none is padded."""
    full, device = model.get_encoder().config.max_source_positions, model.device
    states: dict[int, torch.Tensor] = {}
    for frames in {clip.shape[-1] for clip in clips}:
        own = [i for i, clip in enumerate(clips) if clip.shape[-1] == frames]
        most = max(PLAIN_LOGITS // positions(frames, full) ** 2, 1) if device.type == "cpu" else len(own)
        for part in (own[at : at + most] for at in range(0, len(own), most)):
            features = torch.stack([clips[i] for i in part]).to(device)
            with short_context(model, features, HEARING) as heard, _in_rows(model.get_encoder().conv2):
                states |= zip(part, model.get_encoder()(heard).last_hidden_state, strict=True)
    biases = [_stood_for(clip.shape[-1], full, HEARING)[1].flatten() for clip in clips]
    padded = nn.utils.rnn.pad_sequence(biases, batch_first=True, padding_value=-math.inf)
    return Heard(
        nn.utils.rnn.pad_sequence([states[i] for i in range(len(clips))], batch_first=True),
        padded[:, None, None].to(device),
    )


@contextmanager
def _plain_attention(model: WhisperForConditionalGeneration, device: torch.device, few: bool = True) -> Iterator[None]:
    """Attend with plain products inside this block where that is faster than torch's fused attention: on a CPU."""
    config = model.config
    before = config._attn_implementation
    if device.type == "cpu" and few:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def _in_rows(convolution: nn.Module) -> Iterator[None]:
    """Write what a convolution gives out position by position.

    Else every sum of the encoder's layers, which lie behind it, strides through memory.
    """
    handle = convolution.register_forward_hook(lambda _, __, out: out.mT.contiguous().mT)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _biased(attentions: Sequence[nn.Module], bias: Callable[[], torch.Tensor]) -> Iterator[None]:
    """Add `bias()`, broadcast to (batch, heads, queries, keys), to the logits of some attentions inside this block."""

    def attend(module: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        found = bias()
        on = found.device.type
        dtype = torch.get_autocast_dtype(on) if torch.is_autocast_enabled(on) else next(module.parameters()).dtype
        return args, inputs | {"attention_mask": found.to(dtype)}

    hooks = [module.register_forward_pre_hook(attend, with_kwargs=True) for module in attentions]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _few(clips: int, heard: int) -> bool:
    """Whether the attention of a pass over clips of `heard` positions each fits into memory as plain products."""
    return heard <= PLAIN_POSITIONS or (not torch.is_grad_enabled() and clips * heard**2 <= PLAIN_LOGITS)


def positions(frames: int, full: int = FULL_POSITIONS) -> int:
    """Positions that a clip of so many log-mel frames is heard with, its stand-ins among them."""
    return min(math.ceil(frames / FRAMES_PER_POSITION) + HEARING, full)


def _stood_for(frames: int, full: int, most: int) -> tuple[list[int], torch.Tensor]:
    """The encoder's positions for a clip of so many frames, its stand-ins among them, and the bias (1, 1, 1, positions)."""
    heard = math.ceil(frames / FRAMES_PER_POSITION)
    places, sizes = stand_ins(heard, full, most)
    bias = torch.tensor([0.0] * heard + [math.log(size) for size in sizes])
    return [*range(heard), *places], bias.view(1, 1, 1, -1)


@lru_cache(maxsize=64)
def stand_ins(heard: int, full: int, most: int) -> tuple[list[int], list[int]]:
    """The positions that stand for the silence from position `heard` up to `full`, and how many each stands for.

    The widths of their blocks grow by one factor, from 1; where no more than `most` positions are left, each stands for itself.
    """
    rest = full - heard
    if rest <= most:
        return list(range(heard, full)), [1] * rest
    growth = _growth(rest, most)
    edges = [heard + round((growth**n - 1) / (growth - 1)) for n in range(most + 1)]
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


def _growth(rest: int, most: int) -> float:
    """The factor at which `most` widths from 1 on sum to `rest`."""
    low, high = 1.0 + 1e-6, 1.0 + rest / most  # the sum is more than `rest` there, for each width is more than the last
    for _ in range(100):
        middle = (low + high) / 2
        total = (middle**most - 1) / (middle - 1)
        low, high = (middle, high) if total < rest else (low, middle)
    return low
