"""Angles and planes of directions in weight space, and the plan of a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from syn2real_utils import checkpoints, geometry, machine, paperplan, recipe
from syn2real_utils.parameters import MismatchError
from syn2real_utils.plan import Plan, plan
from syn2real_utils.profile import load_profile
from syn2real_utils.vectors import TaskVector
from tests.conftest import ROOT


def state(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {"model.encoder.a": torch.randn(3, 4), "model.decoder.b": torch.randn(7)}


def test_gram_is_the_inner_products_of_the_vectors_whole_and_by_module():
    taus = [TaskVector.between(state(i), state(i + 10)) for i in range(3)]
    found = geometry.gram([of(tau) for tau in taus])
    assert set(found) == {"all", "encoder", "decoder"}
    for i, one in enumerate(taus):
        for j, other in enumerate(taus):
            cosines = one.cosines(other)
            for module, products in found.items():
                assert geometry.cosines(products)[i, j] == pytest.approx(cosines[module], abs=1e-6)
        assert found["all"][i, i] ** 0.5 == pytest.approx(one.norm(), rel=1e-6)
    assert np.allclose(found["all"], found["encoder"] + found["decoder"])


def test_gram_in_chunks_is_the_same(monkeypatch):
    taus = [of(TaskVector.between(state(i), state(i + 10))) for i in range(3)]
    whole = geometry.gram(taus)["all"]
    monkeypatch.setattr(geometry, "CHUNK", 5)
    assert np.allclose(geometry.gram(taus)["all"], whole)


def of(tau: TaskVector) -> geometry.Difference:
    return geometry.Difference(tau.shapes(), lambda name, start, stop: iter([tau.tensors[name].flatten()[start:stop]]))


def saved(folder: Path, **states: dict[str, torch.Tensor]) -> dict[str, Path]:
    """Model folders."""
    for name, tensors in states.items():
        (folder / name).mkdir(parents=True)
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
    return {name: folder / name for name in states}


def plane(folders: dict[str, Path]) -> dict[str, tuple[float, float, float]]:
    start = folders["syn_source"]
    others = {name: folder for name, folder in folders.items() if folder != start}
    return geometry.plane({name: checkpoints.difference(start, folder) for name, folder in others.items()})


def test_models_that_differ_are_refused(tmp_path):
    other = state(1) | {"model.encoder.a": torch.randn(3, 5)}
    folders = saved(tmp_path, one=state(0), other=other)
    with pytest.raises(MismatchError, match=r"model.encoder.a"):
        checkpoints.difference(folders["one"], folders["other"])
    taus = [TaskVector.between(state(0), state(2)), TaskVector.between(other, other)]
    with pytest.raises(MismatchError, match=r"model.encoder.a"):
        geometry.gram([of(tau) for tau in taus])


@pytest.mark.parametrize("swapped", [False, True])
def test_a_weight_that_is_normed_in_one_model_alone_is_compared_whole(tmp_path, swapped):
    torch.manual_seed(0)
    plain, g, v = torch.randn(4, 3, 2), torch.rand(1, 1, 2) + 0.5, torch.randn(4, 3, 2)
    normed = {"wav2vec2.encoder.pos.weight_g": g, "wav2vec2.encoder.pos.weight_v": v}
    folders = saved(tmp_path, plain={"wav2vec2.encoder.pos.weight": plain}, normed=normed)
    wanted = plain - v * g / v.norm(dim=(0, 1), keepdim=True)
    base, moved = ("plain", "normed") if swapped else ("normed", "plain")
    found = checkpoints.difference(folders[base], folders[moved])
    (piece,) = found.pieces("wav2vec2.encoder.pos.weight", 0, 24)
    torch.testing.assert_close(piece, (-wanted if swapped else wanted).flatten())


def test_pretrained_weights_may_be_of_a_lower_precision_than_what_is_made_of_them(tmp_path):
    """As large models are published. A vector between two such is refused still: one of them would be rounded."""
    half = {name: tensor.half() for name, tensor in state(0).items()}
    three = {"syn_source": state(1), "real_source": state(2), "syn_target": state(3)}
    found = plane(saved(tmp_path / "half", **three, pretrained=half))
    whole = plane(saved(tmp_path / "whole", **three, pretrained=state(0)))
    assert found["pretrained"] == pytest.approx(whole["pretrained"], rel=1e-3)
    with pytest.raises(MismatchError, match="float16"):
        TaskVector.between(half, state(1))


def test_adapted_lies_in_the_plane_lam_times_tau_beside_syn_target(tmp_path):
    syn, real, target = state(0), state(1), state(2)
    tau = TaskVector.between(syn, real)
    models = {"syn_source": syn, "real_source": real, "syn_target": target, "adapted": tau.apply(target, 0.5)}
    found = plane(saved(tmp_path, **models, pretrained=state(3)))
    assert found["syn_source"] == (0, 0, 0)
    assert found["real_source"] == pytest.approx((tau.norm(), 0, 0), abs=1e-4)
    x, y, away = found["adapted"]
    assert (x, y) == pytest.approx((found["syn_target"][0] + 0.5 * tau.norm(), found["syn_target"][1]), rel=1e-4)
    assert away == pytest.approx(0, abs=1e-3) and found["pretrained"][2] > 0.1
    length = TaskVector.between(syn, models["syn_target"]).norm()
    assert np.hypot(*found["syn_target"][:2]) == pytest.approx(length, rel=1e-5)


def test_plan_counts_the_work():
    names = [("animals", 6), ("food", 4), ("household", 4)]
    rows = [{"domain": d, "text_id": f"{d}{i}"} for d, n in names for i in range(n)]
    found = plan(load_profile(ROOT / "tests" / "smoke.yaml"), pd.DataFrame(rows))
    assert found.models == 17, "3 pooled, 2 x 3 of single domains, 2 x 2 targets, 2 x 2 that choose lam"
    assert found.spoken == {"kokoro": 14, "pico": 14} and found.notebooks == 9
    # 8 real + 2 x 8 pooled, the same of single domains, 2 x 2 x 3 of the target, 2 x 4 that choose lam
    assert found.trained == 24 + 24 + 12 + 8
    # real_source, 2 x syn_source, syn_target and both sweeps from it; what chooses lam; the exported models on half of the clips
    assert found.decoded == 6 * (1 + 2 * (1 + 1 + 2 + 1)) + 2 * 4 * (1 + 2) + 2 * 3
    alone = plan(load_profile(ROOT / "tests" / "smoke.yaml", {"evaluation.ensembles": []}), pd.DataFrame(rows))
    assert alone.decoded == found.decoded - 6 * 2 * 1 - 2 * 4 and alone.models == found.models
    assert found.decoded_full == 6 + 2 * 3, "pretrained, and the exported models at 30 s"
    assert 0 < found.hours < 1 and "17 models" in found.line() and "not measured" not in found.line()
    more = replace(found, spoken=found.spoken | {"bark": 14})
    assert more.hours == found.hours
    assert "hours on two cores and the time that bark speaks, not measured here" in more.line()


def test_estimates_say_where_they_do_not_hold(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lines = []
    for precision in ("bfloat16", "float32"):
        monkeypatch.setattr(machine, "precision", lambda wanted, own=precision: own)
        paper = paperplan.estimate(load_profile("paper-table2"), 1)
        lines.append([Plan().line(), recipe.Estimate(5, 1, 9).line(), "\n".join(paper.lines())])
    assert ["times as long" in line for line in lines[0]] == [False] * 3
    assert ["times as long" in line for line in lines[1]] == [True, True, paper.speed is paperplan.CPU]
