"""Products in a lower precision, for decoding: weights are cast once, where autocast alone casts them in every call."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from syn2real_utils.machine import Precision

MULTIPLY = (nn.Linear, nn.Conv1d)  # modules whose work is a product


@contextlib.contextmanager
def products_in(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Compute the model's products in `precision` inside the block, sums and norms in float32; its weights come back as they were.

    The projection on the tokens, which shares its weights with the embedding, is left alone.
    """
    weights = list(_factors(model)) if precision == "bfloat16" else []
    kept = [weight.data for weight in weights]
    try:
        for weight in weights:
            weight.data = weight.data.to(torch.bfloat16)
        with torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=bool(weights)):
            yield
    finally:
        for weight, data in zip(weights, kept, strict=True):
            weight.data = data


def _factors(model: nn.Module) -> Iterator[nn.Parameter]:
    tied = getattr(model, "proj_out", None)
    for module in model.modules():
        if isinstance(module, MULTIPLY) and module is not tied:
            yield from module.parameters(recurse=False)
