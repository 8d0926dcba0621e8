"""What `bench lam-sweep` takes for equal work."""

import torch

from syn2real_utils.bench.lam_sweep import TOLERANCE, _apart


def test_weights_apart_by_the_last_bit_are_equal_whatever_their_size():
    weights = torch.tensor([22.5, -1.5, 1e-4])
    assert _apart(torch.nextafter(weights, torch.tensor(torch.inf)), weights) <= TOLERANCE


def test_a_step_along_a_vector_that_is_off_by_a_hundredth_is_not_equal():
    weights, tau = torch.tensor([22.5, -1.5, 1e-4]), torch.tensor([0.0, 0.0, 1e-3])
    assert _apart(weights + 0.5 * tau, weights + 0.51 * tau) > TOLERANCE
