"""Synthetic clips made to sound recorded: noise or the echo of a room, once for each clip, as an AudioFolder of the store.

An augmented clip stands in for the clean one, so that a model is trained in as many steps with it as without.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from syn2real_utils import audio, speech
from syn2real_utils.backbones.base import LONGEST
from syn2real_utils.corpora.base import read_audiofolder, write_audiofolder
from syn2real_utils.errors import UserError
from syn2real_utils.origins import LICENCE
from syn2real_utils.profile import AugmentationPart, Profile
from syn2real_utils.progress import track
from syn2real_utils.store import Artifact, Store

VERSION = 1  # raise it when the same settings would make other clips
PEAK = 0.99  # of full scale, that a clip which an echo or noise made too loud is brought down to
NEAREST = 0.5  # metres of a speaker or microphone from the walls


def augmented(profile: Profile, tts: str, domain: str, how: str) -> Artifact:
    """The clips of `speech.synthetic`, each with `how`: "noise" or "rir"."""
    clean, part = speech.synthetic(profile, tts, domain), profile.augmentation
    key = {"version": VERSION, "clips": clean.fingerprint, "how": how, "settings": part.settings(how)}

    def make(into: Path) -> None:
        rows = read_audiofolder(clean.path, synthetic=True)
        what = f"{how} for {domain} by {tts}"
        for row in track(list(rows.itertuples()), what):
            wave = WAYS[how](audio.read(row.path), part, _dice(part.seed, how, row.utterance))
            (into / row.file_name).parent.mkdir(parents=True, exist_ok=True)
            audio.write(into / row.file_name, wave * min(1.0, PEAK / max(np.abs(wave).max(), 1e-9)))
        rows = rows.assign(duration=[audio.duration(into / name) for name in rows.file_name])
        write_audiofolder(rows, into, synthetic=True)
        if (clean.path / LICENCE).is_file():
            shutil.copyfile(clean.path / LICENCE, into / LICENCE)

    return Store().build(speech.SYNTHETIC, f"{how}-{tts}-{profile.corpus.language}-{domain}", key, make)


def with_augmented(profile: Profile, tts: str, rows: pd.DataFrame, how: str) -> pd.DataFrame:
    """Rows of synthetic speech with the paths of their augmented clips."""
    folders = {domain: augmented(profile, tts, domain, how).path for domain in rows.domain.unique()}
    return rows.assign(path=[str(folders[d] / name) for d, name in zip(rows.domain, rows.file_name, strict=True)])


def noise(wave: np.ndarray, part: AugmentationPart, dice: np.random.Generator) -> np.ndarray:
    """Stationary noise of a drawn colour (power falls with f^-c, c from 0, white, to 2, brown) and signal-to-noise ratio.

    As AddColorNoise of audiomentations, which is not used: it draws from two global generators, so that a clip would depend on
    those before it, and asks for an older soxr and for librosa with numba.
    """
    spectrum = np.fft.rfft(dice.standard_normal(len(wave)))
    frequency = np.maximum(np.fft.rfftfreq(len(wave)), 50 / audio.SAMPLE_RATE)  # as loud below 50 Hz as at 50 Hz
    drawn = np.fft.irfft(spectrum * frequency ** (-dice.uniform(0, 2) / 2), len(wave))
    ratio = 10 ** (-dice.uniform(*part.snr_db) / 20)
    return (wave + drawn * (ratio * _level(wave) / max(_level(drawn), 1e-12))).astype(np.float32)


def rir(wave: np.ndarray, part: AugmentationPart, dice: np.random.Generator) -> np.ndarray:
    """The clip as a microphone hears it across a drawn room: the image-source method of pyroomacoustics.

    Raises:
        UserError: pyroomacoustics is not installed.
    """
    try:
        import pyroomacoustics
        from scipy.signal import fftconvolve
    except ImportError as error:
        raise UserError("room impulse responses need pyroomacoustics: pip install 'syn2real-utils[rooms]'") from error
    size = [dice.uniform(*span) for span in part.room_m]
    seconds = dice.uniform(*part.rt60_s)
    try:
        absorption, order = pyroomacoustics.inverse_sabine(seconds, size)
    except ValueError:  # no material absorbs enough for so short an echo in so large a room: the most there is
        absorption, order = 0.99, 3
    room = pyroomacoustics.ShoeBox(
        size, fs=audio.SAMPLE_RATE, materials=pyroomacoustics.Material(absorption), max_order=min(order, part.max_order)
    )
    places = [[dice.uniform(NEAREST, side - NEAREST) for side in size] for _ in range(2)]
    room.add_source(places[0])
    room.add_microphone(places[1])
    room.compute_rir()
    response = np.asarray(room.rir[0][0])
    first = int(np.argmax(np.abs(response) > 0.1 * np.abs(response).max()))  # the way through the air is no silence
    heard = fftconvolve(wave, response[first:])[: len(wave) + round(part.tail_s * audio.SAMPLE_RATE)]
    heard = heard[: round(LONGEST * audio.SAMPLE_RATE)]  # else no model could hear it
    return (heard * (_level(wave) / max(_level(heard), 1e-12))).astype(np.float32)


WAYS: dict[str, Callable[[np.ndarray, AugmentationPart, np.random.Generator], np.ndarray]] = {
    "noise": noise,
    "rir": rir,
}


def _level(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def _dice(*key: object) -> np.random.Generator:
    """A generator of its own for each clip, so that its sound depends on no other."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(":".join(map(str, key)).encode()).digest()[:8], "big"))
