"""SLURP's audio is not for commercial use: that stands on all that is made of it, and on nothing that is not."""

import pandas as pd
import pytest

from syn2real_utils import augmentation, checkpoints, modelcard, origins, report, results, speech, stages, vectorpick
from syn2real_utils.corpora.base import read_audiofolder
from syn2real_utils.lineage import REAL, Lineage
from syn2real_utils.profile import Profile, load_profile
from syn2real_utils.stages import VectorSpec
from syn2real_utils.tts import speakers
from tests import made, made_ctc, made_tts, slurp_fixture
from tests.test_report import run  # noqa: F401

AUDIO = "recordings of SLURP CC-BY-NC-4.0 (not for commercial use)"
TEXT, PICO = "texts of SLURP CC-BY-4.0", "SVOX Pico Apache-2.0"
FORBIDDEN = "Not for commercial use: recordings of SLURP forbid it."
DOMAINS = ["music", "qa", "iot"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("licences")
    slurp_fixture.write(folder / "release", texts=4, far=False, domains=DOMAINS)
    made_ctc.snapshot(folder / "tiny", "layer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYN2REAL_HOME", str(folder))
        yield folder


def profile_of(home, protocol: str = "strict", **more: object) -> Profile:
    values = {
        "corpus": {"name": "slurp", "language": "en", "path": str(home / "release")},
        "targets": ["music"], "sources": "all", "tts": [{"name": "pico"}],
        "backbone": {"name": str(home / "tiny"), "precision": "float32"},
        "training.epochs": 1, "training.max_steps": 1, "training.warmup_ratio": 0.0, "evaluation.protocol": protocol, "threads": 1,
    }  # fmt: skip
    return load_profile("quickstart", values | more)


def licences(artifact) -> set[str]:
    found = set(checkpoints.read_lineage(artifact.path).licences)
    assert not any("/" in line for line in found), "no path of this machine"
    return found


def test_models_and_vectors_in_the_store_say_what_they_are_made_of(home):
    profile = profile_of(home)
    real = stages.finetuned(profile, REAL, ["qa", "iot"], 0)
    syn = stages.finetuned(profile, "pico", ["qa", "iot"], 0)
    target = stages.syn_target(profile, "pico", "music", 0, None)
    tiny = "tiny: see its source"
    assert licences(real) == {tiny, AUDIO}
    assert licences(syn) == licences(target) == {tiny, TEXT, PICO}, "texts and Pico alone: nobody's recordings"
    spec = VectorSpec("pooled", "pico", ("iot", "qa"), 0)
    assert set(checkpoints.load_vector(stages.task_vector(profile, spec).path)[1].licences) == {tiny, AUDIO, TEXT, PICO}
    assert licences(stages.adapted(profile, target, spec, 0.5)) == {tiny, AUDIO, TEXT, PICO}
    mean = checkpoints.mean([stages.task_vector(profile, spec).path], home / "mean", overwrite=True)
    assert AUDIO in mean.licences


def test_a_language_a_model_and_voices_with_a_licence_of_their_own_say_so(home):
    italian = load_profile("asterisk-en", {"corpus.language": "it"})
    assert origins.lines(origins.of_profile(italian, ["pico"])) == (
        "Whisper tiny.en MIT", "prompts of Asterisk CC-BY-3.0", "texts of the prompts of Asterisk CC-BY-3.0", PICO,
    )  # fmt: skip
    plain = vectorpick.PlainVector(
        home, Lineage(kind="vector", architecture="whisper", corpus="asterisk-it", tts="pico")
    )
    assert [part.licence for part in plain.data] == ["CC-BY-3.0", "Apache-2.0"]
    spoken = [{"name": "bark", "model": "someone/other-bark"}, {"name": "speecht5", "speakers": str(home)}]
    profile = profile_of(home, tts=spoken)
    said = origins.lines(origins.of_synthetic(profile, ["bark", "speecht5"]))
    assert "someone/other-bark: see its source" in said and not any(line.startswith("Bark") for line in said)
    assert any(line.startswith("voices of the user's own clips") for line in said)


def test_what_goes_on_from_real_speech_or_was_chosen_by_it_says_so(home):
    two_stages = stages.syn_target(profile_of(home, "paper"), "pico", "music", 0, None)
    assert AUDIO in licences(two_stages)
    stops = {"training.early_stopping": {"steps": 1, "patience": 1}, "training.max_steps": 2}
    assert AUDIO in licences(stages.finetuned(profile_of(home, "paper", **stops), "pico", ["qa"], 0))


def test_synthetic_speech_says_it_where_slurps_speakers_lend_their_voices(home, monkeypatch):
    folder = speech.synthetic(profile_of(home), "pico", "music").path
    said = (folder / origins.LICENCE).read_text()
    assert TEXT in said and PICO in said and "commercial" not in said and len(read_audiofolder(folder, True))
    noisy = augmentation.augmented(profile_of(home), "pico", "music", "noise").path
    assert (noisy / origins.LICENCE).read_text() == said
    lent = profile_of(home, tts=[{"name": "speecht5", "speakers": "source"}])
    said = origins.terms(origins.of_synthetic(lent, ["speecht5"]))
    assert AUDIO in said[0] and said[1] == FORBIDDEN
    assert AUDIO in origins.lines(origins.of_clips(lent, pd.DataFrame({"engine": ["speecht5"]})))
    monkeypatch.setattr(speakers, "SHORTEST", 0.5)
    made_tts.encoder(home / "spkrec-xvect-voxceleb")
    lent = profile_of(home, tts=[{"name": "speecht5", "speakers": "source", "model": str(home)}])
    part = speech.with_speakers(lent, lent.tts[0])
    with open(f"{part.speakers}/{origins.LICENCE}") as beside:
        assert AUDIO in (told := beside.read()) and FORBIDDEN in told


def test_results_report_and_card_of_a_run_say_it(run, home, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(report, "drawings", lambda *_: {})  # figures take seconds and say nothing of it
    slurp = {"corpus": {"name": "slurp", "language": "en"}, "tts": [{"name": "bark"}, {"name": "pico"}]}
    few = {"evaluation.bootstrap_samples": 10}
    (run / "profile.yaml").write_text(load_profile(run / "profile.yaml", slurp | few).to_yaml())
    report.redraw(run)
    said = (run / "tables" / "results.md").read_text()
    assert AUDIO in said and "Bark MIT" in said and TEXT in said and said.endswith(f"{FORBIDDEN}\n")
    (tmp_path / "a.ogg").write_bytes(b"OggS")
    clips = dict.fromkeys([f"u{i}" for i in range(12)], tmp_path / "a.ogg")
    assert FORBIDDEN in report.write_html(run, clips, {}).read_text()
    profile = profile_of(home)
    scored = made.contexts().query("target == 'animals' and tts == 'pico'").assign(lam=0.5)
    spec = VectorSpec("pooled", "pico", ("iot", "qa"), 0)
    adapted = stages.adapted(profile, stages.syn_target(profile, "pico", "music", 0, None), spec, 0.5)
    monkeypatch.setattr(results, "context_scores", lambda *_: scored)
    monkeypatch.setattr(results, "adapted_model", lambda *_: adapted)
    card = (modelcard.export(profile, "music", "pico", 0) / "README.md").read_text()
    assert AUDIO in card and FORBIDDEN in card and "non-commercial" in card.split("---")[1]
