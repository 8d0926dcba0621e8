"""Null vectors, rivals, parts of the vector and the plane of the loss: on a tiny random Whisper, tones and Pico."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from syn2real_utils import (
    audio,
    augmentation,
    checkpoints,
    directions,
    extras,
    figures_evidence,
    localisation,
    report,
    results,
    rivals,
    stages,
    versus,
)  # fmt: skip
from syn2real_utils.backbones import sources
from syn2real_utils.errors import UserError
from syn2real_utils.evidencetables import SCHEDULES
from syn2real_utils.plan import plan
from syn2real_utils.profile import load_profile
from syn2real_utils.vectors import TaskVector
from tests import made
from tests.conftest import ROOT

WORDS = {
    "food": ["pan", "queso", "leche", "manzana"],
    "town": ["calle", "casa", "puente", "escuela"],
    "animals": ["gato", "perro", "pez", "caballo"],
}
TRAINED = ["null-seeds", "null-shuffled", "joint", "two-stage", "specaugment", "noise", "rir"]
PLACES = ["encoder", "decoder", "rising"]
SET = {
    "name": "tiny", "targets": ["animals"], "sources": ["food", "town"], "seeds": [0, 1], "threads": 1,
    "tts": [{"name": "pico"}],
    "training.epochs": 1, "training.batch_size": 2, "training.warmup_ratio": 0.0, "training.learning_rate": 1e-2,
    "evaluation.lam_grid": [0.0, 1.0], "evaluation.selection_grid": [0.0, 1.0], "evaluation.bootstrap_samples": 50, "evaluation.study_seeds": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(shared_data, tmp_path_factory):
    """A project with a corpus of tones and a random Whisper of 16 dimensions."""
    folder = tmp_path_factory.mktemp("rivals")
    base = sources.resolve("base", shared_data)
    shutil.copytree(base, folder / "tiny", ignore=shutil.ignore_patterns("model.safetensors", "done.json"))
    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(0)
    WhisperForConditionalGeneration(WhisperConfig.from_pretrained(base, **sizes, **heads)).save_pretrained(
        folder / "tiny"
    )
    shutil.copyfile(base / "generation_config.json", folder / "tiny" / "generation_config.json")
    rows = []
    for i, (domain, word) in enumerate((d, w) for d, words in WORDS.items() for w in words):
        wave = 0.3 * np.sin(2 * np.pi * (200 + 40 * i) * np.arange(12_800) / 16_000)
        (folder / "corpus").mkdir(exist_ok=True)
        audio.write(folder / "corpus" / f"{i}.wav", wave.astype(np.float32))
        rows.append({"file_name": f"{i}.wav", "transcription": word, "domain": domain})
    pd.DataFrame(rows).to_csv(folder / "corpus" / "metadata.csv", index=False)
    (folder / "data").mkdir()
    (folder / "data" / "tts").symlink_to(ROOT / "data" / "tts")
    return folder


@pytest.fixture
def profile(home, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(home))

    def settled(**more):
        corpus = {"name": "folder", "language": "es", "path": str(home / "corpus")}
        backbone = {"name": str(home / "tiny"), "precision": "float32"}
        return load_profile("quickstart", SET | {"corpus": corpus, "backbone": backbone} | more)

    return settled


@pytest.fixture
def case(profile) -> rivals.Case:
    return rivals.Case(profile(), "pico", "animals", ("food", "town"), 0)


def state(model) -> dict[str, torch.Tensor]:
    return checkpoints.load_state(model.path)


def test_directions_are_what_their_rivals_say(case):
    tau = TaskVector.between(state(case.trained("pico", case.sources)), state(case.trained("real", case.sources)))
    assert case.tau().vector().cosine(tau) == pytest.approx(1, abs=1e-6)
    base = case.syn_target(0)
    for name, end in (("wise-ft", case.pretrained()), ("weight-average", case.trained("real", case.sources))):
        moved = rivals.RIVALS[name].move(case, base).vector().apply(state(base), 0.25)
        for key, tensor in moved.items():
            torch.testing.assert_close(tensor, 0.75 * state(base)[key] + 0.25 * state(end)[key])
    guess = rivals.RIVALS["weight-average"].guess(case, base).vector()
    summed = sum(
        (TaskVector.between(state(case.pretrained()), state(case.trained("real", (d,)))) for d in case.sources[1:]),
        TaskVector.between(state(case.pretrained()), state(case.trained("real", case.sources[:1]))),
    )
    every = case.trained("real", (*case.sources, case.target))  # of all source domains, where one of them is left out
    summed *= TaskVector.between(state(case.pretrained()), state(every)).norm() / summed.norm()
    wanted = summed - TaskVector.between(state(case.pretrained()), state(base))
    assert guess.cosine(wanted) == pytest.approx(1, abs=1e-5) and guess.norm() == pytest.approx(wanted.norm(), rel=1e-5)


def test_noise_has_the_norm_of_every_module_and_another_direction_for_every_seed(case):
    tau = case.tau().vector()
    noise = rivals.RIVALS["null-random"].move(case, case.syn_target(0)).vector()
    assert noise.norms() == pytest.approx(tau.norms(), rel=1e-4)
    assert abs(noise.cosine(tau)) < 0.1
    again, other = (directions.Direction(case.tau().parts, noise=seed).vector() for seed in (0, 1))
    assert again.cosine(noise) == pytest.approx(1, abs=1e-6) and abs(other.cosine(noise)) < 0.1


def test_shuffled_labels_keep_every_text_on_both_sides_and_half_of_it_real(case, monkeypatch):
    seen = []
    monkeypatch.setattr(rivals, "_finetuned", lambda case, rows, *rest: seen.append(rows) or case.pretrained())
    rivals.RIVALS["null-shuffled"].move(case, case.pretrained())
    first, second = seen
    real = {row.path for row in stages.training_rows(case.profile, "real", case.sources).itertuples()}
    assert set(first.text_id) == set(second.text_id) and len(first) == len(second) == 8
    assert not set(first.path) & set(second.path)
    assert sum(path in real for path in first.path) == sum(path in real for path in second.path) == 4


def test_parts_of_a_vector_add_up_to_it(case):
    tau = case.tau()
    whole = tau.vector()
    both = tau.at("encoder").vector() + tau.at("decoder").vector()
    halves = tau.at("front").vector() + tau.at("back").vector()
    slopes = (tau.at("rising").vector() + tau.at("falling").vector()) * 0.5
    for parts in (both, halves, slopes):
        assert (parts - whole).norm() < 1e-5 * whole.norm()
    assert tau.at("attention").vector().norms()["all"] < whole.norm()
    kinds = {directions.kind_of(name) for name in whole.tensors}
    assert kinds == set(directions.KINDS), "every parameter of Whisper has a kind"
    assert directions.block_of("model.encoder.layers.1.fc1.weight") == "encoder/1/feed-forward"


def test_every_rival_and_place_gives_rows_and_a_line_of_the_table(profile):
    asked = profile(
        **{
            "evaluation.protocol": "catalogue",  # one fold: half the models
            "seeds": [0],
            "evaluation.rivals": [*TRAINED, "null-random", "wise-ft", "weight-average"],
            "evaluation.places": PLACES,
        }
    )
    utterances = results.all_utterances(asked)
    rows = rivals.all_rivals(asked)
    models = {n if rivals.RIVALS[n].move else f"{n}+tau" for n in asked.evaluation.rivals} | {
        n for n in asked.evaluation.rivals if not rivals.RIVALS[n].move
    }
    assert set(rows.model) == models
    for _, part in rows.groupby(["model", "seed"]):
        assert set(part.utterance) == set(utterances.utterance), "the same clips"
    own = set(rows[rows.lam_choice == "own"].model)
    assert own == set(extras.OWN_LAM) and set(rows[rows.lam_choice == "adapted"].model) == models - own - set(
        rows[rows.lam.isna()].model
    )
    table = versus.compare(utterances, rows, 50)
    assert set(table.model) == models | {"adapted"} and set(table.seed) == {0}
    for _, part in table.groupby(["target", "tts"]):
        lowest = min(part.wer.min(), part[part.baseline == "syn_target"].wer_baseline.iloc[0])
        assert (part.best == (part.wer == lowest)).all()
    places = localisation.all_places(asked)
    assert set(places.model) == set(PLACES) and set(places.lam) == {0.0, 1.0}
    base = utterances[utterances.model == "syn_target"].errors.sum()
    assert (places[places.lam == 0].groupby("model").errors.sum() == base).all(), "lam 0 is syn_target"
    norms = localisation.all_norms(asked)
    assert (norms.norm > 0).all() and norms.cosine_other_tts.isna().all()
    assert norms[norms.module != "all"].norm.pow(2).sum() == pytest.approx(
        norms[norms.module == "all"].norm.pow(2).sum()
    )
    figures_evidence.norms(norms)


def test_two_stage_starts_from_the_mixed_model_and_specaugment_changes_only_its_own(case):
    models = {name: rivals.RIVALS[name].base(case, 0) for name in ("two-stage", "specaugment")}
    models["syn_target"] = case.syn_target(0)
    assert len({model.fingerprint for model in models.values()}) == 3
    config = json.loads((models["specaugment"].path / "config.json").read_text())
    plain = json.loads((models["syn_target"].path / "config.json").read_text())
    assert config == plain, "masking ends with the training"
    mixed = stages.mixed_source(case.profile, "pico", case.sources, 0)
    steps = [
        TaskVector.between(state(start), state(models["two-stage"])).norm() for start in (mixed, case.pretrained())
    ]
    assert steps[0] < steps[1] / 2, "a step at a tenth of the rate from the first stage"


def test_augmented_clips_are_the_same_again_and_other_than_the_clean(case):
    clean = stages.synthetic(case.profile, "pico", "animals").path
    part = case.profile.augmentation
    for how, way in augmentation.WAYS.items():
        folder = augmentation.augmented(case.profile, "pico", "animals", how).path
        rows = stages.synthetic_rows(case.profile, "pico", ["animals"])
        moved = augmentation.with_augmented(case.profile, "pico", rows, how)
        assert all(path.startswith(str(folder)) for path in moved.path)
        wave = audio.read(clean / rows.file_name[0])
        dice = [augmentation._dice(part.seed, how, rows.utterance[0]) for _ in range(2)]
        one, again = (way(wave, part, d) for d in dice)
        assert np.array_equal(one, again) and not np.allclose(one[: len(wave)], wave, atol=1e-3)
        assert np.isfinite(one).all() and abs(len(one) - len(wave)) <= part.tail_s * audio.SAMPLE_RATE


def test_noise_lies_as_far_below_the_speech_as_was_asked(case):
    part = case.profile.augmentation.model_copy(update={"snr_db": (10.0, 10.0)})
    wave = np.sin(np.arange(16_000) / 20).astype(np.float32)
    added = augmentation.noise(wave, part, np.random.default_rng(0)) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(added**2)) == pytest.approx(10, abs=0.01)


def test_the_plane_of_the_loss_holds_its_models(profile):
    asked = profile(**{"evaluation.loss_plane": 5, "seeds": [0]})
    table = localisation.all_loss_planes(asked)
    grid, models = table[table.model == ""], table[table.model != ""].set_index("model")
    assert len(grid) == 25 and set(models.index) == {"pretrained", "syn_target", "adapted", "real_source", "syn_source"}
    assert tuple(models.loc["syn_target", ["x", "y"]]) == pytest.approx((1, 0), abs=1e-6)
    for name, x, y in (("pretrained", 0, 0), ("syn_target", 1, 0), ("adapted", 1, models.y["adapted"])):
        if y in (0, 1):
            at = grid[(grid.x == x) & (grid.y == y)].loss.item()
            assert at == pytest.approx(models.loss[name], rel=1e-4), "a model is its point of the grid"
    assert models.y["real_source"] - models.y["syn_source"] == pytest.approx(1, abs=1e-4), (
        "tau leads from one to the other"
    )
    figures_evidence.loss_plane(table)


def test_loss_is_that_of_the_text_without_the_prompt(profile):
    asr = stages.backbone(profile())
    model, rows = asr.load(), stages.real_rows(profile())
    examples = [stages_example(asr, row) for row in rows.itertuples()]
    nats, tokens = asr.loss(model, examples, 5)
    assert tokens == sum(len(e.labels) - (len(asr.prompt) - 1) for e in examples)
    apart = sum(asr.loss(model, [e], 1)[0] for e in examples)
    assert nats == pytest.approx(apart, rel=1e-4), "whatever the batch"


def stages_example(asr, row):
    from syn2real_utils.backbones.base import Example

    return Example(asr.features(row.path), asr.labels(row.transcription))


def test_the_switches_are_checked_before_anything_runs(profile):
    with pytest.raises(UserError, match="transfer goes from one TTS to another"):
        profile(**{"evaluation.transfer": True})
    with pytest.raises(UserError, match="evaluation.rivals"):
        profile(**{"evaluation.rivals": ["nothing"]})
    off = profile()
    assert extras.row_names(off) == [] and rivals.all_rivals(off).empty and localisation.all_loss_planes(off).empty


def test_a_profile_of_one_seed_trains_another_for_the_null_vector(profile):
    alone = {"evaluation.rivals": ["null-seeds"], "seeds": [0], "evaluation.protocol": "catalogue"}
    one, two = (rivals.rival_rows(profile(**(alone | more)), "animals") for more in ({}, {"seeds": [0, 1]}))
    two = two[two.seed == 0]
    assert list(one.hypothesis) == list(two.hypothesis) and list(one.lam) == list(two.lam), "seed 1 is the other one"
    plain, more = (
        plan(profile(**(alone | {"evaluation.rivals": r})), stages.real_rows(profile())) for r in ([], ["null-seeds"])
    )
    assert more.models == plain.models + 3, "real_source of the pooled sources, and of food and of town"


def test_the_plan_counts_what_is_switched_on(profile):
    rows = stages.real_rows(profile())
    plain = plan(profile(), rows)
    more = plan(profile(**{"evaluation.rivals": ["two-stage", "wise-ft"], "evaluation.loss_plane": 5}), rows)
    assert more.models == plain.models + 2 * 3, "two seeds: the first stage, and the second of each fold"
    assert more.decoded > plain.decoded and more.trained > plain.trained


@pytest.fixture
def rows_of_rivals() -> pd.DataFrame:
    """A rival that is always right, and one that says what syn_target says."""
    rows = made.utterances()
    target = rows[rows.model == "syn_target"]
    right = target.assign(model="right", errors=0, lam_choice="")
    return pd.concat([right, target.assign(model="same", lam_choice="")], ignore_index=True)


def test_a_rival_that_wins_is_reported_as_winning(rows_of_rivals):
    table = versus.compare(made.utterances(), rows_of_rivals, 200)
    assert set(table[table.best].model) == {"right"}
    both = [pd.concat([rows, rows.assign(seed=1)]) for rows in (made.utterances(), rows_of_rivals)]
    assert set(versus.compare(*both, 50).seed) == {"all"}, "seeds are pooled"
    worse = made.utterances().assign(errors=lambda rows: rows.errors + 9 * (rows.model == "adapted"))
    assert not versus.compare(worse, rows_of_rivals.assign(errors=9), 50).best.any(), "none is better than syn_target"
    right = table[(table.model == "right") & (table.baseline == "adapted")]
    assert (right.relative_change == -100).all() and (right.p_holm >= right.p).all()
    same = table[(table.model == "same") & (table.baseline == "syn_target")]
    assert (same.relative_change == 0).all() and (same.p == 1).all()
    assert set(table.target) == {"animals", "food", "all"}
    with_tau = rows_of_rivals[rows_of_rivals.model == "right"].assign(model="same+tau")
    more = versus.compare(made.utterances(), pd.concat([rows_of_rivals, with_tau]), 200, beside=versus.BESIDE)
    own = more[more.baseline == "same"]
    assert set(own.model) == {"same+tau"} and (own.relative_change == -100).all()
    assert (own.p_holm > own.p).any(), "a family of their own"
    assert {"real_source", "ensemble"} <= set(more.model) and "right" in set(more[more.baseline == "real_source"].model)
    shown = versus.rivals_table(table)
    assert (shown["best rival"] == "right 0.0").all() and (shown["best null vector"] == "not run").all()
    assert shown["best rival against adapted"].str.startswith("−100.0 %").all()
    assert list(shown.target)[-1] == "all targets"
    assert set(shown["verdict, rival"]) <= {"better", "not significant"} and "better" in set(shown["verdict, rival"])


def test_all_targets_stand_first_and_the_note_says_what_a_schedule_is(rows_of_rivals):
    named = rows_of_rivals.replace({"model": {"right": "rising", "same": "encoder"}})
    changes = versus.compare(made.utterances(), named, 50).assign(protocol="catalogue")
    figure = figures_evidence.contest(changes)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[:3] == ["all targets, kokoro", "all targets, pico", "animals, kokoro"] and len(titles) == 6
    note = " ".join(figure.get_supxlabel().split())
    assert (
        note.startswith("Protocol catalogue. ") and f"rising: {SCHEDULES['rising']}." in note and "falling" not in note
    )
    assert directions.PLACES["rising"]("", 1.0) == 2 * directions.PLACES["rising"]("", 0.5) == 2 > 0
    assert directions.PLACES["falling"]("", 0.0) == 2 and directions.PLACES["falling"]("", 1.0) == 0


def test_depth_begins_with_what_lies_before_the_encoder_and_ends_with_the_head():
    modules = ["lm_head", "encoder", "feature_projection", "encoder", "wav2vec2_conformer"]
    part = pd.DataFrame(
        {"module": modules, "layer": [figures_evidence.OUT, 1.0, figures_evidence.IN, 0.0, figures_evidence.IN]}
    )
    order = figures_evidence._depth(part)
    assert [module for module, _ in order] == [
        "feature_projection",
        "wav2vec2_conformer",
        "encoder",
        "encoder",
        "lm_head",
    ]
    assert list(order.values()) == list(range(5))


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_figures_and_tables_are_made_from_the_csv_alone(rows_of_rivals, tmp_path):
    asked = {
        "targets": ["animals", "food"], "evaluation.rivals": ["rir"], "evaluation.places": ["encoder"],
        "evaluation.transfer": True, "evaluation.loss_plane": 5, "evaluation.bootstrap_samples": 50,
    }  # fmt: skip
    profile, folder = load_profile("quickstart", asked), tmp_path / "run"
    side = [-0.5, 0.0, 0.5, 1.0, 1.5]
    grid = [("", x, y, 0.0, 1 + (x - 1) ** 2 + (y - 0.5) ** 2) for x in side for y in side]
    models = [("syn_target", 1.0, 0.0, 0.0, 1.2), ("adapted", 1.0, 0.5, 0.0, 1.0), ("real_source", 0.4, 1.0, 2.5, 1.1)]
    plane = pd.DataFrame(grid + models, columns=["model", "x", "y", "distance", "loss"])
    norms = pd.DataFrame(
        [
            (m, layer, k, 1.0, 10.0, 0.3, 0.5)
            for m in ("encoder", "decoder")
            for layer in (0, 1)
            for k in ("attention", "norms")
        ],
        columns=list(localisation.NORM_COLUMNS[3:]),
    )
    cells = [(target, tts) for target in ("animals", "food") for tts in ("kokoro", "pico")]
    rows = {
        "utterances": made.utterances(), "selection": made.selections(), "contexts": made.contexts(),
        "cosines": made.cosines(), "geometry": made.geometry(), "synthetic": made.synthetic(),
        "rivals": rows_of_rivals, "places": rows_of_rivals, "transfer": rows_of_rivals,
        "norms": pd.concat([norms.assign(target=t, tts=e, seed=0) for t, e in cells]),
        "loss_plane": pd.concat([plane.assign(target=t, tts=e, seed=0, n_tokens=9) for t, e in cells]),
    }  # fmt: skip
    report.write_rows(folder, rows)
    (folder / "profile.yaml").write_text(profile.to_yaml(), encoding="utf-8")
    drawn = {path.name for path in report.redraw(folder)}
    said = (folder / "tables" / "results.md").read_text(encoding="utf-8")
    assert "## Null vectors and rivals" in said
    of_places = said.split("## Parts of tau, each added alone")[1].split("##")[0]
    assert "| −100.0 % [−100.0, −100.0] |" in of_places and "| not significant |" in of_places
    assert "| all targets |" in of_places and "| animals |" not in of_places and "## tau of another TTS" in said
    assert {"rivals.png", "places.png", "transfer.png", "norms.png", "loss_plane.png"} <= drawn
    made_files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(report.files(profile)) <= made_files
    assert {"tables/rival_changes.csv", "tables/loss_plane.csv"} <= set(report.files(profile))
