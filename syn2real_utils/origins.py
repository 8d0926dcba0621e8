"""What a model or a vector is made of, and under whose licence; data/README.md has the sources."""

from dataclasses import dataclass

from syn2real_utils import hubnames

LICENCE_IDS = {"GPL-2": "gpl-2.0"}  # licences whose name on the Hugging Face hub is not their own in small letters


@dataclass(frozen=True)
class Origin:
    """Weights, recordings or a TTS engine."""

    name: str
    licence: str
    noncommercial: bool = False
    hub: str | None = None  # name on the Hugging Face hub

    def line(self) -> str:
        """Name and licence, for people."""
        return f"{self.name} {self.licence}" if self.licence != UNKNOWN else f"{self.name}: see its source"

    def licence_id(self) -> str:
        """The licence as the hub's model cards name it."""
        return "other" if self.licence == UNKNOWN else LICENCE_IDS.get(self.licence, self.licence.lower())


UNKNOWN = "not known here"
ORIGINS = {
    "base": Origin("Whisper base", "MIT", hub="openai/whisper-base"),
    "tiny.en": Origin("Whisper tiny.en", "MIT", hub="openai/whisper-tiny.en"),
    "tuxpaint": Origin("recordings of Tux Paint", "GPL-2"),
    "asterisk": Origin("prompts of Asterisk", "CC-BY-SA-3.0"),  # those in Italian and Russian: CC-BY-3.0
    "slurp": Origin("recordings of SLURP", "CC-BY-NC-4.0", noncommercial=True),
    "kokoro": Origin("Kokoro-82M", "Apache-2.0"),
    "pico": Origin("SVOX Pico", "Apache-2.0"),
    "bark": Origin("Bark", "MIT", hub="suno/bark"),
    "speecht5": Origin("SpeechT5 and its HiFi-GAN", "MIT", hub="microsoft/speecht5_tts"),
}


def origin(name: str) -> Origin:
    """Of a backbone, corpus or TTS engine by the name that a profile gives it; one that we do not know keeps its name."""
    repository = name.partition("@")[0]
    if known := ORIGINS.get(name) or ORIGINS.get(repository.removeprefix("openai/whisper-")):
        return known
    if listed := hubnames.HUB.get(repository):
        return Origin(repository, listed.licence, hub=repository)
    return Origin(name, UNKNOWN)
