"""Read, write, resample, trim and cut clips. A wave is a float32 array of shape (samples,) in [-1, 1]."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

from syn2real_utils.errors import UserError

# What soundfile raises: for raw samples, whose rate no header tells, TypeError, and for a name in no encoding ValueError
UNREADABLE = (soundfile.LibsndfileError, OSError, TypeError, ValueError)
SAMPLE_RATE = 16_000  # Hz, of everything that a backbone hears
SILENCE_DB = -45.0  # dB below the loudest frame; quieter counts as silence
FRAME = 0.010  # seconds, of the frames whose level is measured
KEPT_SILENCE = 0.100  # seconds of silence left on both sides of trimmed speech
LOUDEST = 2.0**31  # a sample; floats of another scale are heard as well, for a log-mel knows no scale
# sizes that programs write that do not know how long the stream will be: the largest numbers of 31 and 32 bits, nearly
STREAMED = (0x7FFF0000, 0xFFFF0000)
PITCHES = (70.0, 450.0)  # Hz, of voices
PITCH_FRAME = 0.040  # seconds: nearly three periods of the lowest
VOICED = 0.5  # a frame is voiced that is as much as this like itself one period later
PAUSE = 0.300  # seconds over which the level is averaged to find a pause; the closure of a consonant is shorter


def read(path: Path | str) -> np.ndarray:
    """A clip as mono at `SAMPLE_RATE`: float32 (samples,). wav, flac, ogg and mp3 at any rate.

    Raises:
        UserError: the clip is missing, unreadable or empty, or a sample is no number.
    """
    try:
        wave, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except UNREADABLE as error:
        raise UserError(f"cannot read the clip {path}: expected wav, flac, ogg or mp3") from error
    if not len(wave):
        raise UserError(f"the clip {path} is empty")
    if not np.isfinite(wave).all():
        raise UserError(f"the clip {path} holds nan or inf: write it again, or leave it out")
    if np.abs(wave).max() > LOUDEST:
        raise UserError(
            f"the clip {path} holds samples beyond {LOUDEST:g}: expected -1 to 1; write it again, or leave it out"
        )
    _check_whole(Path(path))
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
    except UNREADABLE as error:
        raise UserError(f"cannot read the clip {path}: expected wav, flac, ogg or mp3") from error


def resample(wave: np.ndarray, rate: int, to: int = SAMPLE_RATE) -> np.ndarray:
    """`wave` at another rate: float32 (samples * to / rate,)."""
    return wave.astype(np.float32) if rate == to else soxr.resample(wave, rate, to).astype(np.float32)


def trim(wave: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
    """`wave` without the silence before and behind the speech, but for `KEPT_SILENCE`; all silence gives (0,)."""
    loud = sounding(wave, rate)
    if not len(loud):
        return wave[:0]
    kept = round(KEPT_SILENCE * rate)
    return wave[max(0, loud[0] - kept) : loud[-1] + _step(rate) + kept]


def sounding(wave: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
    """First sample of each frame of `FRAME` that is no silence: int64 (frames,), rising; all silence gives (0,)."""
    level = np.sqrt(_power(wave, rate))
    loud = (level > level.max(initial=0.0) * 10 ** (SILENCE_DB / 20)) & (level > 1e-5)
    return np.flatnonzero(loud) * _step(rate)


def pitch(wave: np.ndarray, rate: int = SAMPLE_RATE) -> float:
    """Median pitch of the voiced frames in Hz, by autocorrelation; nan where none is voiced."""
    width, (low, high) = round(PITCH_FRAME * rate), (round(rate / edge) for edge in reversed(PITCHES))
    found = []
    for start in sounding(wave, rate)[::2]:
        frame = wave[start : start + width].astype(np.float64)
        if len(frame) < width or not (frame := frame - frame.mean()).any():
            continue
        alike = np.correlate(frame, frame, "full")[width - 1 :]
        lag = low + int(alike[low:high].argmax())
        if alike[lag] > VOICED * alike[0]:
            found.append(rate / lag)
    return float(np.median(found)) if found else float("nan")


def cut(wave: np.ndarray, longest: float, rate: int = SAMPLE_RATE) -> list[tuple[int, int]]:
    """Cut a wave at its quietest points into pieces of at most `longest` seconds.

    What is too long is cut where its middle third is quietest, and each half is looked at again: so no piece is a
    splinter, and a long recording is cut in its longest pauses first.

    Args:
        wave: float32 (samples,).
        longest: seconds, well above `PAUSE`.
        rate: Hz.

    Returns:
        First sample of each piece and the one behind its last. The pieces are in order and together the whole wave.
    """
    step, most = _step(rate), round(longest * rate)
    if len(wave) <= most:
        return [(0, len(wave))]
    over = round(PAUSE / FRAME)
    pause = np.convolve(_power(wave, rate), np.full(over, 1 / over), mode="same")  # around each frame

    def halve(start: int, stop: int) -> list[tuple[int, int]]:
        if stop - start <= most:
            return [(start, stop)]
        third = (stop - start) // 3
        first = (start + third) // step
        quietest = first + int(np.argmin(pause[first : (stop - third) // step]))
        middle = quietest * step + step // 2
        return halve(start, middle) + halve(middle, stop)

    return halve(0, len(wave))


def _check_whole(path: Path) -> None:
    """Raise UserError where a wav says that it holds more than it does; soundfile reads what is left of it without a word."""
    with open(path, "rb") as file:
        start = file.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            return
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                left = path.stat().st_size - file.tell()
                streamed = any(edge <= size <= edge + 0xFFFF for edge in STREAMED)
                if size > left and not streamed:
                    raise UserError(
                        f"the clip {path} is cut short: {left} of its {size} bytes are there; copy it again"
                    )
                return
            file.seek(size + size % 2, 1)


def _step(rate: int) -> int:
    """Samples of a frame."""
    return max(1, round(FRAME * rate))


def _power(wave: np.ndarray, rate: int) -> np.ndarray:
    """Mean square of each whole frame: float32 (frames,)."""
    step = _step(rate)
    frames = len(wave) // step
    return np.mean(wave[: frames * step].reshape(frames, step) ** 2, axis=1)
