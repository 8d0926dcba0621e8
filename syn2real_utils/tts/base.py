"""Texts in, speech out: what a TTS engine offers, the schedule of voices, quality control and the AudioFolder.

Adding an engine: a module here with one class that fits `Engine`, an entry in `ENGINES`, its name in `profile.TtsPart`.
"""

import hashlib
import importlib
import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd
import soundfile

from syn2real_utils import audio
from syn2real_utils.corpora.base import clip_name, write_audiofolder
from syn2real_utils.errors import UserError, names
from syn2real_utils.profile import TtsPart
from syn2real_utils.progress import say, track
from syn2real_utils.store import Store, write_text_atomic
from syn2real_utils.text import spoken

ENGINES = {"kokoro": "Kokoro", "pico": "Pico"}  # module of this package: its class

# Quality control. Measured on the 737 texts of Spanish Tux Paint, trimmed, in seconds per letter or digit of the spoken text.
SHORTEST = 0.03
LONGEST = 0.50
PAUSE = 0.5  # seconds that a text may take whatever its length: single letters and signs are said slowly
LOUD = 0.999  # of full scale; a sample above it counts as clipped
CLIPPED = 0.01  # share of clipped samples above which a clip is flagged
SILENT = 0.001  # of full scale; a clip whose peak is below it is empty
HEARD = 30.0  # seconds that Whisper hears at once


class Engine(Protocol):
    """A TTS engine. It is made with the store that holds its weights and fetches them when they are not there.

    `speak` gives the same bytes for the same arguments, whatever was spoken before, in any process and from several threads
    at once. An engine that renders in batches takes them in `_render`, the one place that calls `speak`.
    """

    name: ClassVar[str]
    voices: ClassVar[Mapping[str, tuple[str, ...]]]  # ISO 639-1 language: its voices

    def __init__(self, store: Store): ...

    def settings(self, seed: int) -> dict[str, Any]:
        """What `speak` adds to voice and text for this seed, JSON-able."""

    def speak(self, spoken: str, voice: str, language: str, seed: int) -> tuple[np.ndarray, int]:
        """A wave, float32 (samples,) in [-1, 1], and its rate in Hz; (0,) for a text that the engine cannot say."""


@dataclass(frozen=True)
class QualityReport:
    """What quality control found in one set of synthetic clips."""

    engine: str
    clips: int
    seconds: float
    voices: dict[str, int]  # clips per voice
    flagged: dict[str, int]  # clips per reason

    def lines(self) -> list[str]:
        """The report for people."""
        voices = ", ".join(f"{name} {count}" for name, count in self.voices.items())
        head = f"{self.clips} clips by {self.engine}, {self.seconds / 60:.1f} minutes: {voices}"
        return [head, *(f"  flagged {count}: {reason}" for reason, count in self.flagged.items())]


def check_tts(name: str, language: str, voices: list[str] | None = None) -> list[str]:
    """The voices that a profile asks for; None: all that the engine has for the language. Fetches nothing.

    Raises:
        UserError: unknown TTS or voice, or a language that the engine does not speak.
    """
    available = _engine_class(name).voices
    if language not in available:
        others = [n for n in ENGINES if language in _engine_class(n).voices]
        instead = f"use {names(others)}" if others else f"no TTS here does; it speaks {names(available)}"
        raise UserError(f"TTS '{name}' does not speak '{language}': {instead}")
    known = available[language]
    if voices is None:
        return list(known)
    if unknown := [v for v in voices if v not in known]:
        raise UserError(f"TTS '{name}' has no voice '{unknown[0]}' for '{language}': it has {names(known)}")
    if not voices or len(set(voices)) < len(voices):
        raise UserError(f"voices of TTS '{name}': expected one or more of {names(known)}, each once")
    return voices


def load_engine(name: str, store: Store) -> Engine:
    """The engine, ready to speak; its weights are fetched when they are not in the store.

    Raises:
        UserError: unknown TTS, or its weights cannot be had.
    """
    return _engine_class(name)(store)


def schedule(rows: pd.DataFrame, part: TtsPart, voices: list[str], language: str, engine: Engine) -> pd.DataFrame:
    """One row per clip: each text `part.takes` times, every voice as often as any other (to one clip).

    The texts, in an order that the seed draws, take the voices in turn, in an order that the seed draws too. So the
    schedule depends on the set of texts, the voices, takes and seed, not on the order of rows or calls, and the takes
    of a text have different voices as long as there are enough. Each clip gets a seed of its own from
    (seed, text_id, take).

    Returns:
        The columns of a synthetic AudioFolder but `duration` and `quality`.
    """
    texts = rows.drop_duplicates("text_id")
    turns = sorted(voices, key=lambda voice: _digest(part.seed, voice))
    order = sorted(texts.text_id, key=lambda text: _digest(part.seed, text))
    place = {text: i * part.takes for i, text in enumerate(order)}
    table = []
    for row in texts.sort_values("text_id").itertuples():
        said = spoken(row.transcription, language)
        for take in range(part.takes):
            voice = turns[(place[row.text_id] + take) % len(turns)]
            seed = int(_digest(part.seed, row.text_id, take)[:8], 16)
            settings = json.dumps(engine.settings(seed), sort_keys=True)
            # all that the clip depends on: what another text, voice or setting left half-way is never taken for it
            key = "\n".join([row.text_id, str(take), engine.name, language, voice, str(seed), settings, said])
            table.append(
                {
                    "file_name": clip_name(row.domain, key, ".wav"),
                    "transcription": row.transcription,
                    "domain": row.domain,
                    "speaker": f"{engine.name}-{voice}",
                    "split": row.split,
                    "utterance": f"{engine.name}/{row.text_id}/{take}",
                    "text_id": row.text_id,
                    "fold": row.fold,
                    "spoken": said,
                    "engine": engine.name,
                    "voice": voice,
                    "seed": seed,
                    "take": take,
                    "settings": settings,
                    "language": language,
                }
            )
    return pd.DataFrame(table)


def synthesize(
    rows: pd.DataFrame, part: TtsPart, language: str, store: Store, into: Path, workers: int = 2
) -> QualityReport:
    """Fill `into` with an AudioFolder: one clip per distinct (text_id, take), and quality.csv with those that look wrong.

    Clips are trimmed, mono, `audio.SAMPLE_RATE`, 16-bit wav. A flagged clip stays, with the reason in `quality`. Clips
    that a killed call left in `into` are taken as they are; the result is the same bytes.

    Args:
        rows: utterances with `text_id, transcription, domain, split, fold`; the first row of a text gives its spelling.
        part: engine, voices, takes and seed.
        language: ISO 639-1.
        store: where the engine's weights are kept.
        into: folder to fill.
        workers: clips that are spoken at once; the bytes do not depend on it.

    Raises:
        UserError: unknown TTS, voice or language, or weights that cannot be had.
    """
    voices = check_tts(part.name, language, part.voices)
    if rows.empty:
        raise UserError(f"no texts for TTS '{part.name}' to speak: expected at least one row")
    engine = load_engine(part.name, store)
    clips = schedule(rows, part, voices, language, engine)
    _render(engine, clips, into, workers)
    checked = [inspect(into / clip.file_name, clip.spoken) for clip in clips.itertuples()]
    clips = clips.assign(duration=[seconds for seconds, _ in checked], quality=[reason for _, reason in checked])
    _remove_others(clips.file_name, into)
    flagged = clips[clips.quality != "ok"].sort_values("utterance")
    columns = ["file_name", "utterance", "domain", "spoken", "voice", "settings", "duration", "quality"]
    listed = flagged[columns].to_csv(index=False, lineterminator="\n", float_format="%.3f")
    write_text_atomic(into / "quality.csv", listed)
    write_audiofolder(clips, into, synthetic=True)
    report = QualityReport(
        engine.name,
        len(clips),
        float(clips.duration.sum()),
        clips.voice.value_counts().sort_index().to_dict(),
        flagged.quality.value_counts().sort_index().to_dict(),
    )
    for line in report.lines():
        say(line)
    return report


def inspect(clip: Path, said: str) -> tuple[float, str]:
    """Seconds of a finished clip, and "ok" or what is wrong with it: empty, clipped, too short, too long, over 30 s."""
    wave = audio.read(clip)
    seconds = len(wave) / audio.SAMPLE_RATE
    level = np.abs(wave)
    letters = sum(character.isalnum() for character in said)
    if level.max() < SILENT:
        return seconds, "empty"
    if np.mean(level > LOUD) > CLIPPED:
        return seconds, "clipped"
    if seconds < SHORTEST * letters:
        return seconds, "too short for its text"
    if seconds > HEARD:
        return seconds, f"over {HEARD:g} s"
    if seconds > LONGEST * letters + PAUSE:
        return seconds, "too long for its text"
    return seconds, "ok"


def _engine_class(name: str) -> type[Engine]:
    if name not in ENGINES:
        raise UserError(f"unknown TTS '{name}': use one of {names(ENGINES)}")
    return getattr(importlib.import_module(f"syn2real_utils.tts.{name}"), ENGINES[name])


def _render(engine: Engine, clips: pd.DataFrame, into: Path, workers: int) -> None:
    """Speak the clips that are not in `into` yet."""
    missing = [clip for clip in clips.itertuples() if not (into / clip.file_name).exists()]

    def make(clip: Any) -> None:
        wave, rate = engine.speak(clip.spoken, clip.voice, clip.language, clip.seed)
        write_clip(into / clip.file_name, wave, rate)

    pool = ThreadPoolExecutor(workers)
    try:
        jobs = [pool.submit(make, clip) for clip in missing]
        for job in track(jobs, f"speak {clips.domain.iloc[0]} with {engine.name}"):
            job.result()
    finally:  # after an error or an interrupt, what has not begun is given up
        pool.shutdown(cancel_futures=True)


def write_clip(path: Path, wave: np.ndarray, rate: int) -> None:
    """Trim, resample and write one clip so that a kill leaves all of it or nothing; no speech gives a moment of silence.

    The clip is encoded in memory: only then is a full disk the OSError that the store reports.
    """
    wave = audio.resample(audio.trim(wave, rate), rate)
    if not len(wave) or not np.isfinite(wave).all():
        wave = np.zeros(round(audio.KEPT_SILENCE * audio.SAMPLE_RATE), np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave, -1.0, 1.0), audio.SAMPLE_RATE, format="WAV", subtype="PCM_16")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


def _remove_others(wanted: pd.Series, into: Path) -> None:
    """Delete what a killed call with other texts or settings left among the clips."""
    keep = set(wanted)
    for file in sorted((into / "clips").rglob("*")):
        if file.is_file() and file.relative_to(into).as_posix() not in keep:
            file.unlink()


def _digest(*values: object) -> str:
    return hashlib.sha256(":".join(map(str, values)).encode()).hexdigest()
