"""What a model, a vector or synthetic speech is made of, and under whose licence; data/README.md has the sources.

The one place that knows: cards, results, reports, lineages and LICENCE.txt say what stands here.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from syn2real_utils import hubnames
from syn2real_utils.profile import ARCTIC, SOURCE, Profile, TtsPart

if TYPE_CHECKING:
    import pandas as pd

LICENCE = "LICENCE.txt"  # beside speech and x-vectors
LICENCE_IDS = {"GPL-2": "gpl-2.0"}  # licences whose name on the Hugging Face hub is not their own in small letters
UNKNOWN = "not known here"


@dataclass(frozen=True)
class Origin:
    """Weights, recordings, texts or a TTS engine."""

    name: str
    licence: str
    noncommercial: bool = False
    hub: str | None = None  # name on the Hugging Face hub

    def line(self) -> str:
        """Name and licence, for people."""
        if self.licence == UNKNOWN:
            return f"{self.name}: see its source"
        return f"{self.name} {self.licence}" + (" (not for commercial use)" if self.noncommercial else "")


ORIGINS = {
    "base": Origin("Whisper base", "MIT", hub="openai/whisper-base"),
    "tiny.en": Origin("Whisper tiny.en", "MIT", hub="openai/whisper-tiny.en"),
    "tuxpaint": Origin("recordings of Tux Paint", "GPL-2"),
    "asterisk": Origin("prompts of Asterisk", "CC-BY-SA-3.0"),
    "slurp": Origin("recordings of SLURP", "CC-BY-NC-4.0", noncommercial=True),
    "folder": Origin("the user's own recordings", UNKNOWN),
    "kokoro": Origin("Kokoro-82M", "Apache-2.0"),
    "pico": Origin("SVOX Pico", "Apache-2.0"),
    "bark": Origin("Bark", "MIT", hub="suno/bark"),
    "speecht5": Origin("SpeechT5 and its HiFi-GAN", "MIT", hub="microsoft/speecht5_tts"),
}
TEXTS = {  # of corpora whose recordings have another licence or name
    "tuxpaint": Origin("texts of Tux Paint", "GPL-2"),
    "asterisk": Origin("texts of the prompts of Asterisk", "CC-BY-SA-3.0"),
    "slurp": Origin("texts of SLURP", "CC-BY-4.0"),
    "folder": Origin("the user's own texts", UNKNOWN),
}
FREER = {"it": "CC-BY-3.0", "ru": "CC-BY-3.0"}  # language of Asterisk's prompts -> their licence, where it is another
VOICES = Origin("voices of the user's own clips", UNKNOWN)


def origin(name: str) -> Origin:
    """Of a backbone, corpus or TTS engine by the name that a profile gives it; one that we do not know keeps its name.

    Of a folder only the last part of its path is told, for what is made of it may go elsewhere.
    """
    repository = name.partition("@")[0]
    if known := ORIGINS.get(name) or ORIGINS.get(repository.removeprefix("openai/whisper-")):
        return known
    if listed := hubnames.HUB.get(repository):
        return Origin(repository, listed.licence, hub=repository)
    on_hub = name.count("/") == 1 and not name.startswith((".", "~", "/"))
    return Origin(name if on_hub else Path(name).name, UNKNOWN)


def of_corpus(profile: Profile, texts: bool = False) -> Origin:
    """Of the recordings of a profile's corpus, or of its texts alone."""
    return of_speech(profile.corpus.name, profile.corpus.language, texts)


def of_speech(corpus: str, language: str, texts: bool = False) -> Origin:
    """Of the recordings of a corpus in a language, or of its texts alone."""
    found = TEXTS.get(corpus, origin(corpus)) if texts else origin(corpus)
    licence = FREER.get(language) if corpus == "asterisk" else None
    return dataclasses.replace(found, licence=licence) if licence else found


def of_engine(part: TtsPart) -> Origin:
    """Of a TTS engine; of one that is given as `model`, as that says."""
    return origin(part.model) if part.model else origin(part.name)


def of_profile(profile: Profile, engines: Sequence[str] | None = None) -> tuple[Origin, ...]:
    """What a run is made of, or what of it is made with some of its TTS engines: real speech is part of tau."""
    spoken = [part.name for part in profile.tts] if engines is None else engines
    return (*_trained(profile, real=True), *of_synthetic(profile, spoken))


def of_clips(profile: Profile, rows: "pd.DataFrame", judged: bool = False) -> tuple[Origin, ...]:
    """What a model is made of that was trained on clips.

    Args:
        profile: of the run.
        rows: the clips; synthetic ones have an `engine`.
        judged: real speech of the corpus chose its checkpoint.
    """
    engines = sorted(set(rows.engine.dropna())) if "engine" in rows else []
    real = judged or "engine" not in rows or bool(rows.engine.isna().any())
    return (*_trained(profile, real), *of_synthetic(profile, engines))


def of_synthetic(profile: Profile, engines: Sequence[str]) -> tuple[Origin, ...]:
    """What synthetic speech is made of: texts, engines, and recordings where their voices are the speakers'."""
    parts = {part.name: part for part in profile.tts}
    voices = {part.speakers for name, part in parts.items() if name in engines} - {None, ARCTIC}
    found = [of_corpus(profile, texts=True)] if engines else []
    found += [of_engine(parts[name]) if name in parts else origin(name) for name in engines]
    if SOURCE in voices:
        found += [of_corpus(profile)]
    return tuple(dict.fromkeys([*found, *([VOICES] if voices - {SOURCE} else [])]))


def lines(parts: Iterable[Origin]) -> tuple[str, ...]:
    """Each part once, as a lineage holds it."""
    return tuple(dict.fromkeys(part.line() for part in parts))


def terms(parts: Iterable[Origin]) -> list[str]:
    """What binds something that is made of these parts, for people: a sentence or two."""
    parts = list(dict.fromkeys(parts))
    strict = [part.name for part in parts if part.noncommercial]
    said = f"Weights, TTS and speech have licences of their own, which bind what is made of them: {'; '.join(lines(parts))}."
    return [said, *([f"Not for commercial use: {' and '.join(strict)} forbid it."] if strict else [])]


def _trained(profile: Profile, real: bool) -> list[Origin]:
    return [origin(profile.backbone.name), *([of_corpus(profile)] if real else [])]
