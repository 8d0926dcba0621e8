"""Models and vectors on disk, with tiny random Whispers that transformers itself saves and opens."""

import json
import math
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from syn2real_utils import checkpoints, store, tensorfiles
from syn2real_utils.checkpoints import Lineage
from syn2real_utils.errors import UserError
from syn2real_utils.vectors import TaskVector

CONFIG = {
    "vocab_size": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_source_positions": 20,
    "max_target_positions": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def make(folder: Path, seed: int, size: int = 16, dtype: torch.dtype = torch.float32, **save: object) -> Path:
    """A random Whisper of width `size` as a `save_pretrained` folder."""
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(WhisperConfig(d_model=size, **CONFIG)).to(dtype)
    model.save_pretrained(folder, **save)
    return folder


def trained(folder: Path, seed: int, parent: Path, speech: str, domains: list[str], moved=make, **how: object) -> Path:
    """As `make`, or another function of folder and seed, with the lineage of a fine-tuned model."""
    moved(folder, seed, **how)
    lineage = Lineage(
        kind="model",
        architecture=checkpoints.architecture(folder),
        parent=checkpoints.weights_hash(parent),
        corpus="tuxpaint-es",
        speech=speech,
        domains=domains,
        seed=0,
    )
    checkpoints.write_lineage(folder, lineage)
    return folder


@pytest.fixture
def models(tmp_path) -> dict[str, Path]:
    """Pretrained, real_source, syn_source and syn_target of one family."""
    pretrained = make(tmp_path / "pretrained", 0)
    return {
        "pretrained": pretrained,
        "real": trained(tmp_path / "real", 1, pretrained, "real", ["food", "town"]),
        "syn": trained(tmp_path / "syn", 2, pretrained, "kokoro", ["food", "town"]),
        "target": trained(tmp_path / "target", 3, pretrained, "kokoro", ["animals"]),
    }


@pytest.fixture
def tau(models, tmp_path) -> Path:
    """The vector real - syn on disk."""
    checkpoints.subtract(models["real"], models["syn"], tmp_path / "tau")
    return tmp_path / "tau"


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(match: str, function, *arguments: object, **options: object) -> None:
    """The call must end in one line that matches, and leave the folder of its output as it was."""
    workplace = Path(str(arguments[0] if not isinstance(arguments[0], list) else arguments[0][0])).parent
    before = contents(workplace)
    with pytest.raises(UserError, match=match) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert contents(workplace) == before
    assert not [p for p in workplace.iterdir() if p.name.endswith((".partial", ".old"))]


def test_adapted_is_the_equation_and_transformers_opens_it(models, tau, tmp_path):
    (models["target"] / "tokenizer.json").write_text("{}")
    (models["target"] / "training_args.bin").write_bytes(b"a pickle")
    checkpoints.apply(models["target"], tau, 0.4, tmp_path / "adapted")
    real, syn, target = (load_file(models[m] / "model.safetensors") for m in ("real", "syn", "target"))
    adapted = load_file(tmp_path / "adapted" / "model.safetensors")
    assert adapted.keys() == target.keys() and "proj_out.weight" not in adapted
    for key in target:
        assert torch.equal(adapted[key], target[key] + 0.4 * (real[key] - syn[key])), key
    files = {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors", "lineage.json"}
    assert set(contents(tmp_path / "adapted")) == files

    model, report = WhisperForConditionalGeneration.from_pretrained(tmp_path / "adapted", output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        out = model(input_features=torch.randn(1, 80, 40), decoder_input_ids=torch.tensor([[1, 5, 6]]))
    assert out.logits.shape == (1, 3, 64) and out.logits.isfinite().all()
    assert torch.equal(model.proj_out.weight, adapted["model.decoder.embed_tokens.weight"])


def test_a_running_model_swept_in_memory_equals_the_folder(models, tau, tmp_path):
    checkpoints.apply(models["target"], tau, 0.7, tmp_path / "adapted")
    model = WhisperForConditionalGeneration.from_pretrained(models["target"])
    vector, _ = checkpoints.load_vector(tau)
    base = checkpoints.load_state(models["target"])
    vector.write_into(model.state_dict(), base, 0.2)
    vector.write_into(model.state_dict(), base, 0.7)
    for key, tensor in load_file(tmp_path / "adapted" / "model.safetensors").items():
        assert torch.equal(model.state_dict()[key], tensor), key
    assert torch.equal(model.proj_out.weight, model.model.decoder.embed_tokens.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lam_0_is_the_base_byte_for_byte(models, tmp_path, dtype):
    parent = models["pretrained"]
    for name, seed in (("r", 1), ("s", 2), ("t", 3)):
        trained(tmp_path / name, seed, parent, "real", ["food"], dtype=dtype)
    checkpoints.subtract(tmp_path / "r", tmp_path / "s", tmp_path / "v")
    checkpoints.apply(tmp_path / "t", tmp_path / "v", 0, tmp_path / "same")
    assert contents(tmp_path / "same")["model.safetensors"] == contents(tmp_path / "t")["model.safetensors"]
    assert {t.dtype for t in load_file(tmp_path / "v" / "vector.safetensors").values()} == {torch.float32}


def test_shards_are_read_kept_and_hash_as_one_file(models, tau, tmp_path):
    sharded = trained(tmp_path / "sharded", 3, models["pretrained"], "kokoro", ["animals"], max_shard_size="8KB")
    shards = sorted(p.name for p in sharded.glob("model*"))
    assert len(shards) > 3
    assert checkpoints.weights_hash(sharded) == checkpoints.weights_hash(models["target"])
    assert checkpoints.weights_hash(sharded) != checkpoints.weights_hash(models["pretrained"])
    checkpoints.apply(models["target"], tau, 0.3, tmp_path / "one")
    checkpoints.apply(sharded, tau, 0.3, tmp_path / "many")
    assert sorted(p.name for p in (tmp_path / "many").glob("model*")) == shards
    assert checkpoints.weights_hash(tmp_path / "many") == checkpoints.weights_hash(tmp_path / "one")
    _model, report = WhisperForConditionalGeneration.from_pretrained(tmp_path / "many", output_loading_info=True)
    assert not any(report.values())


def test_a_tied_tensor_that_lies_in_the_file_twice_is_one(models, tau, tmp_path):
    twice = make(tmp_path / "twice", 3)
    state = load_file(twice / "model.safetensors")
    both = state | {"proj_out.weight": state["model.decoder.embed_tokens.weight"].clone()}
    save_file(both, twice / "model.safetensors", metadata={"format": "pt"})
    assert checkpoints.weights_hash(twice) == checkpoints.weights_hash(models["target"])
    (twice / "lineage.json").write_text((models["target"] / "lineage.json").read_text())
    checkpoints.apply(twice, tau, 0.3, tmp_path / "adapted")
    adapted = load_file(tmp_path / "adapted" / "model.safetensors")
    assert torch.equal(adapted["proj_out.weight"], adapted["model.decoder.embed_tokens.weight"])
    assert not torch.equal(adapted["proj_out.weight"], both["proj_out.weight"])


def test_conformer_keeps_its_batch_statistics_and_moves_its_position_convolution(tmp_path):
    config = Wav2Vec2ConformerConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8, 8),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        vocab_size=12,
    )
    models = {}
    for seed, name in enumerate(("real", "syn", "target")):
        torch.manual_seed(seed)
        models[name] = Wav2Vec2ConformerForCTC(config)
        conformer = models[name].wav2vec2_conformer.encoder
        conformer.layers[0].conv_module.batch_norm.running_var.fill_(0.1 + seed)  # real - syn is negative
        with torch.no_grad():
            conformer.pos_conv_embed.conv.parametrizations.weight.original0.mul_(1.5 + seed)
        models[name].save_pretrained(tmp_path / name)
    checkpoints.subtract(tmp_path / "real", tmp_path / "syn", tmp_path / "tau")
    checkpoints.apply(tmp_path / "target", tmp_path / "tau", 1.0, tmp_path / "adapted")
    adapted, report = Wav2Vec2ConformerForCTC.from_pretrained(tmp_path / "adapted", output_loading_info=True)
    assert not any(report.values())
    statistics = [m.wav2vec2_conformer.encoder.layers[0].conv_module.batch_norm for m in (adapted, models["target"])]
    assert torch.equal(statistics[0].running_var, statistics[1].running_var)
    real, syn, target, new = (
        m.wav2vec2_conformer.encoder.pos_conv_embed.conv.weight for m in (*models.values(), adapted)
    )
    assert torch.allclose(new, target + real - syn, atol=1e-6)
    norms = checkpoints.info(tmp_path / "tau")["norms"]
    assert {"all", "feature_extractor", "feature_projection", "encoder", "lm_head"} <= set(norms)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_streamed_in_pieces_is_what_the_algebra_gives_in_memory(tmp_path, dtype):
    def values(seed: int) -> dict[str, torch.Tensor]:
        dice = torch.Generator().manual_seed(seed)
        long = torch.randn(tensorfiles.SPAN + 2 * tensorfiles.PIECE + 13, generator=dice)  # two threads, odd ends
        other = {"model.encoder.wide": torch.randn(3, 70_001, generator=dice), "model.encoder.one": torch.tensor(0.5)}
        kept = {"model.encoder.norm.running_var": torch.rand(7), "model.encoder.steps": torch.arange(5)}
        empty = {"model.encoder.none": torch.empty(0, 4)}
        return {"model.decoder.long": long.to(dtype)} | {k: t.to(dtype) for k, t in (other | empty).items()} | kept

    states = {name: values(seed) for seed, name in enumerate(("real", "syn", "target"))}
    for name, state in states.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "long"}')
        save_file(state, tmp_path / name / "model.safetensors")
    tau = TaskVector.between(states["syn"], states["real"])
    other = TaskVector.between(states["target"], states["real"])
    checkpoints.subtract(tmp_path / "real", tmp_path / "syn", tmp_path / "tau")
    checkpoints.subtract(tmp_path / "real", tmp_path / "target", tmp_path / "other")
    checkpoints.mean([tmp_path / "tau", tmp_path / "other"], tmp_path / "mean")
    checkpoints.apply(tmp_path / "target", tmp_path / "tau", 0.3, tmp_path / "adapted")
    for made, expected in (
        ("tau/vector", tau.tensors),
        ("mean/vector", TaskVector.mean([tau, other]).tensors),
        ("adapted/model", tau.apply(states["target"], 0.3)),
    ):
        found = load_file(tmp_path / f"{made}.safetensors")
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor), (made, key)


def test_large_numbers_pass_and_a_nan_in_the_last_piece_does_not(tmp_path):
    for name in ("real", "syn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "long"}')
    state = {"a": torch.zeros(2 * tensorfiles.SPAN + 5)}
    save_file(state, tmp_path / "syn" / "model.safetensors")
    state["a"][-1] = 1e38  # its square is no float32
    save_file(state, tmp_path / "real" / "model.safetensors")
    checkpoints.subtract(tmp_path / "real", tmp_path / "syn", tmp_path / "tau")
    assert load_file(tmp_path / "tau" / "vector.safetensors")["a"][-1] == 1e38
    refused("would hold nan or inf", checkpoints.apply, tmp_path / "real", tmp_path / "tau", 9.0, tmp_path / "out")
    state["a"][-1] = float("nan")
    save_file(state, tmp_path / "real" / "model.safetensors")
    refused("would hold nan", checkpoints.subtract, tmp_path / "real", tmp_path / "syn", tmp_path / "out")


def test_same_input_same_bytes(models, tau, tmp_path):
    checkpoints.subtract(models["real"], models["syn"], tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tau)
    vector, lineage = checkpoints.load_vector(tau)
    checkpoints.save_vector(tmp_path / "saved", vector, lineage)
    assert contents(tmp_path / "saved") == contents(tau)


def test_lineage_tells_where_a_model_comes_from(models, tau, tmp_path):
    _, lineage = checkpoints.load_vector(tau)
    assert (lineage.kind, lineage.tts, lineage.speech, lineage.domains) == ("vector", "kokoro", None, ("food", "town"))
    assert lineage.parent == checkpoints.weights_hash(models["pretrained"])
    assert [part.speech for part in lineage.parts] == ["real", "kokoro"]
    written = checkpoints.apply(models["target"], tau / "vector.safetensors", "0.4", tmp_path / "adapted")
    assert checkpoints.read_lineage(tmp_path / "adapted") == written
    assert (written.kind, written.lam, written.domains, written.speech) == ("model", 0.4, ("animals",), "kokoro")
    assert written.parts == (checkpoints.read_lineage(models["target"]), lineage)
    # an adapted model is of the same family: it can be adapted, and subtracted, again
    checkpoints.apply(tmp_path / "adapted", tau, -0.4, tmp_path / "back")
    checkpoints.subtract(tmp_path / "adapted", models["target"], tmp_path / "step")
    assert checkpoints.cosine(tmp_path / "step", tau)["encoder"] == pytest.approx(1, abs=1e-4)


def test_the_pretrained_model_itself_can_be_the_base(models, tau, tmp_path):
    written = checkpoints.apply(models["pretrained"], tau, 0.1, tmp_path / "adapted")
    assert written.parent == checkpoints.weights_hash(models["pretrained"])


def test_models_trained_elsewhere_need_no_lineage(tmp_path):
    for name, seed in (("r", 1), ("s", 2), ("t", 3)):
        make(tmp_path / name, seed)
    checkpoints.subtract(tmp_path / "r", tmp_path / "s", tmp_path / "v")
    assert checkpoints.load_vector(tmp_path / "v")[1].parent is None
    assert checkpoints.apply(tmp_path / "t", tmp_path / "v", 0.5, tmp_path / "a").parent is None


def test_mean_is_the_mean(models, tau, tmp_path):
    checkpoints.subtract(models["real"], models["target"], tmp_path / "other")
    lineage = checkpoints.mean([tau, tmp_path / "other"], tmp_path / "mean")
    a, b, mean = (load_file(p / "vector.safetensors") for p in (tau, tmp_path / "other", tmp_path / "mean"))
    assert all(torch.equal(mean[name], (a[name] + b[name]) / 2) for name in a) and mean.keys() == a.keys()
    assert lineage.tts == "kokoro" and lineage.domains == ("animals", "food", "town") and len(lineage.parts) == 2
    checkpoints.apply(models["target"], tmp_path / "mean", 0.5, tmp_path / "ensemble")
    assert checkpoints.mean([tau], tmp_path / "alone").domains == ("food", "town")
    assert load_file(tmp_path / "alone" / "vector.safetensors").keys() == a.keys()


def test_cosine_and_info_are_plain_data(models, tau):
    assert checkpoints.cosine(tau, tau) == pytest.approx({"all": 1, "encoder": 1, "decoder": 1})
    vector, model = checkpoints.info(tau), checkpoints.info(models["target"])
    json.dumps([vector, model])
    assert vector["kind"] == "vector" and set(vector["norms"]) == {"all", "encoder", "decoder"}
    assert model["kind"] == "model" and model["weights_hash"] == checkpoints.weights_hash(models["target"])
    count = sum(t.numel() for t in load_file(models["target"] / "model.safetensors").values())
    assert vector["parameters"] == model["parameters"] == count and vector["types"] == model["types"] == ["float32"]
    assert checkpoints.info(models["pretrained"])["lineage"]["kind"] == "model"


def test_what_is_no_model_is_told_as_what_it_is(models, tmp_path):
    adapter, out = tmp_path / "adapter", tmp_path / "out"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    refused("no model at .*nope: expected a folder", checkpoints.subtract, tmp_path / "nope", models["syn"], out)
    refused("adapter holds an adapter, no model: merge it", checkpoints.subtract, adapter, models["syn"], out)
    whole = shutil.copytree(models["real"], tmp_path / "whole")
    (whole / "adapter_config.json").write_text("{}")
    assert checkpoints.architecture(whole) == checkpoints.architecture(models["real"]), "weights are there too"
    long = tmp_path / ("x" * 201)
    refused("has 201 bytes: name an output of 200 at most", checkpoints.subtract, models["real"], models["syn"], long)


def test_another_parent_size_type_or_architecture_is_refused(models, tau, tmp_path):
    out = tmp_path / "out"
    stranger = make(tmp_path / "stranger", 9)
    foreign = trained(tmp_path / "foreign", 4, stranger, "kokoro", ["animals"])
    refused("real and .*foreign come from different pretrained", checkpoints.subtract, models["real"], foreign, out)
    refused("foreign and .*tau come from different pretrained", checkpoints.apply, foreign, tau, 0.1, out)
    refused("stranger and .*tau come from different pretrained", checkpoints.apply, stranger, tau, 0.1, out)
    checkpoints.subtract(foreign, make(tmp_path / "plain", 5), tmp_path / "foreign_tau")
    refused("different pretrained", checkpoints.mean, [tau, tmp_path / "foreign_tau"], out)
    refused("different pretrained", checkpoints.cosine, tau, tmp_path / "foreign_tau")
    wide = make(tmp_path / "wide", 1, size=32)
    refused(r"wide.*'model.*' is \[.*\] in", checkpoints.subtract, models["real"], wide, out)
    refused(r"wide.*'model.*' is \[.*\] in", checkpoints.apply, wide, tau, 0.1, out)
    half = make(tmp_path / "half", 1, dtype=torch.float16)
    refused("float16", checkpoints.subtract, models["real"], half, out)
    config = json.loads((stranger / "config.json").read_text())
    (stranger / "config.json").write_text(json.dumps(config | {"architectures": ["WhisperForAudioClassification"]}))
    refused("WhisperForAudioClassification", checkpoints.apply, stranger, tau, 0.1, out)
    refused("WhisperForAudioClassification", checkpoints.subtract, stranger, models["syn"], out)


@pytest.mark.parametrize("lam", ["much", "nan", float("inf"), None, ""])
def test_lam_must_be_a_number(models, tau, tmp_path, lam):
    refused("is no finite number", checkpoints.apply, models["target"], tau, lam, tmp_path / "out")


def test_what_is_no_model_or_vector_is_refused(models, tau, tmp_path):
    out = tmp_path / "out"
    refused("expected a folder", checkpoints.load_state, tmp_path / "nothing")
    refused("is a task vector", checkpoints.load_state, tau)
    refused("no task vector at", checkpoints.apply, models["target"], models["syn"], 0.1, out)
    weights = models["syn"] / "model.safetensors"
    refused("is no task vector", checkpoints.apply, models["target"], weights, 0.1, out)
    refused("config.json", checkpoints.subtract, models["real"], tau, out)
    weights.rename(models["syn"] / "pytorch_model.bin")
    refused("pickle.*save_pretrained", checkpoints.subtract, models["real"], models["syn"], out)
    (models["syn"] / "pytorch_model.bin").unlink()
    refused("has no weights", checkpoints.info, models["syn"])


def test_damage_is_noticed(models, tau, tmp_path):
    out, vector, target = tmp_path / "out", tau / "vector.safetensors", models["target"] / "model.safetensors"
    whole, weights = vector.read_bytes(), target.read_bytes()
    for cut in (whole[:-10], whole[:100], b""):
        vector.write_bytes(cut)
        refused("vector.safetensors is damaged or cut short", checkpoints.apply, models["target"], tau, 0.1, out)
    vector.write_bytes(whole)
    target.write_bytes(weights[:-1])
    refused("model.safetensors is damaged or cut short", checkpoints.apply, models["target"], tau, 0.1, out)
    target.write_bytes(weights)
    (models["target"] / "lineage.json").write_text('{"kind": "model"')
    refused("lineage.json is damaged", checkpoints.apply, models["target"], tau, 0.1, out)
    broken = load_file(models["real"] / "model.safetensors")
    broken["model.encoder.conv1.bias"][0] = float("nan")
    save_file(broken, models["real"] / "model.safetensors", metadata={"format": "pt"})
    refused("'model.encoder.conv1.bias' would hold nan", checkpoints.subtract, models["real"], models["syn"], out)
    assert checkpoints.info(models["real"])["not_finite"] == ["model.encoder.conv1.bias"]


def test_damaged_shards_are_noticed(tmp_path):
    model = make(tmp_path / "model", 1, max_shard_size="8KB")
    index = model / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    key, shard = next(iter(whole["weight_map"].items()))
    index.write_text(json.dumps({"weight_map": whole["weight_map"] | {"more": shard}}))
    refused("disagree about 'more'", checkpoints.load_state, model)
    index.write_text(json.dumps({"weight_map": whole["weight_map"] | {key: "../elsewhere.safetensors"}}))
    refused("names elsewhere.safetensors, which is not", checkpoints.load_state, model)
    index.write_text("{")
    refused("index.json is damaged", checkpoints.load_state, model)
    index.write_text(json.dumps(whole))
    (model / shard).unlink()
    refused(shard, checkpoints.load_state, model)


def test_an_output_that_exists_is_kept_unless_asked(models, tau, tmp_path):
    refused("exists already", checkpoints.subtract, models["real"], models["syn"], tau)
    checkpoints.subtract(models["real"], models["target"], tau, overwrite=True)
    _, lineage = checkpoints.load_vector(tau)
    assert lineage.parts[1].domains == ("animals",)
    mine = tmp_path / "mine"
    mine.mkdir()
    checkpoints.subtract(models["real"], models["syn"], mine)  # an empty folder is free to be taken
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("years of work")
    refused("is not overwritten", checkpoints.mean, [tau], notes, overwrite=True)
    project = make(tmp_path / "project", 3)
    (project / "checkpoint-500").mkdir()
    (project / "thesis.tex").write_text("years of work")
    refused(
        "holds more than a model or vector .checkpoint-500, thesis.tex",
        checkpoints.mean,
        [tau],
        project,
        overwrite=True,
    )
    assert (project / "thesis.tex").exists()
    checkpoints.apply(models["target"], tau, 0.5, models["target"], overwrite=True)  # out may be the base itself
    assert checkpoints.read_lineage(models["target"]).lam == 0.5
    (tmp_path / "file").write_text("")
    refused("cannot make", checkpoints.mean, [tau], tmp_path / "file" / "out")


def test_a_failure_half_way_leaves_nothing(models, tau, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # bytes: the disk refuses the second half of the weights
    try:
        refused("cannot make .*out", checkpoints.apply, models["target"], tau, 0.1, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_made_of_a_folder_is_not_written_over_it(models, tau, tmp_path):
    kept = shutil.copytree(models["syn"], tmp_path / "kept")
    refused("would be lost", checkpoints.subtract, models["real"], kept, kept, overwrite=True)
    inside = shutil.copytree(tau, kept / "tau")
    refused("would be lost", checkpoints.apply, kept, inside, 0.5, kept, overwrite=True)
    refused("would be lost", checkpoints.apply, models["syn"], tau, 0.5, tau, overwrite=True)
    refused("would be lost", checkpoints.mean, [inside], kept, overwrite=True)
    assert (inside / "vector.safetensors").is_file() and (kept / "model.safetensors").is_file()


def test_a_folder_with_somebodys_work_in_it_is_not_replaced(models, tmp_path):
    for name in ("checkpoint-500/optimizer.pt", "checkpoint-500/deep/photo.jpg", "notes.md", "results.csv", "todo.txt"):
        project = shutil.copytree(models["target"], tmp_path / name.replace("/", "-"))
        shutil.copytree(models["target"], project / "checkpoint-500")
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("years of work")
        refused("is not overwritten", checkpoints.subtract, models["real"], models["syn"], project, overwrite=True)
        assert (project / name).is_file()


def test_a_vector_with_nan_has_no_cosine():
    whole = TaskVector({"model.encoder.a": torch.ones(3), "model.decoder.a": torch.ones(3)})
    broken = TaskVector({"model.encoder.a": torch.tensor([1.0, math.nan, 1.0]), "model.decoder.a": torch.ones(3)})
    found = whole.cosines(broken)
    assert math.isnan(found["all"]) and math.isnan(found["encoder"]) and found["decoder"] == pytest.approx(1)


def edited(folder: Path, out: Path, **changed: torch.Tensor | None) -> Path:
    """A copy of a model with other tensors; None: without that one."""
    shutil.copytree(folder, out)
    state = {**load_file(out / "model.safetensors"), **changed}
    kept = {key: tensor for key, tensor in state.items() if tensor is not None}
    save_file(kept, out / "model.safetensors", metadata={"format": "pt"})
    return out


def test_quantised_models_are_refused(models, tau, tmp_path):
    name, out = "model.encoder.layers.0.fc1.weight", tmp_path / "out"
    whole = load_file(models["real"] / "model.safetensors")[name]
    real, syn = (
        edited(models[m], tmp_path / f"{m}8", **{name: (whole * scale).to(torch.int8)})
        for m, scale in (("real", 400), ("syn", 300))
    )
    refused(f"'{name}' differs between .*int8.*give the float weights", checkpoints.subtract, real, syn, out)
    refused(f"'{name}' is .*int8", checkpoints.subtract, real, models["syn"], out)
    refused(f"'{name}' of the model is of int8.*give the float weights", checkpoints.apply, real, tau, 0.1, out)


def test_tensors_that_are_no_parameters_are_compared_too(models, tau, tmp_path):
    var, table = "model.encoder.norm.running_var", "model.encoder.table"
    out, long = tmp_path / "out", torch.arange(2 * tensorfiles.PIECE + 5)
    real = edited(models["real"], tmp_path / "r", **{var: torch.ones(4), table: long})
    no_table = edited(models["syn"], tmp_path / "s", **{var: torch.ones(4)})
    refused(f"'{table}' is in the real model but not in", checkpoints.subtract, real, no_table, out)
    no_var = edited(models["syn"], tmp_path / "s0", **{table: long})
    refused(f"'{var}' is in the real model but not in", checkpoints.subtract, real, no_var, out)
    short = edited(models["syn"], tmp_path / "s1", **{var: torch.ones(4), table: long[:7]})
    refused(f"'{table}' is", checkpoints.subtract, real, short, out)
    last = edited(models["syn"], tmp_path / "s2", **{var: torch.ones(4), table: torch.cat([long[:-1], long[:1]])})
    refused(f"'{table}' differs between", checkpoints.subtract, real, last, out)
    syn = edited(models["syn"], tmp_path / "s3", **{var: torch.zeros(4), table: long})
    checkpoints.subtract(real, syn, out)
    assert load_file(out / "vector.safetensors").keys() == load_file(tau / "vector.safetensors").keys()


DEAD = 4_194_304  # the highest number that Linux gives a process is one less


def hidden(out: Path, host: str, number: int, ending: str) -> Path:
    """What another call has beside `out`, with a file in it."""
    folder = out.with_name(f".{out.name}.{host}-{number}{ending}")
    folder.mkdir()
    (folder / "vector.safetensors").write_text("another's")
    return folder


def test_what_killed_processes_left_goes_and_what_others_make_stays(models, tmp_path, monkeypatch):
    out = tmp_path / "out"
    killed = hidden(out, store.HOST, DEAD, ".partial")
    others = [hidden(out, "another", DEAD, ".partial"), hidden(out, store.HOST, os.getppid(), ".partial")]
    others.append(hidden(out.with_name("out.b"), store.HOST, DEAD, ".partial"))
    checkpoints.subtract(models["real"], models["syn"], out)
    assert not killed.exists() and all((other / "vector.safetensors").exists() for other in others)
    own = hidden(out, store.HOST, os.getpid(), ".partial")  # of another thread, it may be
    with pytest.raises(UserError, match="cannot make .*out"):
        checkpoints.subtract(models["real"], models["syn"], out, overwrite=True)
    assert (own / "vector.safetensors").exists() and checkpoints.load_vector(out)
    began = (
        own.stat().st_ctime + 2 * store.SKEW
    )  # then it is of a killed one that had our number: in a container, 1 mostly
    monkeypatch.setattr(store.psutil.Process, "create_time", lambda process: began)
    checkpoints.subtract(models["real"], models["syn"], out, overwrite=True)
    assert not own.exists()


def test_what_a_kill_moved_away_while_it_was_replaced_is_put_back(models, tau, tmp_path):
    whole = contents(tau)
    away = tau.rename(tau.with_name(f".tau.{store.HOST}-{DEAD}.old"))
    half = hidden(tau, store.HOST, DEAD, ".partial")
    with pytest.raises(UserError, match="exists already"):
        checkpoints.subtract(models["real"], models["target"], tau)
    assert contents(tau) == whole and not away.exists() and not half.exists()
    late = hidden(tau, store.HOST, DEAD, ".old")  # killed when the new one stood already
    elsewhere = hidden(tau, "another", DEAD, ".old")
    checkpoints.subtract(models["real"], models["target"], tau, overwrite=True)
    assert contents(tau) != whole and not late.exists() and elsewhere.exists()
