"""CTC backbones on tiny snapshots of the real classes: letters, padding, fine-tuning, vectors, BatchNorm."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, pipeline
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

from syn2real_utils import (
    batchnorm,
    checkpoints,
    exports,
    machine,
    stages,
    standalone,
    stopping,
    training,
    transcription,
)
from syn2real_utils.backbones import sources
from syn2real_utils.backbones.base import Example, open_backbone
from syn2real_utils.backbones.ctc import CTC
from syn2real_utils.checkpoints import load_state
from syn2real_utils.errors import UserError
from syn2real_utils.evaluation import score, sweep
from syn2real_utils.lineage import Lineage, write_lineage
from syn2real_utils.profile import BackbonePart, EarlyStoppingPart, TrainingPart, load_profile
from syn2real_utils.store import Artifact, Store
from tests.made_ctc import KINDS, snapshot, tone

PART = BackbonePart(name="tiny", precision="float32")
TRAIN = TrainingPart(epochs=2, batch_size=2, learning_rate=1e-3, weight_decay=0.1)
WORDS = ["a dog", "the cat", "a fish", "red house", "sun", "three apples"]
LENGTHS = [0.5, 0.83, 1.1, 1.41, 0.62, 1.7]  # seconds
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> dict[str, CTC]:
    """A backbone of every kind."""
    home = tmp_path_factory.mktemp("ctc")
    return {kind: open_backbone(snapshot(home / kind, kind), "en", PART) for kind in KINDS}


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> list[Path]:
    home = tmp_path_factory.mktemp("clips")
    return [tone(home / f"{i}.wav", seconds, 200 + 70 * i) for i, seconds in enumerate(LENGTHS)]


def examples(asr: CTC, clips: list[Path]) -> list[Example]:
    return [Example(asr.features(clip), asr.labels(word)) for clip, word in zip(clips, WORDS, strict=True)]


def trained(asr: CTC, clips: list[Path], into: Path, seed: int = 0, part: TrainingPart = TRAIN, **lineage) -> Path:
    """A model that was fine-tuned on the clips."""
    training.finetune(asr, examples(asr, clips), part, seed, 1, "tiny", into)
    origin = {"architecture": checkpoints.architecture(asr.folder), "parent": checkpoints.weights_hash(asr.folder)}
    write_lineage(into, Lineage(kind="model", seed=seed, **origin, **lineage))
    return into


@pytest.fixture(scope="session")
def models(made, clips, tmp_path_factory) -> dict[str, Path]:
    """real_source, syn_source and syn_target of a Conformer, trained, and tau between the first two."""
    home, asr = tmp_path_factory.mktemp("models"), made["rotary"]
    found = {name: trained(asr, clips, home / name, i) for i, name in enumerate(("real", "syn", "target"))}
    checkpoints.subtract(found["real"], found["syn"], home / "tau")
    return found | {"tau": home / "tau"}


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in b)


# letters


def test_upper_case_vocabulary_is_mapped_both_ways(made):
    asr = made["rotary"]
    asr.check(["It’s 5 o'clock, Anna!"])
    tokens = asr.labels("It’s 5 o'clock, Anna!").tolist()
    vocabulary = json.loads((asr.folder / "vocab.json").read_text())
    written = {i: token for token, i in vocabulary.items()}
    assert "".join(written[i] for i in tokens) == "IT'S|FIVE|O'CLOCK|ANNA"
    frames = [i for token in tokens for i in (token, token, 0)]  # a blank keeps the double letter
    assert asr.letters.decode([0, *frames]) == "it's five o'clock anna"
    assert asr.letters.decode([vocabulary["<unk>"], 4, 4, vocabulary["A"], vocabulary["A"]]) == "a"


def test_an_accent_that_the_vocabulary_lacks_is_left_off_and_said(made, capsys):
    asr = made["rotary"]
    asr.check(["un café", "el año"])
    assert "é -> e, ñ -> n" in capsys.readouterr().out
    assert asr.letters.encode("café", "en") == asr.letters.encode("cafe", "en")


def test_a_letter_that_the_vocabulary_lacks_is_refused_with_a_text(made, tmp_path):
    with pytest.raises(UserError) as refused:
        made["rotary"].check(["a dog", "жук", "straße"])
    said = str(refused.value)
    assert "lacks letters that the texts need: ж in 'жук', у in 'жук', к in 'жук', ß in 'straße'" in said
    assert len(said.splitlines()) == 1
    few = open_backbone(snapshot(tmp_path / "few", "rotary", "abc"), "en", PART)
    with pytest.raises(UserError, match="d in 'Dab'"):
        few.check(["Dab"])
    few.check(["Cab"])


def test_lower_case_and_accents_of_the_vocabulary_stay(tmp_path):
    asr = open_backbone(snapshot(tmp_path / "es", "layer", "abcdefghijklmnopqrstuvwxyzñé"), "es", PART)
    tokens = asr.labels("Año 2, café").tolist()
    spaced = [i for token in tokens for i in (token, 0)]
    assert asr.letters.decode(spaced) == "año dos café"


def test_a_pad_token_that_is_not_the_models_blank_is_refused(made, tmp_path):
    folder = shutil.copytree(made["rotary"].folder, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 3}))
    with pytest.raises(UserError, match="has two blanks"):
        open_backbone(folder, "en", PART)


# clips and batches


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_is_heard_the_same_alone_and_in_a_batch(made, clips, kind):
    asr = made[kind]
    model, features = asr.load(), [asr.features(clip) for clip in clips]
    both = [features[0], features[5]] if asr.masks else [features[0], features[0].flip(0)]
    with torch.inference_mode(), asr.hearing(model, asr.stacked(both)) as heard:
        together = model(**heard).logits
    for row, clip in zip(together, both, strict=True):
        with torch.inference_mode():
            alone = model(**asr.stacked([clip])).logits[0]
        torch.testing.assert_close(row[: len(alone)], alone, rtol=1e-3, atol=1e-4)
    one_by_one = [asr.transcribe(model, [clip], 1)[0] for clip in features]
    assert asr.transcribe(model, features, 4) == one_by_one and len(set(one_by_one)) > 1
    assert not any(module._forward_pre_hooks for module in model.modules() if isinstance(module, torch.nn.Conv1d))
    assert asr.transcribe(model, [], 4) == []


@pytest.mark.parametrize("kind", ["rotary", "group"])
def test_waves_are_scaled_and_masked_as_the_model_wants(made, clips, kind):
    asr = made[kind]
    features = [asr.features(clip) for clip in clips[:2]]
    assert features[0].shape == (8000,) and abs(features[0].mean()) < 1e-4 and abs(features[0].std() - 1) < 1e-2
    batch = asr.stacked(features)
    assert (batch["input_values"][0, 8000:] == 0).all()
    assert ("attention_mask" in batch) == (kind == "rotary")
    assert len(asr.of_wave(features[0].numpy()[:100])) == 1600  # shorter than the first frame


def test_the_texts_are_those_of_the_pipeline(made, clips):
    asr = made["rotary"]
    heard = pipeline("automatic-speech-recognition", model=str(asr.folder))
    ours = asr.transcribe(asr.load(), [asr.features(clip) for clip in clips], 3)
    theirs = [re.sub("</?s>|<unk>", "", heard(str(clip))["text"]).lower() for clip in clips]  # a random model says them
    assert ours == [" ".join(text.split()) for text in theirs]


# fine-tuning


@pytest.mark.parametrize("kind", ["rotary", "relative", "group", "hubert"])
def test_finetune_learns_all_but_the_feature_encoder(made, clips, tmp_path, kind):
    asr = made[kind]
    before = (asr.folder / "config.json").read_text()
    trained(asr, clips, tmp_path / "out", part=TRAIN.model_copy(update={"epochs": 6}))
    start, moved = load_state(asr.folder), load_state(tmp_path / "out")
    assert start.keys() == moved.keys()
    for key in start:
        frozen = ".feature_extractor." in key
        assert not frozen or torch.equal(start[key], moved[key]), key
    assert not torch.equal(start["lm_head.weight"], moved["lm_head.weight"])
    loss = [
        asr.load(folder)(**asr.collate(examples(asr, clips)[:1])).loss.item() for folder in (None, tmp_path / "out")
    ]
    assert loss[1] < loss[0]
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {k: after[k] for k in ("layerdrop", "mask_time_prob", "ctc_zero_infinity")} == {
        k: json.loads(before)[k] for k in ("layerdrop", "mask_time_prob", "ctc_zero_infinity")
    }
    pipeline("automatic-speech-recognition", model=str(tmp_path / "out"))


def test_masked_spans_are_a_choice(made, clips, tmp_path):
    plain = trained(made["rotary"], clips, tmp_path / "plain")
    masked = trained(made["rotary"], clips, tmp_path / "masked", part=TRAIN.model_copy(update={"mask_time_prob": 0.2}))
    key = "wav2vec2_conformer.masked_spec_embed"
    start = load_state(made["rotary"].folder)[key]
    assert torch.equal(load_state(plain)[key], start) and not torch.equal(load_state(masked)[key], start)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_computed_twice_give_the_same_bytes(made, clips, tmp_path, precision):
    """So `gradient_checkpointing` is no part of a model's key; BatchNorm counts every batch once."""
    asr = open_backbone(made["rotary"].folder, "en", PART.model_copy(update={"precision": precision}))
    for name, on in (("plain", False), ("twice", True)):
        trained(asr, clips, tmp_path / name, part=TRAIN.model_copy(update={"gradient_checkpointing": on}))
    assert same_bits(load_state(tmp_path / "plain"), load_state(tmp_path / "twice"))


@pytest.fixture(scope="session")
def still(tmp_path_factory) -> CTC:
    """A model without dropout and BatchNorm, so that the order and the grouping of batches leave its updates alone."""
    parts = ("hidden", "attention", "activation", "feat_proj", "final")
    off = {f"{part}_dropout": 0.0 for part in parts}
    return open_backbone(snapshot(tmp_path_factory.mktemp("still"), "layer", **off), "en", PART)


def steps(
    asr: CTC, clips: list[Path], into: Path, judge: stopping.Judge | None = None, **changes
) -> dict[str, torch.Tensor]:
    """What is trained on clips of one length and as many letters each."""
    words = ["a dog", "a cat", "a cow", "a pig"]
    same = [Example(asr.features(clips[2]) * (1 + i), asr.labels(word)) for i, word in enumerate(words)]
    part = TRAIN.model_copy(update={"epochs": 3, **changes})
    training.finetune(asr, same, part, 0, 1, "tiny", into, judge=judge)
    return load_state(into)


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(a[key], b[key], rtol=1e-3, atol=1e-5) for key in a)


def test_accumulated_batches_are_one_update(still, clips, tmp_path):
    whole = steps(still, clips, tmp_path / "whole", batch_size=4)
    halves = steps(still, clips, tmp_path / "halves", batch_size=2, gradient_accumulation=2)
    small = steps(still, clips, tmp_path / "small", batch_size=2)
    assert close(whole, halves) and not close(whole, small)


class Rates(TrainerCallback):
    """The learning rate of each update, as a share of the highest."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, optimizer, **kwargs):
        self.seen.append(round(optimizer.param_groups[0]["lr"] / TRAIN.learning_rate, 3))


def test_steps_and_warm_up_count_updates_not_batches(still, clips, tmp_path):
    rates = Rates()
    same = [Example(still.features(clip), still.labels("a dog")) for clip in clips]
    changes = {"epochs": 9, "batch_size": 1, "gradient_accumulation": 2, "max_steps": 6, "warmup_steps": 2}
    training.finetune(still, same, TRAIN.model_copy(update=changes), 0, 1, "tiny", tmp_path / "out", [rates])
    assert rates.seen == [0, 0.5, 1, 0.75, 0.5, 0.25], "6 updates of 2 clips: 2 that rise, 4 that fall"


def test_two_processes_make_the_updates_of_one(still, clips, tmp_path):
    """Through torch's launcher and accelerate, on the CPU with gloo."""
    found, stops = [], EarlyStoppingPart(steps=1, patience=1)
    rows = pd.DataFrame(
        {"utterance": ["u"], "text_id": ["t"], "fold": [0], "duration": [1.1], "transcription": ["a dog"]}
    )
    for name, processes in (("one", 1), ("two", 2)):
        judge = stopping.Devel(still, rows.assign(path=[clips[2]]), 1)
        changes = {"batch_size": 1, "gradient_accumulation": 4, "processes": processes, "early_stopping": stops}
        found.append(steps(still, clips, tmp_path / name, judge, **changes))
    assert close(*found)
    told = [json.loads((tmp_path / name / stopping.HISTORY).read_text()) for name in ("one", "two")]
    assert told[0] == told[1] and len(told[0]["history"]) == 2 < 3, "all end with the first process, which judges"
    names = [{file.name for file in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert names[0] == names[1]


def test_what_a_process_refuses_is_told_once(still, clips, tmp_path):
    broken = [Example(still.features(clip) * torch.nan, still.labels("a dog")) for clip in clips]
    part = TRAIN.model_copy(update={"gradient_accumulation": 2, "processes": 2})
    with pytest.raises(UserError, match="tiny: the loss of step 1 is not finite"):
        training.finetune(still, broken, part, 0, 1, "tiny", tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.safetensors")) == []


def test_weights_that_are_no_numbers_are_refused(made, tmp_path):
    asr = next(iter(made.values()))
    folder = shutil.copytree(asr.folder, tmp_path / "odd")
    state = load_file(folder / "model.safetensors")
    save_file(
        state | {"lm_head.bias": state["lm_head.bias"] * torch.nan}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match="odd holds numbers that are not finite in lm_head.bias"):
        asr.load(folder)


def test_a_loss_that_is_not_finite_stops_with_one_line(made, clips, tmp_path):
    asr = made["rotary"]
    broken = examples(asr, clips)
    part = TRAIN.model_copy(update={"save_steps": 1})
    last = training.plan_batches([len(e.features) for e in broken], 2, 2, 0)[-1][0]
    broken[last] = Example(torch.full_like(broken[last].features, torch.nan), broken[last].labels)
    with pytest.raises(UserError, match=r"tiny: the (loss|gradient) of step \d is not finite: lower") as stopped:
        training.finetune(asr, broken, part, 0, 1, "tiny", tmp_path / "out")
    assert len(str(stopped.value).splitlines()) == 1
    assert not (tmp_path / "out" / "model.safetensors").exists()


class OutOfMemory(TrainerCallback):
    """What torch raises where a GPU is full."""

    def on_step_end(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity ...")


def test_too_little_gpu_memory_names_the_settings_and_writes_no_model(made, clips, tmp_path):
    asr = made["rotary"]
    with pytest.raises(UserError, match="lower training.batch_size .now 2. and raise training.gradient_accum") as said:
        training.finetune(asr, examples(asr, clips), TRAIN, 0, 1, "tiny", tmp_path / "out", [OutOfMemory()])
    assert len(str(said.value).splitlines()) == 1
    assert "set training.gradient_checkpointing (finished models stay), or lower" in str(said.value)
    assert "checkpointing" not in training.less_memory(TRAIN.model_copy(update={"gradient_checkpointing": True}))
    least = TRAIN.model_copy(update={"gradient_checkpointing": True, "batch_size": 1})
    assert training.less_memory(least) == machine.LARGER, "nothing is left to lower"
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.real
def test_a_conformer_from_nothing_learns_eight_real_clips_by_heart(shared_data, tmp_path, monkeypatch):
    """Of 2.6 million parameters; and the model that it becomes with a vector at lam 0 is itself to the bit."""
    monkeypatch.setenv("SYN2REAL_HOME", str(shared_data.root))
    rows = stages.real_rows(load_profile("quickstart")).groupby("domain").head(2).reset_index(drop=True)
    letters = "".join(sorted({letter for text in rows.transcription for letter in text.lower() if letter.isalpha()}))
    parts = ("hidden", "attention", "activation", "feat_proj", "final")
    sizes = {f"{part}_dropout": 0.0 for part in parts} | {"conformer_conv_dropout": 0.0}
    sizes |= {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
    sizes |= {"conv_kernel": (10, 8, 8, 6), "conv_stride": (5, 4, 4, 6), "conv_dim": (32,) * 4}  # 30 ms a frame
    folder = snapshot(tmp_path / "pretrained", "rotary", letters, **sizes, conv_depthwise_kernel_size=15)
    asr = open_backbone(folder, "es", PART)
    assert sum(tensor.numel() for tensor in load_state(folder).values()) > 2.5e6
    asr.check(rows.transcription.tolist())
    heart = [
        Example(asr.features(path), asr.labels(text)) for path, text in zip(rows.path, rows.transcription, strict=True)
    ]
    part = TrainingPart(epochs=100, batch_size=8, learning_rate=1e-3)
    training.finetune(asr, heart, part, 0, 1, "by heart", tmp_path / "target")
    heard = asr.transcribe(asr.load(tmp_path / "target"), [example.features for example in heart], 8)
    found = score(rows, heard, "es")
    assert len(found) == 8 and found.errors.sum() == 0, found[["reference", "hypothesis"]]
    shutil.copytree(folder, tmp_path / "syn")
    shutil.copytree(tmp_path / "target", tmp_path / "real")
    checkpoints.subtract(tmp_path / "real", tmp_path / "syn", tmp_path / "tau")
    checkpoints.apply(tmp_path / "target", tmp_path / "tau", 0, tmp_path / "adapted")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("target", "adapted")]
    assert weights[0] == weights[1] and checkpoints.load_vector(tmp_path / "tau")[0].norm() > 1


def test_what_was_made_before_these_settings_came_stays_valid(made):
    """What changes no result never is in a key; settings that came later are left out at their defaults."""
    clip = {"utterance": "a", "transcription": "a dog", "path": "/made/pico-en-0123456789abcdef/clips/things/a.wav"}

    def key(**settings) -> dict:
        named = {f"training.{name}": value for name, value in settings.items()}
        profile = load_profile("quickstart", {"backbone.name": str(made["rotary"].folder)} | named)
        return stages.model_key(profile, pd.DataFrame([clip]), 0)

    known = {"epochs", "batch_size", "learning_rate", "warmup_ratio", "weight_decay", "max_grad_norm"}
    assert set(key()["training"]) == known
    assert set(key()["backbone"]) == {"context_margin", "context_step", "precision", "settings"}, "of a local backbone"
    assert key(gradient_checkpointing=True) == key()
    assert key(gradient_accumulation=4, processes=2) == key(gradient_accumulation=4) != key()
    with pytest.raises(UserError, match="gradient_accumulation 3 must be a multiple of processes 2"):
        key(gradient_accumulation=3, processes=2)


# vectors


@pytest.mark.parametrize("kind", ["rotary", "relative", "group", "hubert"])
def test_from_checkpoints_to_adapted_model(made, clips, tmp_path, kind):
    asr = made[kind]
    real, syn, target = (trained(asr, clips, tmp_path / name, i) for i, name in enumerate(("real", "syn", "target")))
    checkpoints.subtract(real, syn, tmp_path / "tau")
    checkpoints.apply(target, tmp_path / "tau", 0, tmp_path / "zero")
    assert (tmp_path / "zero" / "model.safetensors").read_bytes() == (target / "model.safetensors").read_bytes()
    checkpoints.apply(target, tmp_path / "tau", 0.5, tmp_path / "new")
    state, base = load_state(tmp_path / "new"), load_state(target)
    assert all(torch.equal(state[key], base[key]) for key in base if key.endswith(STATISTICS))
    models = [asr.load(folder) for folder in (real, syn, target, tmp_path / "new")]
    weights = [model.base_model.encoder.pos_conv_embed.conv.weight for model in models]
    torch.testing.assert_close(weights[3], weights[2] + 0.5 * (weights[0] - weights[1]), rtol=1e-5, atol=1e-6)
    tau = checkpoints.load_vector(tmp_path / "tau")[0]
    assert not any(key.endswith((*STATISTICS, "original0", "original1")) for key in tau.tensors)
    features = [asr.features(clip) for clip in clips]
    swept = sweep(asr, models[2], tau, [0.0, 0.5], features, 3)
    assert swept[0.5] == asr.transcribe(models[3], features, 3)
    assert same_bits(dict(asr.load(target).state_dict()), dict(models[2].state_dict()))


def test_statistics_are_the_targets_or_estimated_anew(made, models, clips, tmp_path):
    asr, tau = made["rotary"], checkpoints.load_vector(models["tau"])[0]
    checkpoints.apply(models["target"], models["tau"], 0.8, tmp_path / "new")
    features, model = [asr.features(clip) for clip in clips], asr.load(tmp_path / "new")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    batchnorm.re_estimate(asr, model, features, len(clips))
    after = model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and all(key.endswith(STATISTICS) for key in changed)
    norm = model.base_model.encoder.layers[0].conv_module.batch_norm
    seen = []
    norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad(), asr.hearing(model, asr.stacked(features)) as heard:
        model(**heard)
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2)), rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in model.modules()) and norm.momentum == 0.1

    target = asr.load(models["target"])
    kept = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    heard = sweep(asr, target, tau, [0.0, 0.8], features, 3, lambda m: batchnorm.re_estimate(asr, m, features, 6))
    assert heard[0.8] == asr.transcribe(model, features, 3)
    assert heard[0.0] == asr.transcribe(asr.load(models["target"]), features, 3)
    assert same_bits(kept, dict(target.state_dict()))


def test_an_adapted_folder_has_the_statistics_that_the_profile_asks_for(made, models, clips, tmp_path, monkeypatch):
    asr, target = made["rotary"], shutil.copytree(models["target"], tmp_path / "target-0")
    known = checkpoints.read_lineage(target).model_copy(update={"speech": "pico", "domains": ("music",)})
    write_lineage(target, known)
    base, tau = Artifact(target, "0"), Artifact(models["tau"], "1")
    rows = pd.DataFrame({"utterance": range(len(clips)), "path": clips})
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    monkeypatch.setattr(stages, "task_vector", lambda *_: tau)
    monkeypatch.setattr(batchnorm, "training_rows", lambda *asked: rows if asked[1:3] == ("pico", ("music",)) else None)
    spec, states = stages.VectorSpec("pooled", "pico", ("food",), 0), {}
    for how, lam in (("target", 0.8), ("re-estimate", 0.8), ("re-estimate", 0.0)):
        settings = {"backbone.name": str(asr.folder), "backbone.batchnorm": how, "backbone.precision": "float32"}
        profile = load_profile(
            "quickstart", settings | {"corpus.language": "en", "training.batch_size": 6, "threads": 1}
        )
        states[how, lam] = load_state(stages.adapted(profile, base, spec, lam).path)
    assert same_bits(states["re-estimate", 0.0], load_state(target)), "lam 0 is the target model itself"
    kept, settled = states["target", 0.8], states["re-estimate", 0.8]
    changed = {key for key in kept if not torch.equal(kept[key], settled[key])}
    assert changed and all(key.endswith(STATISTICS) for key in changed)
    checkpoints.apply(target, models["tau"], 0.8, tmp_path / "new")
    model = asr.load(tmp_path / "new")
    batchnorm.re_estimate(asr, model, [asr.features(clip) for clip in clips], 6)
    assert same_bits(settled, {key: model.state_dict()[key] for key in settled})


def test_a_model_without_batchnorm_cannot_estimate_it(made, clips):
    asr = made["layer"]
    with pytest.raises(UserError, match="has no BatchNorm; use target"):
        batchnorm.re_estimate(asr, asr.load(), [asr.features(clips[0])], 1)


# commands


def test_commands_take_a_ctc_folder_or_say_why_not(made, clips, tmp_path, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    asr, corpus = made["rotary"], tmp_path / "corpus"
    corpus.mkdir()
    rows = ["file_name,transcription,domain"]
    for i, (clip, word) in enumerate(zip(clips, WORDS, strict=True)):
        shutil.copyfile(clip, corpus / f"{i}.wav")
        rows.append(f"{i}.wav,{word},things")
    (corpus / "metadata.csv").write_text("\n".join(rows) + "\n")
    found = standalone.evaluate(str(asr.folder), corpus, tmp_path / "rows.csv", None, "en", False)
    assert found.n_utterances == len(clips) and (tmp_path / "rows.csv").is_file()
    heard = transcription.transcribe(asr.folder, clips)
    same = open_backbone(asr.folder, "en", BackbonePart(name="tiny"))  # in the machine's own precision
    assert [one.text for one in heard] == same.transcribe(same.load(), [same.features(clip) for clip in clips], 16)
    for to in ("ctranslate2", "ggml"):
        with pytest.raises(UserError, match=f"holds a CTC model: {to} takes a Whisper only"):
            exports.export(asr.folder, to, tmp_path / "out")


def test_the_architectures_are_ctc_models_of_transformers():
    assert {name for name, kind in sources.KINDS.items() if kind == sources.CTC} <= set(MODEL_FOR_CTC_MAPPING_NAMES)


def test_folders_that_cannot_be_a_backbone_are_refused(made, tmp_path):
    def copy(name: str, *without: str, **config) -> str:
        folder = shutil.copytree(made["rotary"].folder, tmp_path / name, ignore=shutil.ignore_patterns(*without))
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | config))
        return str(folder)

    store = Store(tmp_path)
    pickled = copy("pickled", "model.safetensors")
    (Path(pickled) / "pytorch_model.bin").write_bytes(b"no matter")
    for folder, said in {
        pickled: r"its weights only in pytorch_model\.bin, pickles",
        copy("mute", "vocab.json"): r"has no vocab\.json: expected a CTC model",
        copy("headless", architectures=["Wav2Vec2ConformerModel"]): "without a CTC head",
        copy("other", model_type="wav2vec2-bert"): "holds a 'wav2vec2-bert' model",
    }.items():
        with pytest.raises(UserError, match=said):
            sources.resolve(folder, store)
    torn = copy("torn", "model.safetensors")
    state = load_state(made["rotary"].folder)
    from safetensors.torch import save_file

    save_file(
        {k: t.clone() for k, t in state.items() if "lm_head" not in k}, f"{torn}/model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match=r"its weights lack lm_head\.bias"):
        open_backbone(Path(torn), "en", PART).load()
