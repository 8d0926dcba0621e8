"""The projection on the tokens, where there is a label: of what a decoder says behind the end of a text, nothing is learned.

The vocabulary has 51,865 tokens. In a batch of short texts a third of the positions is padding, and projecting them, and the
way back, is a twentieth of a training step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import shift_tokens_right

from syn2real_utils.backbones.base import IGNORED

STEP = 32  # how many are projected is rounded up: fewer shapes, each of which costs time when it first comes


@contextmanager
def labelled_only(model: WhisperForConditionalGeneration) -> Iterator[None]:
    """Inside this block a call with `labels` projects only where one is not `IGNORED`; the loss is the same, the logits are flat."""
    taken = torch.empty(0, dtype=torch.long)

    def split(module: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal taken
        labels = inputs["labels"]
        before = shift_tokens_right(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
        order = torch.argsort((labels == IGNORED).flatten(), stable=True)  # labels first, in their order
        wanted = int((labels != IGNORED).sum())
        taken = order[: -(-wanted // STEP) * STEP]
        return args, inputs | {"decoder_input_ids": before, "labels": labels.flatten()[taken, None]}

    def select(module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (args[0].flatten(0, 1)[taken],)

    hooks = [
        model.register_forward_pre_hook(split, with_kwargs=True),
        model.proj_out.register_forward_pre_hook(select),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def rows_added(embedding: nn.Embedding) -> Iterator[None]:
    """Inside this block a backward pass adds the embedding's gradient to its weights' row by row.

    The projection has the same weights, and its gradient is dense and there first. torch would add the two in new memory of that size, which is a
    twentieth of a training step. On a CPU the sums are the same to the bit; with gradient accumulation, from the second batch of an update on, but for rounding.
    """

    def look_up(_: nn.Module, args: tuple[torch.Tensor], found: torch.Tensor) -> torch.Tensor:
        tokens = args[0].flatten()
        taken = tokens != embedding.padding_idx  # of that one nothing is learned

        def add(gradient: torch.Tensor) -> None:
            whole = embedding.weight.grad
            assert whole is not None, "the projection's"
            whole.index_add_(0, tokens[taken], gradient.flatten(0, 1)[taken])

        rows = found.detach()
        if torch.is_grad_enabled():
            rows.requires_grad_().register_hook(add)
        return rows

    hook = embedding.register_forward_hook(look_up)
    try:
        yield
    finally:
        hook.remove()
