"""Texts to clips with `tts.base.synthesize`, against each engine's own API called for one clip after the other.

Kokoro's is the package kokoro-onnx, with the same graph, voices and phonemes: the clips must be the same bytes. Pico's is
`NanoTTS().speak`. In one process, as most would call it, a clip's bytes depend on what was spoken before; in a new process for
each clip, which its own command is, with clean memory they do not. Ours is measured against both. Every side ends with the same
clips on the disk, trimmed and at 16 kHz, and with quality control; loading the engine counts.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from syn2real_utils import stages
from syn2real_utils.bench import base
from syn2real_utils.bench.base import Goal, Measured, Side
from syn2real_utils.corpora.base import read_audiofolder
from syn2real_utils.profile import TtsPart, load_profile
from syn2real_utils.store import Store
from syn2real_utils.tts import kokoro
from syn2real_utils.tts.base import inspect, synthesize, write_clip
from syn2real_utils.tts.pico import CLEAN_MEMORY, Pico

LANGUAGE = "es"
CLIPS = {"kokoro": 48, "pico": 216}  # texts of the quickstart; Pico takes milliseconds for one
PEER = "kokoro-onnx"
VERSION = "0.6.1"
GOAL = 2.0

Speak = Callable[[Any], tuple[np.ndarray, int]]  # a row of metadata.csv: wave and rate


def measure() -> dict[str, Measured]:
    """Speak the same texts both ways, check that the clips are the same, and compare the times."""
    with tempfile.TemporaryDirectory(prefix="syn2real-") as folder:
        return {"kokoro": _kokoro(Path(folder)), "pico": _pico(Path(folder))}


def _kokoro(folder: Path) -> Measured:
    ours, clips = _ours("kokoro", folder)
    sys.path.insert(0, str(base.peer(PEER, [f"{PEER}=={VERSION}"])))
    from kokoro_onnx import Kokoro

    weights = kokoro.weights(Store())

    def load() -> Speak:
        stock = Kokoro(
            str(weights / "kokoro.onnx"), str(weights / "voices_ja.npz"), vocab_config=str(weights / "vocab.json")
        )
        # trim: the clip is trimmed when it is written, as ours is
        return lambda c: stock.create(c.spoken, c.voice, kokoro.SPEED, kokoro.ESPEAK[LANGUAGE], trim=False)

    stock = _stock(f"{PEER} {VERSION}", load, clips, folder / "stock")
    _check_same(clips, folder / "stock")
    return Measured(
        unit="clip, from its text to the file",
        ours=ours,
        peers=[stock],
        goals=[_goal("kokoro-onnx, the same bytes", stock, ours)],
        work=_work(clips),
    )


def _pico(folder: Path) -> Measured:
    from py_nanotts import NanoTTS

    ours, clips = _ours("pico", folder)
    wanted = Pico(Store()).wanted

    def load() -> Speak:
        stock = NanoTTS()

        def speak(clip: Any) -> tuple[np.ndarray, int]:
            pcm = stock.speak(**wanted(clip.spoken, clip.voice, clip.seed))
            return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768, 16_000

        return speak

    def command() -> Speak:
        clean = {**os.environ, **CLEAN_MEMORY}  # else what the interpreter left in its memory is heard

        def speak(clip: Any) -> tuple[np.ndarray, int]:
            asked, out = wanted(clip.spoken, clip.voice, clip.seed), folder / "out.wav"
            options = [f"--{name}={asked[name]}" for name in ("voice", "speed", "pitch", "volume")]
            program = [sys.executable, "-m", "py_nanotts", asked["text"], "--output", str(out), *options]
            subprocess.run(program, check=True, capture_output=True, env=clean)
            return soundfile.read(out, dtype="float32")

        return speak

    one = _stock("NanoTTS().speak in one process", load, clips, folder / "one")
    each = _stock("python -m py_nanotts for each clip", command, clips, folder / "each")
    _check_same(clips, folder / "each")
    return Measured(
        unit="clip, from its text to the file",
        ours=ours,
        peers=[one, each],
        goals=[
            _goal("a process for each clip, the same bytes", each, ours),
            _goal("one process, whose bytes depend on the order", one, ours),
        ],
        work=_work(clips) | {"same bytes in one process": _same(clips, folder / "one")},
    )


def _ours(name: str, folder: Path) -> tuple[Side, pd.DataFrame]:
    """Our side, and its clips: `metadata.csv` with the path of each."""
    rows = stages.real_rows(load_profile("quickstart")).drop_duplicates("text_id")
    rows = rows.sort_values("text_id").head(CLIPS[name])
    made: list[Path] = []

    def work() -> None:
        made.append(folder / f"{name}{len(made)}")
        made[-1].mkdir()
        synthesize(rows, TtsPart(name=name), LANGUAGE, Store(), made[-1])

    side, _ = base.timed("ours", work, len(rows))
    first, last = (read_audiofolder(made[i], synthetic=True) for i in (0, -1))
    base.check_equal("two calls", _bytes(first.path), _bytes(last.path))
    return side, last


def _stock(name: str, load: Callable[[], Speak], clips: pd.DataFrame, into: Path) -> Side:
    def work() -> None:
        speak = load()
        for clip in clips.itertuples():
            file = into / str(clip.file_name)
            write_clip(file, *speak(clip))
            inspect(file, str(clip.spoken))

    return base.timed(name, work, len(clips))[0]


def _check_same(clips: pd.DataFrame, folder: Path) -> None:
    """Raise JobError unless the clips in `folder` are the same bytes; their lengths tell most where they are not."""
    lengths = [[len(soundfile.read(path)[0]) for path in paths] for paths in (clips.path, _named(clips, folder))]
    base.check_equal("samples of each clip", *lengths)
    base.check_equal("clips that are the same bytes", len(clips), _same(clips, folder))


def _same(clips: pd.DataFrame, folder: Path) -> int:
    """Clips that are the same bytes in `folder`."""
    return sum(a == b for a, b in zip(_bytes(clips.path), _bytes(_named(clips, folder)), strict=True))


def _named(clips: pd.DataFrame, folder: Path) -> list[Path]:
    return [folder / name for name in clips.file_name]


def _bytes(paths: Any) -> list[bytes]:
    return [Path(path).read_bytes() for path in paths]


def _goal(what: str, peer: Side, ours: Side) -> Goal:
    ratio = peer.seconds / ours.seconds
    return Goal(f"at least {GOAL:g} x {what}", round(ratio, 2), ratio >= GOAL)


def _work(clips: pd.DataFrame) -> dict[str, Any]:
    return {"clips": len(clips), "seconds of speech": round(float(clips.duration.sum()), 1)}
