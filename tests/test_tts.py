"""TTS: schedules, quality control, and two real engines."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import soundfile

from syn2real_utils import audio
from syn2real_utils.corpora.base import SYNTHETIC, read_audiofolder
from syn2real_utils.errors import UserError
from syn2real_utils.profile import TtsPart
from syn2real_utils.store import Store
from syn2real_utils.tts import base, kokoro, pico, products, quality
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


def test_pico_says_a_text_the_same_whatever_was_said_before():
    said = ["Un perro.", "¿Y el árbol?", "😀", "tres manzanas y una pera"]
    engine = Pico(Store())
    together = [engine.speak(text, "es-ES", "es", 5)[0].tobytes() for text in said]
    backwards = [engine.speak(text, "es-ES", "es", 5)[0].tobytes() for text in reversed(said)][::-1]
    alone = [Pico(Store()).speak(text, "es-ES", "es", 5)[0].tobytes() for text in said]
    assert together == backwards == alone and len(set(alone)) == len(said)


def test_pico_gives_up_a_text_that_takes_too_long_and_speaks_on(monkeypatch):
    engine = Pico(Store())
    monkeypatch.setattr(pico, "PATIENCE", 0.001)
    assert len(engine.speak("Esto dura mucho más que un milisegundo. " * 20, "es-ES", "es", 0)[0]) == 0
    monkeypatch.undo()
    assert len(engine.speak("Un perro.", "es-ES", "es", 0)[0]) > 5000


def test_what_pico_refuses_is_told_and_the_next_text_is_said():
    engine = Pico(Store())
    with pytest.raises(RuntimeError, match="Unsupported voice"):
        engine.speak("Un perro.", "xx-XX", "es", 0)
    assert len(engine.speak("Un perro.", "es-ES", "es", 0)[0]) > 5000


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
    monkeypatch.setattr(quality, "LONGEST", 0.001)
    monkeypatch.setattr(quality, "PAUSE", 0.0)
    found = spoken(tmp_path / "a", texts("Un perro.", "Un gato."), TtsPart(name="pico"), Store(tmp_path))
    assert set(found.quality) == {"too long for its text"}
    assert len(pd.read_csv(tmp_path / "a" / "quality.csv")) == 2
    assert "flagged 2: too long for its text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "language", "voices", "message"),
    [
        ("bark2", "es", None, "unknown TTS 'bark2': use one of kokoro, pico, bark, speecht5"),
        ("pico", "ro", None, "TTS 'pico' does not speak 'ro': no TTS here does"),
        ("speecht5", "es", None, "TTS 'speecht5' does not speak 'es': use kokoro, pico, bark"),
        ("bark", "ca", None, "no TTS here does .ISO 639-1, as en.; it speaks de, en, es, fr, hi, it"),
        ("bark", "es", ["en_speaker_1"], "has no voice 'en_speaker_1' for 'es': it has es_speaker_0"),
        ("kokoro", "de", None, "TTS 'kokoro' does not speak 'de': use pico, bark"),
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


@pytest.mark.real
def test_kokoros_fast_graph_gives_the_samples_of_the_graph_as_it_came(shared_data, monkeypatch):
    fast = kokoro.Kokoro(shared_data)
    monkeypatch.setattr(products, "exact", lambda probe: False)  # as on a processor whose sums overflow
    stock = kokoro.Kokoro(shared_data)
    for text, voice in [("Una rana.", "jf_alpha"), ("¿Dónde está la llave del coche rojo?", "jm_kumo")]:
        ours, theirs = (engine.speak(text, voice, "es", 0)[0] for engine in (fast, stock))
        assert len(ours) > kokoro.RATE and np.array_equal(ours, theirs)


def convolution(path: Path, channels: int, taps: int, step: int, before: int, behind: int) -> None:
    """A graph of one quantised convolution with a dilation of `step`."""
    weights = np.random.default_rng(0).integers(0, 256, (5, channels, taps), np.uint8)
    info = onnx.helper.make_tensor_value_info
    attributes = {"dilations": [step], "pads": [before, behind], "strides": [1], "group": 1, "kernel_shape": [taps]}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("DynamicQuantizeLinear", ["wave"], ["q", "scale", "zero"]),
            onnx.helper.make_node("ConvInteger", ["q", "weights", "zero", "middle"], ["sums"], "conv", **attributes),
        ],
        "one convolution",
        [info("wave", onnx.TensorProto.FLOAT, [1, channels, None])],
        [info("sums", onnx.TensorProto.INT32, [1, 5, None])],
        [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(np.uint8(131), "middle")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.parametrize(
    ("taps", "step", "before", "behind"), [(1, 1, 0, 0), (3, 1, 1, 1), (7, 3, 9, 9), (2, 1, 0, 0), (4, 2, 5, 0)]
)
def test_a_convolution_as_a_product_has_the_same_sums(tmp_path, taps, step, before, behind):
    convolution(tmp_path / "stock.onnx", 16, taps, step, before, behind)
    products.with_products(tmp_path / "stock.onnx", tmp_path / "fast.onnx")
    products.write_probe(tmp_path / "probe.onnx")
    assert {node.op_type for node in onnx.load(tmp_path / "fast.onnx").graph.node} >= {"MatMulInteger"}
    if not products.exact(tmp_path / "probe.onnx"):
        pytest.skip("this processor's products overflow: the fast graph is not used")
    wave = {"wave": np.random.default_rng(1).normal(size=(1, 16, 50)).astype(np.float32)}
    stock, fast = (
        onnxruntime.InferenceSession(tmp_path / f"{name}.onnx").run(None, wave)[0] for name in ("stock", "fast")
    )
    assert np.array_equal(stock, fast)
