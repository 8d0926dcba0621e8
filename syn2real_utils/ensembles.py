"""Ways to make one task vector of several: pure tensor functions, each with its paper.

Each takes the same elements of n vectors as one tensor (n, elements), so that vectors can be streamed (merging.py). What a rule
has to know of whole vectors comes first: their inner products, or the magnitude that a share of their elements reaches.
"""

import hashlib

import torch
from torch import Tensor


def weighted(taus: Tensor, weights: Tensor) -> Tensor:
    """sum over d of w_d tau_d; with w_d = 1/n the mean of Su et al. (EMNLP 2024), equation (3) of vectors.py.

    Args:
        taus: (n, elements).
        weights: (n,).

    Returns:
        (elements,).
    """
    return weights.to(taus.dtype) @ taus


def norm_weights(products: Tensor) -> Tensor:
    """w_d = m / (n |tau_d|), m the mean of all |tau_d|: every direction counts alike, however long its vector is. Our choice.

    Args:
        products: inner products of the vectors, (n, n).
    """
    norms = products.diagonal().sqrt()
    shares = torch.where(norms > 0, norms.mean() / norms, 0.0)
    return shares / len(norms)


def similarity_weights(products: Tensor) -> Tensor:
    """w_d = max(0, c_d) / sum of them, c_d the cosine of tau_d and the sum of the others; alike where all are 0. Our choice.

    A domain whose vector points where those of no other domain point counts little. Nothing of the target is looked at.

    Args:
        products: inner products of the vectors, (n, n).
    """
    norms = products.diagonal()
    others = products.sum() - 2 * products.sum(1) + norms  # |sum of the others|^2
    length = (norms * others.clamp_min(0)).sqrt()
    cosines = torch.where(length > 0, (products.sum(1) - norms) / length, 0.0).clamp_min(0)
    return cosines / cosines.sum() if cosines.sum() > 0 else torch.full_like(cosines, 1 / len(cosines))


def threshold(magnitudes: Tensor, density: float) -> float:
    """The smallest magnitude among the share `density` of a vector's elements that are largest: where TIES trims it.

    Args:
        magnitudes: |tau| of a whole vector, flat.
        density: k of the paper as a share, above 0 and at most 1.
    """
    kept = max(1, round(density * magnitudes.numel()))
    return torch.kthvalue(magnitudes, magnitudes.numel() - kept + 1).values.item()


def ties(taus: Tensor, thresholds: Tensor) -> Tensor:
    """TIES-merging (Yadav et al., NeurIPS 2023, arXiv 2306.01708), algorithm 1: trim, elect a sign, mean of those that have it.

    Trim: of each vector its largest elements stay (`threshold` over the whole vector, as in the paper). Elect: gamma = sign of
    the sum of what stays. Merge: tau = mean over the vectors whose element has the sign gamma; 0 where none has.

    Args:
        taus: (n, elements).
        thresholds: of each vector, (n,).

    Returns:
        (elements,).
    """
    trimmed = torch.where(taus.abs() >= thresholds.to(taus.dtype)[:, None], taus, 0.0)
    gamma = trimmed.sum(0).sign()
    agree = (trimmed.sign() == gamma) & (trimmed != 0)
    return torch.where(agree, trimmed, 0.0).sum(0) / agree.sum(0).clamp_min(1)


def dare(taus: Tensor, density: float, dice: torch.Generator) -> Tensor:
    """Mean after DARE (Yu et al., ICML 2024, arXiv 2311.03099), equation (1): drop at random, rescale by 1 / (1 - p).

    Each element of each vector stays with probability `density` = 1 - p, and is divided by it.

    Args:
        taus: (n, elements).
        density: the share that stays.
        dice: where chance comes from; see `dice`.

    Returns:
        (elements,).
    """
    kept = torch.rand(taus.shape, generator=dice) < density
    return torch.where(kept, taus / density, 0.0).mean(0)


def dice(seed: int, name: str, start: int) -> torch.Generator:
    """Chance for the elements from `start` on of the parameter `name`: the same in whatever order pieces are made."""
    digest = hashlib.sha256(f"{seed} {name} {start}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
