"""Text from speech: any model folder on clips of any length, outside a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from syn2real_utils import audio
from syn2real_utils.backbones import sources
from syn2real_utils.backbones.base import LONGEST, open_backbone, own_language
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import read_lineage
from syn2real_utils.profile import BackbonePart
from syn2real_utils.progress import say, track
from syn2real_utils.store import Store
from syn2real_utils.text import normaliser_version
from syn2real_utils.transcripts import Segment, Transcript, find_clips

BATCH = 16  # pieces that are decoded at once
GROUP = 256  # pieces whose features are in memory at once: 1 or 2 MB each at 30 s


@dataclass(frozen=True)
class Piece:
    """A stretch of a clip that the model hears at once, in samples at `audio.SAMPLE_RATE`."""

    start: int
    stop: int
    first: int  # where its first sound begins
    last: int  # where its last sound ends


@dataclass(frozen=True)
class Clip:
    """A clip, cut."""

    file: str
    samples: int
    pieces: tuple[Piece, ...]  # those with a sound, each of 30 s at most


def transcribe(
    model: Path | str, clips: Sequence[Path | str] | Path | str, language: str | None = None, full_context: bool = False
) -> list[Transcript]:
    """What a model hears in clips, in their order.

    A clip of more than 30 s is cut at its quietest points, and each piece is a segment. What holds no sound is not
    decoded: a model would invent words for it.

    Args:
        model: folder of a model, or the name of a backbone, as `sources.resolve` takes it.
        clips: files, and folders that are searched for clips.
        language: ISO 639-1; None: the model's own.
        full_context: pad every piece to 30 s; always done for a model without lineage.json, which was not fine-tuned
            on cut contexts.

    Raises:
        UserError: no such model, clip or language, an unreadable clip, or a language that must be given and is not.
    """
    if language:
        normaliser_version(language)  # known, or says so
    files = find_clips(clips)
    for file in files:
        audio.duration(file)  # what cannot be opened is named before weights are fetched
    folder = sources.resolve(str(model), Store())
    asr = open_backbone(folder, language or _language(folder, str(model)), BackbonePart(name=str(model)))
    full = full_context or read_lineage(folder) is None
    found = [_cut(file) for file in track(files, "read the clips")]
    network, heard = asr.load(), []
    for start, group in _groups(found):
        if len(group) < len(found):
            say(f"clips {start + 1} to {start + len(group)} of {len(found)}")
        features = [asr.of_wave(wave, full) for clip in group for wave in _waves(clip)]
        texts = iter(asr.transcribe(network, features, BATCH))
        heard += [_transcript(clip, [next(texts) for _ in clip.pieces]) for clip in group]
    return heard


def pieces(clips: Sequence[Path | str]) -> Iterator[np.ndarray]:
    """The waves of clips of any length, cut as `transcribe` cuts them; what holds no sound is left out."""
    for clip in clips:
        yield from _waves(_cut(str(clip)))


def _language(folder: Path, model: str) -> str:
    if own := own_language(folder):
        return own
    raise UserError(f"--language is missing: {model} knows many and does not say which; give one such as es")


def _cut(file: str) -> Clip:
    wave = audio.read(file)
    sounds = audio.sounding(wave)
    pieces = []
    for start, stop in audio.cut(wave, LONGEST):
        inside = sounds[np.searchsorted(sounds, start) : np.searchsorted(sounds, stop)]
        if len(inside):
            last = min(int(inside[-1]) + round(audio.FRAME * audio.SAMPLE_RATE), stop)
            pieces.append(Piece(start, stop, int(inside[0]), last))
    return Clip(file, len(wave), tuple(pieces))


def _groups(clips: Sequence[Clip]) -> Iterator[tuple[int, list[Clip]]]:
    """Neighbours that together have about `GROUP` pieces, each group with the place of its first clip."""
    start, pieces = 0, 0
    for i, clip in enumerate(clips):
        if i > start and pieces + len(clip.pieces) > GROUP:
            yield start, list(clips[start:i])
            start, pieces = i, 0
        pieces += len(clip.pieces)
    yield start, list(clips[start:])


def _waves(clip: Clip) -> list[np.ndarray]:
    """The samples of each piece; read again, so that a folder's waves need not all be in memory."""
    wave = audio.read(clip.file) if clip.pieces else np.zeros(0, np.float32)
    return [wave[piece.start : piece.stop] for piece in clip.pieces]


def _transcript(clip: Clip, texts: Sequence[str]) -> Transcript:
    segments = [
        Segment(_seconds(piece.first), _seconds(piece.last), " ".join(text.split()))
        for piece, text in zip(clip.pieces, texts, strict=True)
    ]
    return Transcript(clip.file, _seconds(clip.samples), tuple(segment for segment in segments if segment.text))


def _seconds(samples: int) -> float:
    return round(samples / audio.SAMPLE_RATE, 3)
