"""Quality control of synthetic clips: what looks or sounds wrong is flagged, never dropped in silence."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from syn2real_utils import audio
from syn2real_utils.profile import RoundTripPart
from syn2real_utils.text import normalise

HEARD_BY = ("char_errors", "n_chars")  # columns of clips that the ASR of a round trip heard
# Measured on the 737 texts of Spanish Tux Paint, trimmed, in seconds per letter or digit of the spoken text.
SHORTEST = 0.03
LONGEST = 0.50
PAUSE = 0.5  # seconds that a text may take whatever its length: single letters and signs are said slowly
LOUD = 0.999  # of full scale; a sample above it counts as clipped
CLIPPED = 0.01  # share of clipped samples above which a clip is flagged
SILENT = 0.001  # of full scale; a clip whose peak is below it is empty
HEARD = 30.0  # seconds that Whisper hears at once

Listen = Callable[[list[Path]], list[str]]  # what an ASR hears in clips


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


def inspect(clip: Path, said: str, longest: float = LONGEST) -> tuple[float, str]:
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
    if seconds > longest * letters + PAUSE:
        return seconds, "too long for its text"
    return seconds, "ok"


def misheard(clips: pd.DataFrame, trip: RoundTripPart, language: str, into: Path, listen: Listen) -> pd.DataFrame:
    """Flag the clips whose transcript is too far from their text; `HEARD_BY` says how far, 0 of 0 where nobody listened."""
    import jiwer

    good = clips[clips.quality == "ok"]
    heard = listen([into / name for name in good.file_name]) if len(good) else []
    quality, counts = clips.quality.copy(), pd.DataFrame(0, index=clips.index, columns=list(HEARD_BY))
    for index, text, transcript in zip(good.index, good.transcription, heard, strict=True):
        if reference := normalise(text, language):
            found = jiwer.process_characters(reference, normalise(transcript, language))
            errors, letters = found.substitutions + found.deletions + found.insertions, len(reference)
            counts.loc[index] = errors, letters
            if errors / letters > trip.max_cer:
                quality[index] = f"misheard by {trip.asr}"
    return clips.assign(quality=quality, **counts)
