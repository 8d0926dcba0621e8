"""Bark and SpeechT5: the real classes on tiny random weights, from texts to an AudioFolder; speakers by speechbrain."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from syn2real_utils import speech
from syn2real_utils.corpora.base import read_audiofolder
from syn2real_utils.errors import UserError
from syn2real_utils.profile import Profile, TtsPart
from syn2real_utils.store import Store, fingerprint
from syn2real_utils.tts import base, neural, quality, snapshots, speakers
from syn2real_utils.tts.bark import Bark
from syn2real_utils.tts.base import Saying
from syn2real_utils.tts.speecht5 import SpeechT5
from tests import made_tts
from tests.test_tts import texts

LINES = ["a bad cab", "hello there my friend", "fed", "an odd egg and more"]
SAME = 1e-5  # of full scale, between a batch and one by one
LONG = "The quick brown fox jumps over the lazy dog, and on. " * 96  # 5,088 characters


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"bark": made_tts.bark(folder / "bark"), "speecht5": made_tts.speecht5(folder / "speecht5")}


@pytest.fixture(scope="module")
def engines(models) -> dict[str, base.BatchEngine]:
    made = {"bark": Bark, "speecht5": SpeechT5}
    return {name: kind(Store(models[name]), part(name, models)) for name, kind in made.items()}


def part(name: str, models: dict[str, Path], **more) -> TtsPart:
    return TtsPart(name=name, model=str(models[name]), **{"batch_size": 4, **more})


def sayings(name: str, lines=LINES, seed: int = 0) -> list[Saying]:
    voices = {"bark": ("en_speaker_0",), "speecht5": ("bdl", "slt")}[name]
    return [Saying(line, voices[i % len(voices)], seed + i) for i, line in enumerate(lines)]


def waves(folder: Path) -> dict[str, np.ndarray]:
    rows = read_audiofolder(folder, synthetic=True)
    return {row.utterance: soundfile.read(row.path)[0] for row in rows.itertuples()}


@pytest.mark.parametrize("name", ["bark", "speecht5"])
def test_a_batch_gives_what_one_by_one_gives_and_each_clip_has_its_own_length(name, engines):
    together, rate = engines[name].speak_batch(sayings(name))
    assert rate == {"bark": 24_000, "speecht5": 16_000}[name]
    assert len({len(wave) for wave in together}) > 1 and min(len(wave) for wave in together) > 500
    for said, wave in zip(sayings(name), together, strict=True):
        alone, _ = engines[name].speak(said.spoken, said.voice, "en", said.seed)
        assert alone.dtype == np.float32 and len(alone) == len(wave) and np.abs(alone - wave).max() < SAME


@pytest.mark.parametrize("name", ["bark", "speecht5"])
def test_a_seed_gives_the_same_clip_again_and_another_seed_another(name, engines):
    before = torch.random.get_rng_state()
    first, again, other = (engines[name].speak_batch(sayings(name, seed=seed))[0] for seed in (0, 0, 50))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(len(a) == len(b) and np.allclose(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(before, torch.random.get_rng_state()), "nobody else's random numbers are touched"


@pytest.mark.parametrize("name", ["bark", "speecht5"])
def test_texts_become_an_audiofolder_whatever_the_batches_and_a_killed_one_goes_on(name, models, tmp_path):
    rows = texts("A bad cab.", "3 eggs", "?!...", "Hello there, my friend.", "He fed a dog")
    voices = {"bark": ["en_speaker_0", "en_speaker_2"], "speecht5": ["bdl"]}[name]
    own = part(name, models, takes=2, voices=voices, batch_size=3)
    base.synthesize(rows, own, "en", Store(tmp_path), tmp_path / "a")
    found = read_audiofolder(tmp_path / "a", synthetic=True)
    assert len(found) == 10 and set(found.voice) == set(voices) and set(found.engine) == {name}
    assert set(found.spoken) >= {"three eggs"} and json.loads(found.settings[0])
    assert set(found[found.spoken == "?!..."].quality) == {"empty"}
    half = tmp_path / "half"
    kept = found.file_name[3]
    (half / kept).parent.mkdir(parents=True)
    (half / kept).write_bytes((tmp_path / "a" / kept).read_bytes())
    base.synthesize(rows, own.model_copy(update={"batch_size": 1}), "en", Store(tmp_path), half)
    ours, theirs = waves(tmp_path / "a"), waves(half)
    assert ours.keys() == theirs.keys()
    for utterance, wave in ours.items():
        assert np.abs(wave - theirs[utterance]).max() <= 2 / 32768, utterance
    assert (tmp_path / "a" / "quality.csv").is_file()


def test_digits_are_spoken(engines):
    say = [engines["speecht5"].speak(line, "slt", "en", 7)[0] for line in ("three eggs", "3 eggs", "eggs")]
    assert np.array_equal(say[0], say[1]) and not np.array_equal(say[1], say[2])


@pytest.mark.parametrize(("name", "longest"), [("bark", 180), ("speecht5", 550)])
def test_a_text_of_5000_characters_is_said_in_pieces(name, longest, engines):
    cut = neural.pieces(LONG, longest)
    assert " ".join(cut) == LONG.strip() and max(map(len, cut)) <= longest and all(p.endswith(".") for p in cut)
    said = sayings(name, [LONG])[0]
    engines[name].batch_size = 16
    wave, rate = engines[name].speak(said.spoken, said.voice, "en", said.seed)
    engines[name].batch_size = 4
    short, _ = engines[name].speak(cut[0], said.voice, "en", said.seed)
    assert np.abs(wave[: len(short)] - short).max() < SAME, "it begins with its first piece"
    assert len(wave) > len(short) + (len(cut) - 1) * neural.GAP * rate


def test_pieces_end_where_a_reader_pauses_and_hold_something_to_say():
    assert neural.pieces("One two. Three four five", 12) == ["One two.", "Three four", "five"]
    assert neural.pieces("One, two three", 9) == ["One,", "two three"]
    assert neural.pieces("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert neural.pieces("... ?! -", 10) == [] and neural.pieces("", 10) == []


def test_a_batch_of_bark_has_one_voice_and_a_preset_may_be_one_file(engines, models, tmp_path):
    with pytest.raises(ValueError, match="too many values"):
        engines["bark"].speak_batch([Saying("a", "en_speaker_0", 0), Saying("b", "en_speaker_1", 0)])
    assert len(engines["bark"].speak("a bad cab", "en_speaker_2", "en", 0)[0]), "the .npz"
    with pytest.raises(UserError, match="has no preset v2/en_speaker_7: expected .*en_speaker_7.npz"):
        engines["bark"].speak("a bad cab", "en_speaker_7", "en", 0)


def test_babble_behind_a_short_text_is_flagged(tmp_path):
    clip = tmp_path / "a.wav"
    soundfile.write(clip, 0.3 * np.sin(np.arange(16_000 * 4) / 10), 16_000)
    assert quality.inspect(clip, "turn the light off")[1] == "ok", "a slow reader of the embedded engines"
    assert quality.inspect(clip, "turn the light off", Bark.longest["en"])[1] == "too long for its text"
    assert quality.inspect(clip, "turn the light off in the kitchen", Bark.longest["en"])[1] == "ok"


def test_without_memory_for_a_batch_the_setting_is_named_and_finished_clips_stay(models, tmp_path, monkeypatch):
    speak = Bark.speak_batch

    def short_of_memory(self, said):
        if len(said) > 1 and said[0].voice == "en_speaker_1":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return speak(self, said)

    rows, voices = texts("a bad cab", "hello there", "an egg", "he fed a dog"), ["en_speaker_0", "en_speaker_1"]
    own = part("bark", models, voices=voices)
    monkeypatch.setattr(Bark, "speak_batch", short_of_memory)
    message = r"2 texts at once: the GPU's memory .*: lower batch_size of TTS 'bark' below 2 \(it is 4\) and call again; the 2 clips"
    with pytest.raises(UserError, match=message):
        base.synthesize(rows, own, "en", Store(tmp_path), tmp_path / "a")
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.wav")}
    assert len(finished) == 2
    smaller = own.model_copy(update={"batch_size": 1})
    assert fingerprint(smaller.identity()) == fingerprint(own.identity()), "so the same folder goes on"
    base.synthesize(rows, smaller, "en", Store(tmp_path), tmp_path / "a")
    assert finished.items() <= {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.wav")}.items()
    assert len(read_audiofolder(tmp_path / "a", synthetic=True)) == 4


def test_keys_of_what_was_spoken_before_stay():
    assert TtsPart(name="pico").identity() == {"name": "pico", "voices": None, "takes": 1, "seed": 0}
    assert TtsPart(name="bark", model="x/y", batch_size=2).identity()["model"] == "x/y"


def voice(folder: Path, speaker: str, hertz: float) -> None:
    (folder / speaker).mkdir(parents=True)
    for number in range(2):
        time = np.arange(16_000 * 2) / 16_000
        tone = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8)) * (1 + np.sin(7 * time + number))
        soundfile.write(folder / speaker / f"{number}.wav", 0.1 * tone, 16_000)


@pytest.fixture(scope="module")
def with_encoder(models) -> Path:
    made_tts.encoder(models["speecht5"] / "spkrec-xvect-voxceleb")
    return models["speecht5"]


def test_speakers_of_a_folder_speak(with_encoder, tmp_path):
    for speaker, hertz in (("anna", 220), ("bert", 110)):
        voice(tmp_path / "clips", speaker, hertz)
    found = speakers.from_clips(speakers.clips_of_folder(tmp_path / "clips"), Store(tmp_path), str(with_encoder))
    own = TtsPart(name="speecht5", model=str(with_encoder), speakers=str(found.path))
    table = speakers.load(own, Store(tmp_path))
    made_tts.encoder(tmp_path / "other" / "spkrec-xvect-voxceleb")
    again = speakers.from_clips(speakers.clips_of_folder(tmp_path / "clips"), Store(tmp_path), str(tmp_path / "other"))
    assert again.fingerprint != found.fingerprint, "another encoder hears other x-vectors"
    assert {name: rows.shape for name, rows in table.items()} == {"anna": (2, 512), "bert": (2, 512)}
    assert np.allclose(np.linalg.norm(table["anna"], axis=1), 1, atol=1e-5)
    assert np.linalg.norm(table["anna"][0] - table["bert"][0]) > np.linalg.norm(table["anna"][0] - table["anna"][1])
    base.synthesize(texts("a dog", "two dogs"), own, "en", Store(tmp_path), tmp_path / "a")
    assert set(read_audiofolder(tmp_path / "a", synthetic=True).voice) == {"anna", "bert"}
    with pytest.raises(UserError, match="'speecht5' has no voice 'slt' for 'en': it has anna, bert"):
        base.synthesize(texts("a"), own.model_copy(update={"voices": ["slt"]}), "en", Store(tmp_path), tmp_path / "b")


def corpus(folder: Path) -> Path:
    table = []
    for domain, speaker, hertz in (("food", "eve", 150), ("town", "tom", 100), ("home", "tim", 120)):
        voice(folder / "clips" / domain, speaker, hertz)
        for number in range(2):
            name = f"clips/{domain}/{speaker}/{number}.wav"
            table.append(
                {"file_name": name, "transcription": f"{domain} {'ab'[number]}", "domain": domain, "speaker": speaker}
            )
    pd.DataFrame(table).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_source_speakers_are_never_those_of_a_target(with_encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    profile = Profile.model_validate(
        {
            "name": "t", "description": "", "targets": ["food"], "backbone": {"name": "base"},
            "corpus": {"name": "folder", "language": "en", "path": str(corpus(tmp_path / "mine"))},
            "tts": [{"name": "speecht5", "model": str(with_encoder), "speakers": "source"}],
            "training": {"epochs": 1, "batch_size": 1, "learning_rate": 1e-5},
            "evaluation": {"lam_grid": [0.0], "selection_grid": [0.0]},
        }
    )  # fmt: skip
    speech.check(profile)
    found = read_audiofolder(speech.synthetic(profile, "speecht5", "food").path, synthetic=True)
    assert set(found.voice) == {"tom", "tim"} and len(found) == 2
    everything = profile.model_copy(update={"targets": ["food", "town", "home"]})
    with pytest.raises(
        UserError, match="speakers: source, but no clip with a known speaker lies outside the targets food, town"
    ):
        speech.synthetic(everything, "speecht5", "food")


def test_what_an_asr_mishears_is_flagged(models, tmp_path):
    rows = texts("a bad cab", "hello there", "an egg")
    said = {"a bad cab": "A bad cab.", "hello there": "yellow bear tables", "an egg": "an eggs"}
    trip = {"asr": "tiny.en", "max_cer": 0.3}
    own = TtsPart(name="pico", voices=["en-US"], round_trip=trip)

    def listen(clips: list[Path]) -> list[str]:
        rows = base.schedule(texts(*said), own, ["en-US"], "en", base.load_engine(own, Store(tmp_path)))
        heard = {row.file_name.rpartition("/")[2]: said[row.transcription] for row in rows.itertuples()}
        return [heard[clip.name] for clip in clips]

    base.synthesize(rows, own, "en", Store(tmp_path), tmp_path / "a", listen=listen)
    found = read_audiofolder(tmp_path / "a", synthetic=True)
    assert dict(zip(found.transcription, found.quality, strict=True)) == {
        "a bad cab": "ok", "hello there": "misheard by tiny.en", "an egg": "ok",
    }  # fmt: skip
    assert pd.read_csv(tmp_path / "a" / "quality.csv").quality.tolist() == ["misheard by tiny.en"]
    counts = {row.transcription: (int(row.char_errors), int(row.n_chars)) for row in found.itertuples()}
    assert counts["a bad cab"] == (0, 9) and counts["an egg"] == (1, 6) and counts["hello there"][0] > 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("speakers", "source", "speakers is for speecht5, not for kokoro"),
        ("model", "suno/bark", "model is for bark, speecht5, not for kokoro"),
        ("round_trip", {"asr": "openai/whisper-base", "max_cer": 0.3}, "another ASR than the one under test, base"),
    ],
)
def test_fields_that_do_not_fit_are_named(field, value, message):
    from syn2real_utils.profile import load_profile

    with pytest.raises(UserError, match=message):
        load_profile("quickstart", {"tts": [{"name": "kokoro", field: value}]})


def test_what_is_missing_is_one_line_each(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be reached .*suno/bark \(4487 MB\) is missing here: fetch it where"):
        base.load_engine(TtsPart(name="bark"), Store(tmp_path))
    assert "which needs the network" in capsys.readouterr().out
    with pytest.raises(UserError, match="no folder ./nowhere with a TTS model"):
        snapshots.resolve("./nowhere", "config.json", Store(tmp_path))
    with pytest.raises(UserError, match="has no config.json"):
        base.load_engine(TtsPart(name="bark", model=str(tmp_path)), Store(tmp_path))
    broken = tmp_path / "cmu-arctic-xvectors"
    broken.mkdir()
    (broken / "spkrec-xvect.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match="is damaged: expected the x-vectors of CMU Arctic"):
        speakers.load(TtsPart(name="speecht5", model=str(tmp_path)), Store(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="names no speakers"):
        speakers.clips_of_folder(tmp_path / "empty")


def test_torchaudio_that_cannot_load_is_mended(tmp_path):
    package = tmp_path / "torchaudio"
    (package / "lib").mkdir(parents=True)
    (package / "lib" / "_torchaudio.abi3.so").write_bytes(b"for another torch")
    load = (
        "import ctypes, pathlib\nfor so in (pathlib.Path(__file__).parent / 'lib').glob('*.so'): ctypes.CDLL(str(so))\n"
    )
    (package / "__init__.py").write_text(load)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    for left in ([], []):  # the second time nothing is to be done
        command = [sys.executable, "-m", "syn2real_utils.torchaudio_cpu"]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True)
        assert list((package / "lib").iterdir()) == left
