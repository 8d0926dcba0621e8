"""Read, write, resample and trim clips. A wave is a float32 array of shape (samples,) in [-1, 1]."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

from syn2real_utils.errors import UserError

SAMPLE_RATE = 16_000  # Hz, of everything that a backbone hears
SILENCE_DB = -45.0  # dB below the loudest frame; quieter counts as silence
FRAME = 0.010  # seconds, of the frames whose level is measured
KEPT_SILENCE = 0.100  # seconds of silence left on both sides of trimmed speech


def read(path: Path | str) -> np.ndarray:
    """A clip as mono at `SAMPLE_RATE`: float32 (samples,). wav, flac, ogg and mp3 at any rate.

    Raises:
        UserError: the clip is missing, unreadable or empty.
    """
    try:
        wave, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"cannot read the clip {path}: expected wav, flac, ogg or mp3") from error
    if not len(wave):
        raise UserError(f"the clip {path} is empty")
    return resample(wave.mean(axis=1), rate)


def write(path: Path, wave: np.ndarray, rate: int = SAMPLE_RATE) -> None:
    """Write a mono clip as 16-bit; the format follows the file name (.wav or .flac)."""
    soundfile.write(str(path), np.clip(wave, -1.0, 1.0), rate, subtype="PCM_16")


def duration(path: Path | str) -> float:
    """Seconds of a clip, read from its header.

    Raises:
        UserError: the clip is missing or unreadable.
    """
    try:
        return float(soundfile.info(str(path)).duration)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"cannot read the clip {path}: expected wav, flac, ogg or mp3") from error


def resample(wave: np.ndarray, rate: int, to: int = SAMPLE_RATE) -> np.ndarray:
    """`wave` at another rate: float32 (samples * to / rate,)."""
    return wave.astype(np.float32) if rate == to else soxr.resample(wave, rate, to).astype(np.float32)


def trim(wave: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
    """`wave` without the silence before and behind the speech, but for `KEPT_SILENCE`; all silence gives (0,)."""
    step = max(1, round(FRAME * rate))
    frames = len(wave) // step
    if not frames:
        return wave[:0]
    level = np.sqrt(np.mean(wave[: frames * step].reshape(frames, step) ** 2, axis=1))
    loud = np.flatnonzero((level > level.max() * 10 ** (SILENCE_DB / 20)) & (level > 1e-5))
    if not len(loud):
        return wave[:0]
    kept = round(KEPT_SILENCE * rate)
    return wave[max(0, loud[0] * step - kept) : (loud[-1] + 1) * step + kept]
