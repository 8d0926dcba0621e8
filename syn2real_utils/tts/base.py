"""Texts in, speech out: what a TTS engine offers, the schedule of voices, quality control and the AudioFolder.

Adding an engine: a module here with one class that fits `Engine`, an entry in `ENGINES`, its name in `profile.TtsPart`.
"""

import hashlib
import importlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import soundfile

from syn2real_utils import audio, machine
from syn2real_utils.corpora.base import clip_name, write_audiofolder
from syn2real_utils.errors import UserError, names
from syn2real_utils.profile import TtsPart
from syn2real_utils.progress import say, track
from syn2real_utils.store import Store, write_text_atomic
from syn2real_utils.text import spoken
from syn2real_utils.tts import quality
from syn2real_utils.tts.quality import HEARD_BY, Listen, QualityReport, inspect, misheard

ENGINES = {
    "kokoro": "Kokoro",
    "pico": "Pico",
    "bark": "Bark",
    "speecht5": "SpeechT5",
}  # module of this package: its class


class Engine(Protocol):
    """A TTS engine. It is made with the store that holds its weights and fetches them when they are not there.

    `speak` gives the same bytes for the same arguments, whatever was spoken before, in any process and from several threads
    at once.
    """

    name: ClassVar[str]
    voices: Mapping[str, tuple[str, ...]]  # ISO 639-1 language: its voices; of the class, those that need no clips

    def __init__(self, store: Store, part: TtsPart | None = None): ...

    def settings(self, seed: int) -> dict[str, Any]:
        """What `speak` adds to voice and text for this seed, JSON-able."""

    def speak(self, spoken: str, voice: str, language: str, seed: int) -> tuple[np.ndarray, int]:
        """A wave, float32 (samples,) in [-1, 1], and its rate in Hz; (0,) for a text that the engine cannot say."""


class Saying(NamedTuple):
    """A clip to be spoken."""

    spoken: str
    voice: str
    seed: int


@runtime_checkable
class BatchEngine(Engine, Protocol):
    """An engine that is faster with several texts at once. A clip is the same, up to rounding, in whatever batch it is made."""

    batch_size: int
    one_voice: ClassVar[bool]  # whether all of a batch have the same voice
    longest: ClassVar[Mapping[str, float]]  # language: seconds per letter above which a clip holds more than its text

    def speak_batch(self, sayings: Sequence[Saying]) -> tuple[list[np.ndarray], int]:
        """What `speak` gives, for each."""


def check_tts(name: str, language: str, voices: list[str] | None = None) -> list[str]:
    """The voices that a profile asks for; None: all that the engine has for the language. Fetches nothing.

    Raises:
        UserError: unknown TTS or voice, or a language that the engine does not speak.
    """
    available = _engine_class(name).voices
    if language not in available:
        others = [n for n in ENGINES if language in _engine_class(n).voices]
        instead = (
            f"use {names(others)}" if others else f"no TTS here does (ISO 639-1, as en); it speaks {names(available)}"
        )
        raise UserError(f"TTS '{name}' does not speak '{language}': {instead}")
    return _chosen(name, language, available[language], voices)


def _chosen(name: str, language: str, known: Sequence[str], voices: list[str] | None) -> list[str]:
    if voices is None:
        return list(known)
    if unknown := [v for v in voices if v not in known]:
        raise UserError(f"TTS '{name}' has no voice '{unknown[0]}' for '{language}': it has {names(known)}")
    if not voices or len(set(voices)) < len(voices):
        raise UserError(f"voices of TTS '{name}': expected one or more of {names(known)}, each once")
    return voices


def load_engine(part: TtsPart, store: Store) -> Engine:
    """The engine, ready to speak; its weights are fetched when they are not in the store.

    Raises:
        UserError: unknown TTS, or its weights cannot be had.
    """
    with machine.enough_memory(f"TTS '{part.name}'"):
        return _engine_class(part.name)(store, part)


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
    rows: pd.DataFrame,
    part: TtsPart,
    language: str,
    store: Store,
    into: Path,
    workers: int = 2,
    listen: Listen | None = None,
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
        listen: gives what the ASR of `part.round_trip` hears in clips.

    Raises:
        UserError: unknown TTS, voice or language, weights that cannot be had, or too little memory on the GPU.
    """
    check_tts(part.name, language)
    if rows.empty:
        raise UserError(f"no texts for TTS '{part.name}' to speak: expected at least one row")
    engine = load_engine(part, store)
    voices = _chosen(part.name, language, engine.voices[language], part.voices)
    clips = schedule(rows, part, voices, language, engine)
    _render(engine, clips, into, workers)
    longest = engine.longest[language] if isinstance(engine, BatchEngine) else quality.LONGEST
    checked = [inspect(into / clip.file_name, clip.spoken, longest) for clip in clips.itertuples()]
    clips = clips.assign(duration=[seconds for seconds, _ in checked], quality=[reason for _, reason in checked])
    heard = HEARD_BY if part.round_trip and listen else ()
    if part.round_trip and listen:
        clips = misheard(clips, part.round_trip, language, into, listen)
    _remove_others(clips.file_name, into)
    flagged = clips[clips.quality != "ok"].sort_values("utterance")
    columns = ["file_name", "utterance", "domain", "spoken", "voice", "settings", "duration", "quality"]
    listed = flagged[columns].to_csv(index=False, lineterminator="\n", float_format="%.3f")
    write_text_atomic(into / "quality.csv", listed)
    write_audiofolder(clips, into, synthetic=True, more=heard)
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


def _engine_class(name: str) -> type[Engine]:
    if name not in ENGINES:
        raise UserError(f"unknown TTS '{name}': use one of {names(ENGINES)}")
    return getattr(importlib.import_module(f"syn2real_utils.tts.{name}"), ENGINES[name])


def _render(engine: Engine, clips: pd.DataFrame, into: Path, workers: int) -> None:
    """Speak the clips that are not in `into` yet."""
    missing = [clip for clip in clips.itertuples() if not (into / clip.file_name).exists()]
    if isinstance(engine, BatchEngine):
        _render_batches(engine, missing, into)
        return

    def make(clip: Any) -> None:
        wave, rate = engine.speak(clip.spoken, clip.voice, clip.language, clip.seed)
        write_clip(into / clip.file_name, wave, rate)

    pool = ThreadPoolExecutor(workers)
    try:
        # the longest first: else one worker ends long after the others
        missing.sort(key=lambda clip: -len(clip.spoken))
        jobs = [pool.submit(make, clip) for clip in missing]
        for job in track(jobs, f"speak {clips.domain.iloc[0]} with {engine.name}"):
            job.result()
    finally:  # after an error or an interrupt, what has not begun is given up
        pool.shutdown(cancel_futures=True)


def _render_batches(engine: BatchEngine, missing: list[Any], into: Path) -> None:
    """Speak texts of like length together; a batch is on the disk before the next begins."""
    missing = sorted(missing, key=lambda clip: (engine.one_voice and clip.voice, len(clip.spoken), clip.file_name))
    batches: list[list[Any]] = []
    for clip in missing:
        fits = batches and len(batches[-1]) < engine.batch_size
        if fits and not (engine.one_voice and batches[-1][0].voice != clip.voice):
            batches[-1].append(clip)
        else:
            batches.append([clip])
    done = 0
    for batch in track(batches, f"speak batches of {engine.batch_size} with {engine.name}"):
        left = f"the {done} clips that are finished are kept" if done else "nothing was finished"
        remedy = machine.lower(f"batch_size of TTS '{engine.name}'", engine.batch_size, len(batch))
        with machine.enough_memory(f"{len(batch)} texts at once", f"{remedy} and call again; {left}"):
            waves, rate = engine.speak_batch([Saying(clip.spoken, clip.voice, clip.seed) for clip in batch])
        for clip, wave in zip(batch, waves, strict=True):
            write_clip(into / clip.file_name, wave, rate)
        done += len(batch)


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
