"""The algebra of task vectors, against plain torch arithmetic and real modules."""

import math
import operator

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from syn2real_utils.errors import UserError
from syn2real_utils.parameters import MismatchError, snapshot
from syn2real_utils.vectors import TaskVector


def state(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A random state with all that a vector must leave alone."""
    dice = torch.Generator().manual_seed(seed)
    tensors = {
        "model.encoder.conv.weight": torch.randn(4, 3, generator=dice).to(dtype),
        "model.decoder.fc.bias": torch.randn(5, generator=dice).to(dtype),
        "lm_head.weight": torch.randn(2, 5, generator=dice).to(dtype),
        "model.encoder.norm.running_mean": torch.randn(4, generator=dice),
        "model.encoder.norm.running_var": torch.rand(4, generator=dice),
        "model.encoder.norm.num_batches_tracked": torch.tensor(seed),
        "model.decoder.position_ids": torch.arange(3) + seed,
    }
    tensors["model.encoder.conv.weight"][0, 0] = -0.0  # -0 + 0 * tau would be +0
    return tensors


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states hold the same bytes."""
    views = ((a[k].reshape(-1).view(torch.uint8), b[k].reshape(-1).view(torch.uint8)) for k in b)
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype for k in b) and all(torch.equal(*v) for v in views)


@pytest.fixture
def real() -> dict[str, torch.Tensor]:
    """theta_real_source."""
    return state(1)


@pytest.fixture
def syn() -> dict[str, torch.Tensor]:
    """theta_syn_source."""
    return state(2)


@pytest.fixture
def tau(real, syn) -> TaskVector:
    """Their difference."""
    return TaskVector.between(syn, real)


def test_vector_is_real_minus_syn_over_parameters_only(tau, real, syn):
    assert list(tau.tensors) == ["lm_head.weight", "model.decoder.fc.bias", "model.encoder.conv.weight"]
    for name, tensor in tau.tensors.items():
        assert torch.equal(tensor, real[name] - syn[name]) and tensor.dtype == torch.float32


def test_apply_is_the_equation_and_leaves_statistics_and_integers_to_the_base(tau, real, syn):
    target = state(3)
    kept = {key: tensor.clone() for key, tensor in target.items()}
    adapted = tau.apply(target, 0.4)
    for key, tensor in adapted.items():
        expected = target[key] + 0.4 * (real[key] - syn[key]) if key in tau.tensors else target[key]
        assert torch.equal(tensor, expected), key
        assert tensor.data_ptr() != target[key].data_ptr()  # training the adapted model leaves the base alone
    assert same_bits(target, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_lam_0_is_the_base_bit_for_bit_and_types_stay(tau, dtype):
    base = state(3, dtype)
    assert same_bits(tau.apply(base, 0), base)
    moved = tau.apply(base, 0.5)
    for name, tensor in tau.tensors.items():
        assert moved[name].dtype == dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert torch.equal(moved[name], (base[name].to(wide) + 0.5 * tensor).to(dtype))


def test_half_precision_models_are_subtracted_in_float32():
    real, syn = {"a": torch.tensor([1.0]).half()}, {"a": torch.tensor([0.0004]).half()}
    assert TaskVector.between(syn, real).tensors["a"] == real["a"].float() - syn["a"].float()


def test_algebra(tau, syn, real):
    other = TaskVector.between(state(4), state(5))
    for name, tensor in tau.tensors.items():
        assert torch.allclose((tau + other - other).tensors[name], tensor, atol=1e-6)
        assert torch.allclose(tau.apply(syn, 1)[name], real[name], atol=1e-6)
        assert torch.equal((tau - other).tensors[name], tensor - other.tensors[name])
        assert torch.equal((-tau).tensors[name], -tensor)
        assert torch.equal((0.3 * tau).tensors[name], (tau * 0.3).tensors[name])
        assert torch.equal(TaskVector.sum([tau, other, tau]).tensors[name], tensor + other.tensors[name] + tensor)
        assert torch.allclose(TaskVector.mean(v for v in (tau, other)).tensors[name], (tau + other).tensors[name] / 2)
    assert same_bits(TaskVector.mean([tau]).tensors, tau.tensors)


def test_norms_and_cosines_by_module(tau):
    flat = torch.cat([t.flatten() for t in tau.tensors.values()]).double()
    assert tau.norm() == pytest.approx(flat.norm().item())
    assert set(tau.norms()) == {"all", "encoder", "decoder", "lm_head"}
    assert tau.norms()["encoder"] == pytest.approx(tau.tensors["model.encoder.conv.weight"].norm().item())
    assert tau.cosine(tau * 3) == pytest.approx(1) and tau.cosine(-tau) == pytest.approx(-1)
    mixed = TaskVector({name: -t if "decoder" in name else t for name, t in tau.tensors.items()})
    assert mixed.cosines(tau)["decoder"] == pytest.approx(-1) and mixed.cosines(tau)["encoder"] == pytest.approx(1)
    assert math.isnan(tau.cosine(tau * 0)) and math.isnan((tau * 0).cosines(tau)["decoder"])
    assert (tau * 1e-25).cosine(tau) == pytest.approx(1)  # squares would vanish in float32


def test_sweep_writes_into_the_model_without_drift():
    model = torch.nn.ModuleDict({"model": torch.nn.Linear(3, 2), "norm": torch.nn.BatchNorm1d(2)})
    base = snapshot(model.state_dict())
    vector = TaskVector.between(base, {key: (2 * tensor + 1).to(tensor.dtype) for key, tensor in base.items()})
    before = {key: tensor.data_ptr() for key, tensor in model.state_dict().items()}
    for lam in (0.1, 0.7, 1.0, 0.3):
        vector.write_into(model.state_dict(), base, lam)
        assert same_bits(model.state_dict(), vector.apply(base, lam))
    vector.write_into(model.state_dict(), base, 0)
    assert same_bits(model.state_dict(), base)
    assert before == {key: tensor.data_ptr() for key, tensor in model.state_dict().items()}


def test_sweep_refuses_a_base_that_it_would_overwrite_or_that_is_not_the_models(tau):
    model = state(3)
    with pytest.raises(MismatchError, match="shares memory"):
        tau.write_into(model, model, 0.1)
    short = {key: tensor.clone() for key, tensor in model.items() if key != "lm_head.weight"}
    with pytest.raises(MismatchError, match="lm_head.weight"):
        tau.write_into(model, short, 0.1)
    with pytest.raises(MismatchError, match="lm_head.weight"):
        tau.write_into(short, state(3), 0.1)


def test_tied_tensors_count_and_move_once():
    embedding = torch.randn(4, 3)
    tied = {"model.decoder.embed_tokens.weight": embedding, "proj_out.weight": embedding}
    other = embedding + 1
    tau = TaskVector.between(tied, {"model.decoder.embed_tokens.weight": other, "proj_out.weight": other})
    assert list(tau.tensors) == ["model.decoder.embed_tokens.weight"]
    copy = snapshot(tied)
    assert copy["proj_out.weight"].data_ptr() == copy["model.decoder.embed_tokens.weight"].data_ptr()
    tau.write_into(tied, copy, 1.0)
    assert torch.allclose(tied["proj_out.weight"], other)
    assert torch.allclose(tau.apply(copy, 1.0)["proj_out.weight"], other)


def test_weight_normed_convolutions_move_by_their_weight():
    torch.manual_seed(0)
    real, syn, target = (
        torch.nn.ModuleDict({"conv": weight_norm(torch.nn.Conv1d(4, 4, 3), name="weight", dim=2)}) for _ in range(3)
    )
    with torch.no_grad():
        for model in (real, syn, target):  # a trained g is not the norm of v
            model["conv"].parametrizations.weight.original0.mul_(torch.rand(1, 1, 3) + 0.5)
    expected = target["conv"].weight + 0.5 * (real["conv"].weight - syn["conv"].weight)
    tau = TaskVector.between(syn.state_dict(), real.state_dict())
    assert set(tau.tensors) == {"conv.bias", "conv.weight"}
    base = snapshot(target.state_dict())
    tau.write_into(target.state_dict(), base, 0.5)
    assert torch.allclose(target["conv"].weight, expected, atol=1e-6)
    assert same_bits(tau.apply(base, 0), base)


@pytest.mark.parametrize("change", ["key", "shape", "dtype"])
def test_mismatches_name_the_key(tau, real, syn, change):
    name = "model.decoder.fc.bias"
    if change == "key":
        del real[name]
    else:
        real[name] = real[name][:2] if change == "shape" else real[name].half()
    with pytest.raises(MismatchError, match=name):
        TaskVector.between(syn, real)
    if change != "dtype":  # a vector may be applied to a model of another precision
        with pytest.raises(MismatchError, match=name):
            tau.apply(real, 0.1)
        with pytest.raises(MismatchError, match=name):
            tau.cosine(TaskVector({k: v for k, v in real.items() if k in tau.tensors}))
    with pytest.raises(MismatchError, match="at least one"):
        TaskVector.mean([])


@pytest.mark.parametrize("lam", ["0.4", None, True, 1j, math.nan, math.inf, -math.inf])
def test_lam_must_be_a_finite_number(tau, syn, lam):
    with pytest.raises((TypeError, ValueError), match="number such as"):
        tau.apply(syn, lam)
    with pytest.raises((TypeError, ValueError), match="number such as"):
        tau * lam


def test_numpy_numbers_are_numbers(tau, syn):
    assert same_bits(tau.apply(syn, np.float64(0.3)), tau.apply(syn, 0.3))


def quantised(seed: int) -> dict[str, torch.Tensor]:
    """As int8 checkpoints are: the matrices are integers, the rest is float."""
    whole = state(seed)
    return whole | {"model.encoder.conv.weight": (whole["model.encoder.conv.weight"] * 40).to(torch.int8)}


def test_quantised_models_are_refused(tau, syn):
    name = "model.encoder.conv.weight"
    for base, real in ((quantised(2), quantised(1)), (quantised(2), state(1)), (state(2), quantised(1))):
        with pytest.raises(MismatchError, match=f"'{name}'.*int8"):
            TaskVector.between(base, real)
    with pytest.raises(
        MismatchError, match=f"'{name}'.* int8, which no vector moves .quantised.*give the float weights"
    ):
        TaskVector.between(quantised(2), quantised(1))
    with pytest.raises(MismatchError, match=f"'{name}' of the model is of int8.*give the float weights"):
        tau.apply(quantised(3), 0.4)
    with pytest.raises(MismatchError, match=f"'{name}' of the model is of int8"):
        tau.write_into(quantised(3), quantised(3), 0.4)


@pytest.mark.parametrize("name", ["norm.running_var", "norm.num_batches_tracked", "decoder.table"])
@pytest.mark.parametrize("change", ["missing", "too many", "shape"])
def test_what_is_no_parameter_must_be_in_both_models_in_one_shape(real, syn, name, change):
    key = next((key for key in syn if key.endswith(name)), f"model.{name}")
    real[key] = syn[key] = syn.get(key, torch.arange(6))
    assert TaskVector.between(syn, real)
    if change == "shape":
        real[key] = torch.stack([real[key], real[key]])
    else:
        del (real if change == "missing" else syn)[key]
    with pytest.raises(MismatchError, match=key):
        TaskVector.between(syn, real)


def test_a_sum_that_overflows_names_its_tensor():
    base = {"model.encoder.a": torch.tensor([1.0, 6e4]).half(), "model.encoder.b": torch.tensor([1.0]).half()}
    tau = TaskVector({"model.encoder.a": torch.tensor([1.0, 1e4]), "model.encoder.b": torch.tensor([1.0])})
    assert tau.apply(base, 0.5)["model.encoder.a"][1] == 65_000
    with pytest.raises(UserError, match="'model.encoder.a' would hold nan or inf"):
        tau.apply(base, 1.0)
    model = snapshot(base)
    with pytest.raises(UserError, match="'model.encoder.a' would hold nan or inf"):
        tau.write_into(model, base, 1.0)
    tau.write_into(model, base, 0.0)
    assert same_bits(model, base)
    broken = TaskVector(tau.tensors | {"model.encoder.b": torch.tensor([math.nan])})
    with pytest.raises(UserError, match="'model.encoder.b' would hold nan"):
        broken.apply(base, 0.1)


def test_operators_are_those_of_numbers(tau):
    other = TaskVector.between(state(4), state(5))
    assert same_bits(sum([tau, other]).tensors, (tau + other).tensors)
    assert same_bits((tau / 4).tensors, (tau * 0.25).tensors)
    half = torch.tensor(0.5)
    assert same_bits((tau * half).tensors, (tau * 0.5).tensors) and same_bits((half * tau).tensors, (tau / 2).tensors)
    assert same_bits((tau / torch.tensor(2)).tensors, (tau / 2).tensors)
    for wrong in (operator.add, operator.sub):
        for pair in ((tau, 1), (1, tau), (tau, "a"), (tau, tau.tensors)):
            with pytest.raises(TypeError, match="unsupported operand"):
                wrong(*pair)
    for wrong in (torch.ones(2), torch.tensor(True), torch.tensor(1j), tau):
        with pytest.raises(TypeError):
            tau * wrong
    with pytest.raises(ZeroDivisionError):
        tau / 0


@pytest.mark.parametrize("total", [TaskVector.sum, TaskVector.mean, sum])
def test_a_sum_of_one_has_tensors_of_its_own(tau, total):
    alone = total([tau])
    assert same_bits(alone.tensors, tau.tensors)
    assert all(alone.tensors[name].data_ptr() != tensor.data_ptr() for name, tensor in tau.tensors.items())


@pytest.mark.parametrize(("here", "missing"), [("weight_v", "weight_g"), ("weight_g", "weight_v")])
def test_half_of_a_weight_normed_weight_is_refused(here, missing):
    lone = {f"conv.{here}": torch.randn(4, 4, 3)}
    with pytest.raises(MismatchError, match=f"'conv.{missing}' is missing"):
        TaskVector.between(lone, lone)
    with pytest.raises(MismatchError, match=f"'conv.{missing}' is missing"):
        TaskVector({"conv.weight": torch.randn(4, 4, 3)}).apply(lone, 0.1)


def test_a_tied_state_and_an_untied_copy_of_such_belong_together():
    owner, tied = "model.decoder.embed_tokens.weight", "proj_out.weight"

    def both(seed: int) -> dict[str, torch.Tensor]:
        embedding = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        return {tied: embedding, owner: embedding}

    real, syn = both(1), both(2)
    untied = {key: tensor.clone() for key, tensor in syn.items()}
    expected = TaskVector.between(syn, real)
    assert list(expected.tensors) == [owner]
    assert same_bits(TaskVector.between(untied, real).tensors, expected.tensors)
    moved = expected.apply(untied, 1.0)
    assert list(moved) == [tied, owner] and torch.equal(moved[tied], moved[owner])
    model = both(3)
    expected.write_into(model, untied, 1.0)
    assert same_bits(model, moved)
    untied[tied] += 1
    with pytest.raises(MismatchError, match=tied):
        TaskVector.between(untied, real)
    with pytest.raises(MismatchError, match=tied):
        expected.apply(untied, 1.0)
