"""Protocol `paper`: SLURP in miniature, spoken by tiny Bark and SpeechT5, from its release through every notebook to the tables
beside the paper's, with a tiny Whisper and a tiny Wav2Vec2-Conformer; and what the protocol may look at.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import soundfile
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, pipeline

from syn2real_utils import cli, papertables, report, stages, stopping
from syn2real_utils.backbones import sources
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import REAL, read_lineage
from syn2real_utils.profile import EarlyStoppingPart, Profile, load_profile
from syn2real_utils.rawscoring import raw_wer
from tests import made, made_ctc, made_tts, slurp_fixture
from tests.conftest import ROOT
from tests.executing import executed

TARGETS = ["cooking", "music"]


def tiny_whisper(folder: Path, base: Path) -> Path:
    """A random Whisper of 16 dimensions with the real tokenizer and settings."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("model.safetensors", "done.json"))
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(0)
    WhisperForConditionalGeneration(WhisperConfig.from_pretrained(base, **sizes, **heads)).save_pretrained(folder)
    shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory, shared_data):
    """A project with four of SLURP's domains, one clip of each in every part, tiny backbones and tiny TTS."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    slurp_fixture.write(folder / "release", far=False, domains=["alarm", "audio", *TARGETS])
    tiny_whisper(folder / "whisper", sources.resolve("base", shared_data))
    made_ctc.snapshot(folder / "conformer", "rotary")
    made_tts.steady(made_tts.bark(folder / "bark"))
    made_tts.steady(made_tts.speecht5(folder / "speecht5"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYN2REAL_HOME", str(folder))
        yield folder


def small(home: Path, backbone: str = "whisper", table: str = "paper-table1", **more: object) -> Profile:
    """A profile of the paper on the fixture: two targets, a take of each text, three steps a fine-tune."""
    settings = {
        "name": f"mini-{backbone}",
        "corpus.path": str(home / "release"),
        "targets": TARGETS,
        "tts": [{"name": name, "model": str(home / name)} for name in ("bark", "speecht5")],
        "backbone.name": str(home / backbone),
        "backbone.precision": "float32",
        "training.max_steps": 2,
        "training.gradient_checkpointing": False,
        "training.save_steps": 0,
        "training.warmup_steps": None,
        "training.warmup_ratio": 0.0,  # else the first of so few steps moves nothing
        "training.early_stopping": {"steps": 1, "patience": 1},
        "training.mixed": {"factor": 0.1, "max_steps": 3},
        "evaluation.lam_grid": [0.0, 0.5],
        "evaluation.selection_grid": [0.0, 0.5],
        "evaluation.bootstrap_samples": 50,
        "threads": 1,
    }
    return load_profile(table, settings | more)


@pytest.fixture(scope="module")
def run(home) -> Path:
    """All notebooks of the run with Whisper."""
    return executed(small(home), home)


@pytest.mark.real
def test_a_run_has_every_table_and_names_what_chose_lam(run, home):
    rows = report.read(run, "utterances")
    assert set(rows.protocol) == {"paper"} and set(rows.target) == set(TARGETS)
    chosen = rows[rows.model == "adapted"].lam_source
    assert chosen.str.startswith("target-devel").any() and not chosen.str.contains("leave-one").any()
    picked = report.read(run, "selection")
    assert (picked.domain == picked.target).all(), "lam is chosen on the target's own devel part"
    raw = report.read(run, "raw_wer")
    assert (raw.wer >= raw.floor).all() or (raw.floor == 0).all()
    text = (run / "tables" / "results.md").read_text()
    assert "lam chosen on real speech of the target's devel part" in text
    assert "Table 1 of the paper" in text and "floor" in text and "protocol paper" in text
    assert "not for commercial use" in text.lower() and "SLURP" in text


@pytest.mark.real
def test_the_papers_table_has_every_domain_and_says_what_was_not_run(run):
    table = report.paper_table(run)
    assert list(dict.fromkeys(table.TTS)) == ["bark", "speecht5"]
    for tts, ours in (("bark", set(TARGETS)), ("speecht5", set(TARGETS))):
        own = table[(tts == table.TTS) & (table.backbone != "openai/whisper-small")].set_index("domain")
        assert list(own.index) == [*slurp_fixture.DOMAINS, "average"]
        assert own.paper["music"] == "over 25 %" and own.paper["average"] == "10.03 %"
        assert set(own.index[own["not run"] == ""]) == ours and own["not run"]["qa"] == "not run"
        assert own["not run"]["average"] == ("16 of 18 domains" if ours else "not run")
        assert own.ours[[*ours]].ne("").all() and own.ours["qa"] == ""


@pytest.mark.real
def test_nothing_that_is_scored_was_trained_on_or_chose(home, run):
    profile = small(home)
    for target in TARGETS:
        scored = set(stages.test_rows(profile, target, None).utterance)
        devel = set(stages.devel_rows(profile, [target]).utterance)
        trained = set(stages.training_rows(profile, REAL, stages.source_domains(profile, target)).utterance)
        assert scored and devel and trained and not scored & devel and not scored & trained


@pytest.mark.real
def test_the_target_model_goes_on_from_the_mixed_source_model(home, run):
    profile = small(home)
    mixed = stages.mixed_source(profile, "bark", stages.source_domains(profile, "music"), 42)
    lineage = read_lineage(mixed.path)
    assert lineage.speech == "real+bark" and len(lineage.domains) == 3
    target = stages.syn_target(profile, "bark", "music", 42, None)
    first, last = (torch.cat([t.flatten() for t in state.parameters()]) for state in map(_model, (mixed, target)))
    pretrained = torch.cat([t.flatten() for t in _model(home / "whisper").parameters()])
    assert 0 < (last - first).norm() < (first - pretrained).norm(), (
        "a tenth of the learning rate, from the first stage's end"
    )
    told = json.loads((mixed.path / stopping.HISTORY).read_text())
    assert told["step"] in [step for step, _ in told["history"]] and told["wer"] == min(w for _, w in told["history"])


def _model(place) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(getattr(place, "path", place))


@pytest.mark.real
def test_models_of_several_domains_are_judged_by_their_target_and_of_one_by_itself(home):
    profile = small(home)
    assert stages.judges(profile, stages.source_domains(profile, "music")) == ["music"]
    assert stages.judges(profile, ["alarm"]) == ["alarm"]
    with pytest.raises(UserError, match="no target of profile mini-whisper has the source domains alarm, audio"):
        stages.judges(profile, ["alarm", "audio"])


@pytest.mark.real
def test_a_conformer_goes_through_every_notebook_to_its_table(home):
    settings = {"targets": ["music"], "training.gradient_accumulation": 1}
    profile = small(
        home,
        "conformer",
        "paper-table3",
        **settings,
        **{"tts": [{"name": "speecht5", "model": str(home / "speecht5")}]},
    )
    folder = executed(profile, home)
    assert "music" in report.summary(folder)
    text = (folder / "tables" / "results.md").read_text()
    assert "Wav2Vec2-Conformer" in text and "not run" in text
    (model,) = (folder / "models").iterdir()
    assert (
        pipeline("automatic-speech-recognition", model=str(model))(str(next((home / "release").rglob("*.flac"))))[
            "text"
        ]
        is not None
    )


def test_a_corpus_without_a_split_gets_one_and_one_without_a_devel_part_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    own = {"corpus": {"name": "folder", "language": "es"}, "sources": "all", "targets": ["one"], "name": "own"}
    own |= {"evaluation.protocol": "paper", "tts": [{"name": "pico"}]}
    plain = load_profile("quickstart", own | {"corpus.path": str(folder(tmp_path / "plain", [""] * 8))})
    rows = stages.real_rows(plain)
    assert (rows.groupby(["domain", "split"]).size().unstack() == [2, 2, 4]).all(axis=None)  # devel, test, train
    parts = [stages.devel_rows(plain, ["one"]), stages.test_rows(plain, "one", None)]
    parts.append(stages.training_rows(plain, REAL, ["one"]))
    assert sum(map(len, parts)) == len(set(pd.concat(parts).text_id)) == 8
    assert stages.folds(plain) == [None]
    given = load_profile("quickstart", own | {"corpus.path": str(folder(tmp_path / "given", ["train", "test"] * 4))})
    with pytest.raises(
        UserError, match="chooses on real clips of a devel part: domain 'one' has none, give some the split"
    ):
        stages.check_domains_and_folds(given)


def folder(root: Path, splits: list[str]) -> Path:
    """An AudioFolder of three domains, one clip for each split."""
    root.mkdir()
    lines = ["file_name,transcription,domain,split"]
    for d, domain in enumerate(("one", "two", "three")):
        for i, split in enumerate(splits):
            soundfile.write(str(root / f"{domain}{i}.wav"), slurp_fixture.tone(f"{domain}{i}"), slurp_fixture.RATE)
            lines.append(f"{domain}{i}.wav,palabra {'abcdefgh'[i]} {'xyz'[d]}{domain},{domain},{split}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def test_early_stopping_keeps_the_best_and_ends_what_gets_no_better(tmp_path):
    class State:
        global_step, max_steps, is_world_process_zero = 0, 9, True

    class Control:
        should_training_stop = False

    model, said = torch.nn.Linear(2, 1, bias=False), iter([50.0, 40.0, 45.0, 41.0])
    best = stopping.EarlyStopping(EarlyStoppingPart(steps=2, patience=2), lambda _: next(said), tmp_path)
    best.on_train_begin(None, State, Control)
    while not Control.should_training_stop:
        State.global_step += 1
        with torch.no_grad():
            model.weight.fill_(State.global_step)
        best.on_step_end(None, State, Control, model=model)
    assert State.global_step == 8 and [wer for _, wer in best.history] == [50, 40, 45, 41]
    again = stopping.EarlyStopping(best.part, lambda _: 0.0, tmp_path)
    State.global_step = 5
    again.on_train_begin(None, State, Control)
    assert again.history == [(2, 50.0), (4, 40.0)], "what was judged after the checkpoint is judged again"
    State.global_step = 3
    again.on_train_begin(None, State, Control)
    again.restore(model, tmp_path / "again")
    assert model.weight.eq(2).all(), "a better step that comes after the checkpoint is not there yet"
    best.on_save(None, State, Control)
    best.restore(model, tmp_path / "best")
    assert model.weight.eq(4).all() and [file.name for file in tmp_path.glob("best-*")] == ["best-4.safetensors"]


def test_raw_scoring_has_the_floor_of_a_perfect_recogniser():
    rows = made.utterances()  # "Uno, dos, tres." against "uno dos tres"
    table = raw_wer(rows, 20)
    assert (table.floor == 100).all() and (table.wer == 100).all()
    easy = raw_wer(rows.assign(raw_reference=rows.reference), 20)
    assert (easy.floor == 0).all() and easy.wer.max() < 100


def test_what_was_not_run_says_so_beside_what_the_paper_says():
    cells = pd.DataFrame([("music", "bark", "b"), ("qa", "bark", "b")], columns=["domain", "tts", "backbone"])
    row = {"target": "music", "tts": "bark", "model": "adapted", "lam": 0.4, "lam_source": "target-devel", "seed": 0}
    raw = pd.DataFrame([row | {"backbone": "b", "relative_change": -20.0, "ci_low": -30.0, "ci_high": -10.0}])
    table = papertables.reductions(papertables.published("table1"), cells, raw, raw.assign(relative_change=-25.0))
    music, qa, average = (table[table.domain == name].iloc[0] for name in ("music", "qa", "average"))
    assert (music.ours, music.interval, music["ours normalised"]) == ("20.00", "[10.00, 30.00]", "25.00")
    assert (qa.paper, qa.ours, qa["not run"]) == ("not known here", "", "not run")
    assert (average.paper, average.ours, average["not run"]) == ("10.03 %", "20.00", "1 of 2 domains")
    nothing = papertables.reductions(papertables.published("table1"), cells, raw.iloc[:0], raw.iloc[:0])
    assert set(nothing["not run"]) == {"not run"} and set(nothing.ours) == {""}
    best = papertables.reductions(
        papertables.published("ensemble"), cells, raw.assign(model="ensemble"), raw, "ensemble"
    )
    assert best.iloc[-1].paper == "up to 18.25 %" and best.iloc[-1].ours == "20.00"


def test_dry_run_of_every_paper_profile_needs_no_corpus(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    for name in ("table1", "table2", "table2-tiny", "table3", "fig4", "fig5", "ensemble"):
        with pytest.raises(SystemExit) as raised:
            cli.main(["run", f"paper-{name}", "--dry-run", "--json"])
        found = json.loads(capsys.readouterr().out)
        assert not raised.value.code and found["jobs"]["03_finetune"] == len(load_profile(f"paper-{name}").targets)
        cost = found["cost"]
        assert cost["estimate"] is True and cost["hours"]["all"] > 0 and "none of it measured" in cost["assumptions"][0]
    assert not list(tmp_path.glob("data/*"))
    with pytest.raises(SystemExit):
        cli.main(["run", "paper-table1", "--dry-run"])
    out = capsys.readouterr().out
    assert "180 models" in out and "estimate" in out and "GB" in out


def test_a_profile_extends_another(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: quickstart\nname: mine\ntraining:\n  epochs: 7\n")
    mine, base = load_profile(tmp_path / "mine.yaml"), load_profile("quickstart")
    assert mine.training == base.training.model_copy(update={"epochs": 7.0}) and mine.tts == base.tts
    (tmp_path / "lost.yaml").write_text("extends: quikstart\nname: lost\n")
    with pytest.raises(UserError, match="lost.yaml extends 'quikstart', which is no profile: use one of .*quickstart"):
        load_profile(tmp_path / "lost.yaml")
    (tmp_path / "round.yaml").write_text(f"extends: {tmp_path / 'round.yaml'}\nname: round\n")
    with pytest.raises(UserError, match="extends itself"):
        load_profile(tmp_path / "round.yaml")


def test_early_stopping_is_for_protocol_paper_alone():
    stops = {"training.early_stopping": {"steps": 5, "patience": 2}}
    with pytest.raises(UserError, match="looks at real speech of the target: leave it out, or set evaluation.protocol"):
        load_profile("quickstart", stops)
    assert load_profile("quickstart", stops | {"evaluation.protocol": "paper"}).training.early_stopping.patience == 2
