"""Groups, selectors, ensembles and source counts: a whole run of tiny models, and the tables by hand."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from syn2real_utils import (
    audio,
    evidencetables,
    report,
    results,
    selection,
    selectors,
    speech,
    stages,
    statistics,
    studies,
    studytables,
)
from syn2real_utils.backbones.sources import resolve
from syn2real_utils.errors import UserError
from syn2real_utils.plan import plan
from syn2real_utils.profile import Profile, load_profile
from tests import made

TEXTS = {
    "sea": ("un pez rojo", "la ola alta", "el barco viejo", "una roca gris"),
    "lake": ("el pato blanco", "una rana verde", "el agua clara", "la orilla baja"),
    "farm": ("un perro negro", "la vaca mansa", "el gallo canta", "un trigo largo"),
    "home": ("la mesa grande", "una silla rota", "el vaso lleno", "la puerta azul"),
    "street": ("un coche nuevo", "la calle ancha", "el tren lento", "una plaza sola"),
}
TINY = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2}  # fmt: skip
SELECTORS = ["leave-one-source-out", "confidence", "entropy", "norm-matched", "fixed-0.4"]


def write_corpus(folder: Path) -> Path:
    """An AudioFolder of tones, two of each text's length."""
    rows = []
    for i, (domain, texts) in enumerate(TEXTS.items()):
        for j, text in enumerate(texts):
            time = np.arange(16_000) / 16_000
            wave = 0.3 * np.sin(2 * np.pi * (200 + 40 * i + 9 * j) * time)
            (folder / domain).mkdir(parents=True, exist_ok=True)
            audio.write(folder / domain / f"{j}.wav", wave.astype(np.float32))
            rows.append({"file_name": f"{domain}/{j}.wav", "transcription": text, "domain": domain})
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


def write_backbone(folder: Path, base: Path) -> Path:
    """A random Whisper of 16 dimensions with the real tokenizer."""
    left = shutil.ignore_patterns("model.safetensors", "done.json")
    shutil.copytree(base, folder, ignore=left)
    torch.manual_seed(0)
    WhisperForConditionalGeneration(WhisperConfig.from_pretrained(base, **TINY)).save_pretrained(folder)
    shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory, shared_data) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    write_corpus(folder / "corpus")
    write_backbone(folder / "tiny", resolve("base", shared_data))
    return folder


def profile_of(home: Path, **settings: object) -> Profile:
    values = {
        "name": "studies",
        "corpus": {"name": "folder", "language": "es", "path": str(home / "corpus")},
        "backbone.name": str(home / "tiny"),
        "targets": ["sea", "lake"],
        "sources": "all",
        "groups": {"water": ["sea", "lake"]},
        "tts": [{"name": "pico"}],
        "training.epochs": 1,
        "training.learning_rate": 1e-3,
        "training.warmup_ratio": 0.0,  # there are as few as one step
        "evaluation.lam_grid": [0.0, 0.1, 0.4, 0.8],
        "evaluation.selection_grid": [0.0, 0.4, 0.8],
        "evaluation.selection_domains": ["farm", "home"],
        "evaluation.selectors": SELECTORS,
        "evaluation.ensembles": ["mean", "norm-weighted", "similarity-weighted", "ties", "dare"],
        "evaluation.source_counts": [1, 2],
        "evaluation.source_orders": 2,
        "evaluation.bootstrap_samples": 100,
        "threads": 1,
    }
    return load_profile("quickstart", values | settings)


@pytest.fixture(scope="module")
def run(home) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYN2REAL_HOME", str(home))
        (home / "notebooks").mkdir()
        folder = results.write_run(profile_of(home))
        report.redraw(folder)
    return folder


def test_targets_of_a_group_share_their_source_models_and_what_chooses_lam(run, home, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(home))
    profile = profile_of(home)
    made_models = list((home / "runs" / "artifacts" / "models").glob("*/done.json"))
    # 2 pooled, 2 x 3 of single domains, 2 folds of 2 targets, 1 fold of 2 domains that choose lam
    assert len(made_models) == 14 == plan(profile, stages.real_rows(profile)).models
    assert not [path for path in made_models if "4domains" in path.parent.name]
    chosen = list((home / "runs" / "artifacts" / "transcripts").glob("*-direction-*/done.json"))
    assert len(chosen) == 2, "of the two domains, once for both targets"
    rows = pd.read_csv(run / "tables" / "selection.csv")
    assert set(rows.domain) == {"farm", "home"}
    for domain in ("farm", "home"):  # one lam is one length of step along the stand-in and along tau
        stand_in = results.left_out_vector(profile, stages.source_domains(profile, "sea"), domain, "pico", 0).vector()
        tau = stages.vector(profile, results.spec(profile, "sea", "pico", 0))
        assert stand_in.norm() == pytest.approx(tau.norm(), rel=1e-4)
    sums = rows.groupby(["vector", "lam", "target"]).errors.sum().unstack()
    assert (sums.sea == sums.lake).all()


def test_every_table_and_figure_that_is_asked_for_is_made_and_no_other(run, home):
    tables = {path.name for path in (run / "tables").iterdir()}
    profile = profile_of(home)
    assert {file.removeprefix("tables/") for file in report.files(profile) if "tables" in file} <= tables
    assert {"selectors.csv", "ensemble_wer.csv", "source_count_wer.csv"} <= tables
    for name in ("selector_scores", "ensembles", "source_counts"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 5000
    plain = load_profile("quickstart")
    assert studytables.asked(plain) == [] and not [f for f in report.files(plain) if "selector" in f]


def test_selectors_name_a_lam_of_the_grid_with_what_they_look_at(run):
    table = pd.read_csv(run / "tables" / "selectors.csv")
    single = table[table.target != "all"]
    assert set(table.selector) == set(SELECTORS) and set(single.lam) <= {0.0, 0.4, 0.8}
    assert (table.regret >= 0).all() and set(table.target) == {"sea", "lake", "all"}
    assert (table[table.selector == "fixed-0.4"].lam == 0.4).all()
    lam = pd.read_csv(run / "tables" / "lam.csv")
    default = single[single.selector == "leave-one-source-out"].set_index("target")
    own = lam[lam.model == "adapted"].set_index("target")
    assert (default.lam == own.lam_chosen).all() and np.allclose(default.regret, own.regret)
    looks = dict(zip(table.selector, table.looks_at, strict=True))
    assert "target" in looks["confidence"] and "target" not in looks["norm-matched"]


def test_one_sweep_of_the_target_says_how_sure_the_model_was(run, home):
    kept = list((home / "runs" / "artifacts" / "transcripts").glob("*-pooled-*/transcripts.csv"))
    assert len(kept) == 4, "two folds of two targets"
    plain = list((home / "runs" / "artifacts" / "transcripts").glob("*-without?-s0-" + 16 * "?" + "/transcripts.csv"))
    rows = pd.concat([pd.read_csv(path) for path in [*kept, *plain]])
    assert 0.0 in set(rows.lam)
    assert (rows.logprob < 0).all() and (rows.entropy > 0).all() and (rows.tokens >= 1).all()
    assert (rows.entropy / rows.tokens < np.log(51865)).all()


def test_ensembles_take_a_step_of_the_same_length(run, home, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(home))
    profile, rows = profile_of(home), pd.read_csv(run / "tables" / "ensembles.csv")
    assert list(dict.fromkeys(rows.model)) == profile.evaluation.ensembles and (rows.lam_source == "same-length").all()
    sources = stages.source_domains(profile, "sea")
    step = studies.step_length(profile, "sea", "pico", 0)
    for kind, part in rows.groupby("model"):
        vector = stages.vector(profile, studies.ensemble_spec(profile, kind, "pico", sources, 0))
        assert part.lam.nunique() == 1 and part.lam.iloc[0] * vector.norm() == pytest.approx(step, rel=1e-3), kind


def test_source_counts_are_nested_and_end_with_all_sources(run):
    rows = pd.read_csv(run / "tables" / "source_counts.csv")
    assert rows.groupby("n_sources").order.nunique().to_dict() == {1: 2, 2: 2, 3: 1}
    domains = [f"d{i}" for i in range(9)]
    for order in range(4):
        assert set(studies.first_of(domains, 3, order)) < set(studies.first_of(domains, 4, order))
    assert len({studies.first_of(domains, 3, order) for order in range(4)}) > 1


def test_targets_are_pooled_where_each_has_that_many_sources():
    """A target of fewer source domains counts with all of its own in the last point, not in points of others."""
    cells = [("a", n, 1) for n in (1, 2)] + [("b", n, 2) for n in (1, 2, 4)]
    rows = pd.DataFrame(
        [
            {"target": t, "tts": "pico", "seed": 0, "n_sources": n, "order": 0, "utterance": f"{t}{i}", "text_id": f"{t}{i}",
             "speaker": "", "n_words": 4, "errors": errors}
            for t, n, errors in cells
            for i in range(5)
        ]
    )  # fmt: skip
    table = studytables.source_count_wer(rows, samples=20)
    pooled = table[table.target == "all"]
    assert pooled.n_sources.tolist() == [1, 4] and pooled.n_words.tolist() == [40, 40] and set(pooled.wer) == {37.5}
    assert (pooled.difference == 0).all() and (pooled.p == 1).all(), "each order against all sources, clip by clip"
    rows.loc[rows.n_sources == 1, "errors"] += 1
    more = studytables.source_count_wer(rows, samples=20)
    one = more[(more.n_sources == 1) & (more.target == "all")].iloc[0]
    assert one.difference == 25 and one.difference_low > 0 and one.p < 1
    assert table[table.target == "a"].n_sources.tolist() == [1, 2] and table[
        table.target == "b"
    ].n_sources.tolist() == [1, 2, 4]


def rows_of(words: dict[str, int]) -> pd.DataFrame:
    table = [{"domain": d, "transcription": "uno " * n, "text_id": d} for d, n in words.items()]
    return pd.DataFrame(table)


def test_a_number_of_groups_divides_the_targets_by_words_and_other_domains_are_always_sources():
    rows = rows_of({"a": 9, "b": 8, "c": 5, "d": 4, "e": 4, "rest": 50})
    profile = load_profile("quickstart", {"targets": ["a", "b", "c", "d", "e"], "sources": "all", "groups": 2})
    # a | b; c joins b's? no: 9 and 8, c joins b (13), d joins a (13), e joins the first of equals
    assert speech.group(profile, rows, "a") == ("a", "d", "e") == speech.group(profile, rows, "e")
    assert speech.group(profile, rows, "c") == ("b", "c")
    alone = load_profile("quickstart", {"targets": ["a"], "sources": "all"})
    assert speech.group(alone, rows, "a") == ("a",)
    named = load_profile("quickstart", {"targets": ["a"], "sources": "all", "groups": {"x": ["b", "moon"]}})
    with pytest.raises(UserError, match="unknown domain 'moon'"):
        speech.group(named, rows, "a")


def test_the_domains_that_choose_lam_are_the_largest_or_those_that_are_named():
    rows = pd.DataFrame({"domain": ["a"] * 3 + ["b"] * 2 + ["c"] * 2 + ["d"]})

    def chosen(value: object) -> tuple[str, ...]:
        return speech.selection_domains(
            load_profile("quickstart", {"evaluation.selection_domains": value}), rows, "abcd"
        )

    assert chosen(None) == tuple("abcd") and chosen(2) == ("a", "b") and chosen(["d", "b"]) == ("b", "d")
    with pytest.raises(UserError, match="unknown domain 'x'"):
        chosen(["x"])
    profile = load_profile("quickstart", {"evaluation.selection_domains": ["a"]})
    with pytest.raises(UserError, match="none of the selection_domains a is a source domain: use some of c, d"):
        speech.selection_domains(profile, rows, ("c", "d"))


def test_every_selector_that_a_profile_may_name_is_there():
    profile = load_profile("tuxpaint-es-studies")
    assert all(selectors.named(name).looks_at for name in profile.evaluation.selectors)
    assert selectors.SELECTORS.keys() - {selection.DEVEL} | {"fixed-0.2", "fixed-0.4"} == set(
        profile.evaluation.selectors
    )
    near = load_profile("quickstart", {"evaluation.selection_grid": [0.0, 0.3, 0.6]})
    scores = selectors.named("fixed-0.4").scores(near, "", "", 0)
    assert min(scores, key=scores.get) == 0.3


def test_the_share_that_matches_norms_is_that_of_the_lowest_error_over_all_domains():
    rows = [("a", 0.0, 9), ("a", 0.5, 1), ("a", 1.0, 9), ("b", 0.0, 9), ("b", 0.5, 8), ("b", 1.0, 2)]
    curves = pd.DataFrame(rows, columns=["domain", "lam", "errors"]).assign(n_words=10)
    # a is best at 0.5, b at 1.0: with units 1 and 2 that is one share, 0.5
    assert selectors.best_share(curves, {"a": 1.0, "b": 2.0}, [0.0, 0.5, 1.0]) == 0.5


def test_the_lowest_score_chooses_and_of_equals_the_smallest_lam():
    scores = pd.DataFrame(
        [("x", 0.0, 3.0), ("x", 0.5, 1.0), ("x", 1.0, 1.0), ("y", 0.0, -1.0), ("y", 0.5, 0.0), ("y", 1.0, 0.0)],
        columns=["selector", "lam", "score"],
    ).assign(target="animals", tts="pico", seed=0, looks_at="nothing")
    picked = studytables.choices(scores).set_index("selector").lam
    assert picked.to_dict() == {"x": 0.5, "y": 0.0}


def test_tables_pool_each_target_at_its_own_lam():
    rows = made.utterances()
    chosen = {("animals", "pico"): 0.5, ("food", "pico"): 1.0, ("animals", "kokoro"): 0.0, ("food", "kokoro"): 0.0}
    scores = pd.DataFrame(
        [
            {"target": target, "tts": tts, "seed": 0, "selector": "x", "looks_at": "nothing", "lam": lam, "score": abs(lam - best)}
            for (target, tts), best in chosen.items()
            for lam in made.LAMS
        ]
    )  # fmt: skip
    table = studytables.selectors(rows, scores, samples=50)
    pooled = table[(table.target == "all") & (table.tts == "pico")].iloc[0]
    adapted = rows[(rows.model == "adapted") & (rows.tts == "pico")]
    own = adapted[
        ((adapted.target == "animals") & (adapted.lam == 0.5)) | ((adapted.target == "food") & (adapted.lam == 1.0))
    ]
    assert pooled.wer == pytest.approx(100 * own.errors.sum() / own.n_words.sum(), abs=1e-4) and np.isnan(pooled.lam)
    assert pooled.regret == pytest.approx(pooled.wer - pooled.wer_oracle, abs=1e-3)
    zero = table[(table.tts == "kokoro") & (table.target == "all")].iloc[0]
    assert zero.lam == 0 and zero.relative_change == 0 and zero.p == 1, "lam 0 is syn_target"
    single = table[table.target != "all"]
    assert single.p_holm.tolist() == pytest.approx(statistics.holm(single.p)) and pooled.p_holm == pooled.p
    assert (table.regret_p <= 1).all()
    said = table.assign(protocol="strict", verdict="better")
    shown = evidencetables.sections({"selectors": said, "wer": rows})["Ways to choose lam"]
    assert shown[["target", "TTS", "lam"]].values.tolist() == [
        ["all targets", "kokoro", "0"],
        ["all targets", "pico", "own"],
    ]
    assert shown["relative change"].iloc[0] == "0.0 % [0.0, 0.0]" and shown.p.iloc[0] == "1.000", (
        "of all targets as it is"
    )
    assert shown.attrs["note"].startswith("Protocol strict, seed 0; ") and "own: each target" in shown.attrs["note"]
    alone = evidencetables.evidence(said[said.target == "food"], "selectors")
    assert set(alone.target) == {"food"} and "Holm" not in alone.attrs["note"]
    with pytest.raises(UserError, match="no rows of adapted at the lam that was chosen"):
        studytables.selectors(rows[rows.lam != 1.0], scores, samples=50)


def test_an_ensemble_that_is_the_pooled_vector_differs_in_nothing():
    rows = made.utterances()
    same = rows[(rows.model == "adapted") & selection.is_chosen(rows.lam_source)].assign(model="ties")
    table = studytables.ensemble_wer(rows, same, samples=50)
    assert set(table.ensemble) == {"pooled", "ties"} and set(table.target) == {"animals", "food", "all"}
    assert (table.difference == 0).all() and (table.p == 1).all() and (table.p_holm == 1).all()


def test_a_profile_says_what_it_lacks():
    for settings, message in (
        ({"evaluation.selectors": ["confidence"]}, "selectors must start with leave-one-source-out"),
        ({"evaluation.selectors": ["leave-one-source-out", "guess"]}, "evaluation.selectors.1"),
        ({"evaluation.ensembles": ["mean", "seed-averaged"]}, "seed-averaged needs several seeds"),
        ({"evaluation.ensembles": ["ties"]}, "ensembles must start with mean"),
        ({"evaluation.ensembles": [], "reproduces": "ensemble"}, "reproduces ensemble needs one"),
        ({"tts": [{"name": "pico"}], "evaluation.selectors": ["leave-one-source-out", "synthetic-target-devel"]}, "second TTS"),
        ({"groups": 2}, "groups must be at most 1"),
        ({"groups": {"a": ["food"], "b": ["food"]}}, "groups must name each domain once"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            load_profile("quickstart", settings)
