"""Ensembles of task vectors: the rules against examples by hand, and streamed from folders."""

import pytest
import torch

from syn2real_utils import checkpoints, ensembles, merging
from syn2real_utils.parameters import MismatchError
from syn2real_utils.vectors import TaskVector
from tests.test_checkpoints import make


def test_ties_trims_elects_a_sign_and_takes_the_mean_of_those_that_have_it():
    taus = torch.tensor(
        [
            [0.9, -0.1, 0.5, 0.0, -0.6],
            [0.8, 0.2, -0.7, 0.1, 0.0],
            [-0.3, 0.1, 0.6, 0.4, 0.6],
        ]
    )
    thresholds = torch.tensor([ensembles.threshold(tau.abs(), 0.6) for tau in taus])
    assert thresholds.tolist() == pytest.approx([0.5, 0.2, 0.4])  # the third largest of five
    # trimmed: .9 0 .5 0 -.6 | .8 .2 -.7 0 0 | 0 0 .6 .4 .6; signs elected + + + + 0
    assert ensembles.ties(taus, thresholds).tolist() == pytest.approx([0.85, 0.2, 0.55, 0.4, 0.0])


def test_ties_of_one_vector_at_full_density_is_the_vector():
    tau = torch.randn(1, 100)
    assert ensembles.threshold(tau[0].abs(), 1.0) == tau.abs().min()
    assert torch.equal(ensembles.ties(tau, torch.zeros(1)), tau[0])


def test_dare_drops_rescales_and_keeps_the_mean_and_its_chance_is_seeded():
    taus = torch.tensor([[1.0], [3.0]]).expand(2, 40_000)
    found = ensembles.dare(taus, 0.25, ensembles.dice(0, "a", 0))
    assert {round(v, 4) for v in found.unique().tolist()} == {0.0, 2.0, 6.0, 8.0}  # 1/.25/2, 3/.25/2, both
    assert found.mean().item() == pytest.approx(2.0, abs=0.06)
    assert torch.equal(found, ensembles.dare(taus, 0.25, ensembles.dice(0, "a", 0)))
    for other in ((1, "a", 0), (0, "b", 0), (0, "a", 1)):
        assert not torch.equal(found, ensembles.dare(taus, 0.25, ensembles.dice(*other)))
    assert torch.equal(ensembles.dare(taus, 1.0, ensembles.dice(0, "a", 0)), taus.mean(0))


def test_norm_weights_give_every_direction_the_same_length():
    taus = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    weights = ensembles.norm_weights(taus @ taus.T)
    assert weights.tolist() == pytest.approx([1 / 3, 1.0])  # mean norm 2, over n |tau|
    assert ensembles.weighted(taus, weights).tolist() == pytest.approx([1.0, 1.0])
    assert ensembles.norm_weights(torch.zeros(2, 2)).tolist() == [0.0, 0.0]


def test_similarity_weights_leave_out_what_points_away_from_the_others():
    taus = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])
    # cosines with the sum of the others: (0, 1) -> 0; (0, 0) -> undefined, 0; (2, 1) -> negative, 0: all alike then
    assert ensembles.similarity_weights(taus @ taus.T).tolist() == pytest.approx([1 / 3] * 3)
    taus = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    # with (1, 2): 1/sqrt 5; with (2, 1): 1/sqrt 5; with (1, 1): 1
    weights = ensembles.similarity_weights(taus @ taus.T)
    total = 1 + 2 / 5**0.5
    assert weights.tolist() == pytest.approx([1 / 5**0.5 / total, 1 / 5**0.5 / total, 1 / total])


@pytest.fixture
def pairs(tmp_path):
    return [(make(tmp_path / f"r{i}", 2 * i), make(tmp_path / f"s{i}", 2 * i + 1)) for i in range(3)]


@pytest.fixture
def taus(pairs):
    states = [[checkpoints.load_state(folder) for folder in pair] for pair in pairs]
    return [TaskVector.between(syn, real) for real, syn in states]


def flat(vector: TaskVector) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in vector.tensors.values()])


def test_streamed_rules_are_the_rules_on_whole_vectors(pairs, taus, monkeypatch):
    monkeypatch.setattr(merging, "CHUNK", 100)  # so that most parameters come in several pieces
    whole = torch.stack([flat(tau) for tau in taus])
    products = whole.double() @ whole.double().T
    thresholds = torch.tensor([ensembles.threshold(row.abs(), 0.2) for row in whole])
    expected = {
        "norm-weighted": ensembles.weighted(whole, ensembles.norm_weights(products)),
        "similarity-weighted": ensembles.weighted(whole, ensembles.similarity_weights(products)),
        "ties": ensembles.ties(whole, thresholds),
    }
    for rule, wanted in expected.items():
        found = merging.merged(rule, pairs, 0.2)
        assert found.shapes() == taus[0].shapes() and torch.allclose(flat(found), wanted, atol=1e-6), rule
    kept = (flat(merging.merged("ties", pairs, 0.2)) != 0).float().mean()
    assert 0.3 < kept < 1 - 0.8**3  # of each a fifth, mostly not the same


def test_dare_from_folders_is_the_same_again_and_another_with_another_seed(pairs, taus):
    one, same, other = (flat(merging.merged("dare", pairs, 0.5, seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    mean = flat(TaskVector.mean(taus))
    assert torch.cosine_similarity(one, mean, dim=0) > 0.6  # of independent vectors at p = 0.5: about 1 / sqrt 2


def test_models_that_do_not_belong_together_are_refused(pairs, tmp_path):
    with pytest.raises(MismatchError, match="model.decoder"):
        merging.merged("ties", [*pairs, (make(tmp_path / "x", 1, 32), make(tmp_path / "y", 2, 32))], 0.2)
