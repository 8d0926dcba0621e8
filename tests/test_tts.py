"""TTS: schedules, quality control, and two real engines."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from syn2real_utils import audio
from syn2real_utils.corpora.base import SYNTHETIC, read_audiofolder
from syn2real_utils.errors import UserError
from syn2real_utils.profile import TtsPart
from syn2real_utils.store import Store
from syn2real_utils.tts import base
from syn2real_utils.tts.pico import Pico


def texts(*said: str) -> pd.DataFrame:
    rows = [
        {"transcription": t, "text_id": f"{i:012x}", "domain": "food", "split": "", "fold": i % 2}
        for i, t in enumerate(said)
    ]
    return pd.DataFrame(rows)


def spoken(folder: Path, rows: pd.DataFrame, part: TtsPart, store: Store, **options) -> pd.DataFrame:
    folder.mkdir()
    base.synthesize(rows, part, "es", store, folder, **options)
    return read_audiofolder(folder, synthetic=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_pico_speaks_an_audiofolder_and_the_same_bytes_again(tmp_path):
    rows = texts("Un perro.", "Cinco yenes (¥5).", "¿El árbol?", "3 manzanas")
    part = TtsPart(name="pico", takes=2, seed=3)
    found = spoken(tmp_path / "a", rows, part, Store(tmp_path))
    assert list(found.columns) == [*SYNTHETIC, "path"] and len(found) == 8
    assert set(found.quality) == {"ok"} and set(found.engine) == {"pico"} and set(found.voice) == {"es-ES"}
    assert set(found.spoken) >= {"tres manzanas", "Cinco yenes."}
    assert len({row.settings for row in found.itertuples()}) > 4 and json.loads(found.settings[0])["speed"] > 0.8
    spoken(tmp_path / "b", rows.iloc[::-1], part, Store(tmp_path), workers=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for row in found.itertuples():
        wave, rate = soundfile.read(row.path)
        assert rate == 16_000 and row.duration == pytest.approx(len(wave) / rate, abs=0.001)
        assert len(audio.trim(wave.astype(np.float32))) == pytest.approx(len(wave), abs=0.03 * rate)


def test_a_killed_synthesis_goes_on_and_drops_what_does_not_belong(tmp_path):
    rows, part = texts("Un perro.", "Un gato.", "Un pez."), TtsPart(name="pico")
    whole = spoken(tmp_path / "a", rows, part, Store(tmp_path))
    half = tmp_path / "half"
    for name in [whole.file_name[0], "clips/food/stranger.wav"]:
        (half / name).parent.mkdir(parents=True, exist_ok=True)
        (half / name).write_bytes(Path(whole.path[0]).read_bytes())
    base.synthesize(rows, part, "es", Store(tmp_path), half)
    assert contents(half) == contents(tmp_path / "a")


def test_voices_take_turns_whatever_the_order_of_the_rows():
    rows, voices = texts(*[f"texto {i}" for i in range(23)]), ["a", "b", "c", "d", "e"]
    engine = Pico(Store())
    plan = base.schedule(rows, TtsPart(name="kokoro", takes=2), voices, "es", engine)
    counts = plan.voice.value_counts()
    assert counts.max() - counts.min() <= 1 and len(counts) == 5
    assert (plan.groupby("text_id").voice.nunique() == 2).all(), "the takes of a text have different voices"
    shuffled = base.schedule(rows.sample(frac=1, random_state=0), TtsPart(name="kokoro", takes=2), voices, "es", engine)
    assert plan.equals(shuffled)
    other = base.schedule(rows, TtsPart(name="kokoro", takes=2, seed=1), voices, "es", engine)
    assert (plan.voice != other.voice).any()


def wave(path: Path, seconds: float, level: float = 0.3) -> Path:
    soundfile.write(path, level * np.sin(np.arange(int(16_000 * seconds)) / 10), 16_000)
    return path


@pytest.mark.parametrize(
    ("seconds", "level", "text", "found"),
    [
        (1.0, 0.3, "hola mundo", "ok"),
        (1.0, 0.0001, "hola mundo", "empty"),
        (1.0, 3.0, "hola mundo", "clipped"),
        (0.2, 0.3, "hola mundo, hola a todos", "too short for its text"),
        (8.0, 0.3, "hola", "too long for its text"),
        (31.0, 0.3, "hola " * 40, "over 30 s"),
    ],
)
def test_quality_control_names_what_is_wrong(tmp_path, seconds, level, text, found):
    assert base.inspect(wave(tmp_path / "a.wav", seconds, level), text)[1] == found


def test_flagged_clips_stay_and_are_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(base, "LONGEST", 0.001)
    monkeypatch.setattr(base, "PAUSE", 0.0)
    found = spoken(tmp_path / "a", texts("Un perro.", "Un gato."), TtsPart(name="pico"), Store(tmp_path))
    assert set(found.quality) == {"too long for its text"}
    assert len(pd.read_csv(tmp_path / "a" / "quality.csv")) == 2
    assert "flagged 2: too long for its text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "language", "voices", "message"),
    [
        ("bark2", "es", None, "unknown TTS 'bark2': use one of kokoro, pico"),
        ("pico", "ru", None, "TTS 'pico' does not speak 'ru': no TTS here does"),
        ("kokoro", "de", None, "TTS 'kokoro' does not speak 'de': use pico"),
        ("kokoro", "es", ["nobody"], "has no voice 'nobody' for 'es': it has jf_alpha"),
        ("kokoro", "es", [], "expected one or more of"),
    ],
)
def test_unknown_tts_language_and_voice(name, language, voices, message):
    with pytest.raises(UserError, match=message):
        base.check_tts(name, language, voices)


@pytest.mark.real
def test_kokoro_speaks_with_all_its_voices(tmp_path, shared_data):
    found = spoken(
        tmp_path / "a", texts(*[f"El perro número {i}." for i in range(5)]), TtsPart(name="kokoro"), shared_data
    )
    assert set(found.quality) == {"ok"} and found.voice.nunique() == 5
    assert found.duration.between(0.8, 4).all()
