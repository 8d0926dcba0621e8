"""Asterisk's core sounds: a professional speaker per language reads the prompts of a telephone exchange. CC; see data/README.md.

Layout of the packages: `sounds/<voice>/NAME.g722`, 16 kHz, and one list of texts, whose lines read `NAME: text`. The g722 clips
are taken, not the 8 kHz wav: they hold speech above 4 kHz, which a recogniser was trained to hear. libsndfile does not read
g722, so they are decoded once, by ffmpeg, and kept as flac.
"""

import gzip
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from syn2real_utils import audio, fetch, ffmpeg
from syn2real_utils.corpora.base import CorpusReport, check_merge, distinct, publish
from syn2real_utils.errors import UserError, names
from syn2real_utils.profile import CorpusPart
from syn2real_utils.progress import say, track
from syn2real_utils.store import Store, read_utf8, sha256

VERSION = "1.6.1-1"


@dataclass(frozen=True)
class Voice:
    """The recordings of one language."""

    speaker: str
    licence: str
    texts: str  # sha256 of the package asterisk-core-sounds-<language>
    sounds: str  # sha256 of the package asterisk-core-sounds-<language>-g722


VOICES = {
    "en": Voice(
        "Allison Smith",
        "CC-BY-SA-3.0",
        "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
        "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
    ),
    "es": Voice(
        "Allison Smith",
        "CC-BY-SA-3.0",
        "9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74",
        "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8",
    ),
    "fr": Voice(
        "June Wallack",
        "CC-BY-SA-3.0",
        "04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056",
        "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0",
    ),
    "it": Voice(
        "Carlo Flora",
        "CC-BY-3.0",
        "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b",
        "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016",
    ),
    "ru": Voice(
        "IvrvoiceRU",
        "CC-BY-3.0",
        "28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab",
        "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b",
    ),
}  # speakers and licences as the packages' copyright file and folders have them

# Our choice: the first part of a prompt's name says what it is for; parts with fewer than about 40 recordings cannot stand
# alone. `corpus.merge` of a profile replaces it, and may name any first part.
MERGE = {
    "voicemail": ["vm"],
    "numbers": ["digits"],
    "spelling": ["letters", "phonetic"],
    "conference": ["conf", "confbridge"],
}
REST = "calls"  # every other first part
NOTE = re.compile(r"[\[(<]\W*[\])>]")  # of a sign, as in "dash [-]"
DIRECTION = re.compile(r"[\[\](){}<>]")
KEYS = re.compile(r"[*#]")
TOGETHER = 64  # clips that one ffmpeg decodes


def prepare(part: CorpusPart, folds: int, store: Store, into: Path) -> CorpusReport:
    """Fill `into` with the prompts of one language, one row per distinct recording.

    Args:
        part: `path` is a folder with `core-sounds-<language>.txt` and NAME.wav or NAME.flac below it; None fetches the Debian
            packages.
        folds: parts of each domain's texts.
        store: where the fetched recordings of the language are kept.
        into: folder to fill.

    Raises:
        UserError: no such language, or the recordings can be had neither from apt nor from `path`.
    """
    language = part.language
    if language not in VOICES:
        raise UserError(f"Asterisk has no prompts in '{language}': use one of {names(VOICES)}")
    voice = VOICES[language]
    if part.path:
        root = Path(part.path).expanduser()
    else:
        key = {"version": VERSION, "texts": voice.texts, "sounds": voice.sounds}
        root = store.build("data/sources", f"asterisk-{language}", key, lambda folder: _fetch(language, folder)).path
    say(f"Asterisk prompts in '{language}': spoken by {voice.speaker}, {voice.licence}")
    found, dropped = recordings(root, language)
    check_merge(part.merge, set(found.domain))
    return publish(found, dropped, part, folds, into, part.merge or _merge(set(found.domain)))


def recordings(root: Path, language: str) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """One row per distinct recording below `root`, and (utterance, reason) of the files that are left out.

    Raises:
        UserError: there is no list of texts, no clip, or a clip cannot be read.
    """
    listed = root / f"core-sounds-{language}.txt"
    files = sorted(file for file in root.rglob("*") if file.suffix in (".flac", ".wav"))
    if not listed.is_file() or not files:
        raise UserError(
            f"no Asterisk prompts in '{language}' below {root}: expected {listed.name} and NAME.wav or NAME.flac"
        )
    texts = _texts(listed)
    table, dropped = [], []
    for file in track(files, "read Asterisk"):
        utterance = file.relative_to(root).with_suffix("").as_posix()
        text = texts.get(utterance, "")
        if reason := _unsaid(text):
            dropped.append((utterance, reason))
        else:
            table.append({"utterance": utterance, "recording": str(file), "transcription": text, "hash": sha256(file)})
    found, again = distinct(pd.DataFrame(table, columns=["utterance", "recording", "transcription", "hash"]), language)
    domains = [re.split("[/-]", utterance)[0] for utterance in found.utterance]
    seconds = [audio.duration(clip) for clip in found.recording]
    return found.assign(domain=domains, speaker=VOICES[language].speaker, split="", duration=seconds), dropped + again


def _texts(listed: Path) -> dict[str, str]:
    """Name -> text without the signs in brackets; a name that is listed twice has no text, for nobody knows which is said."""
    texts: dict[str, str] = {}
    for line in read_utf8(listed).splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            said = re.sub(r"\s+", " ", NOTE.sub("", text)).strip()
            texts[name.strip()] = "" if name.strip() in texts else said
    return texts


def _unsaid(text: str) -> str:
    """Why a text is not what is said, or ""."""
    if not text:
        return "no text"
    if DIRECTION.search(text):
        return "a stage direction, or a text with one"
    if KEYS.search(text):
        return "a key (* or #) that is not written as it is said"
    return ""


def _merge(domains: set[str]) -> dict[str, list[str]]:
    named = {old for folders in MERGE.values() for old in folders}
    return MERGE | {REST: sorted(domains - named)}


def _fetch(language: str, into: Path) -> None:
    """Keep the clips of one language as flac, their texts and the licence."""
    unpacked = into / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # of a killed attempt
    package, voice = f"asterisk-core-sounds-{language}", VOICES[language]
    try:
        fetch.debian_tree(package, VERSION, voice.texts, unpacked)
        fetch.debian_tree(f"{package}-g722", VERSION, voice.sounds, unpacked)
    except fetch.UnreachableError as error:
        raise UserError(
            f"{error}; without apt get the wav and the texts of asterisk-core-sounds-{language} from the Asterisk project, "
            "unpack both into one folder, and give it as corpus.path"
        ) from error
    about = unpacked / "usr" / "share" / "doc" / package
    listed = f"core-sounds-{language}.txt"
    (into / listed).write_bytes(gzip.decompress((about / f"{listed}.gz").read_bytes()))
    shutil.copyfile(about / "copyright", into / "copyright")
    (sounds,) = (folder for folder in (unpacked / "usr/share/asterisk/sounds").iterdir() if folder.is_dir())
    clips = sorted(sounds.rglob("*.g722"))
    for first in track(range(0, len(clips), TOGETHER), "decode Asterisk"):
        some = clips[first : first + TOGETHER]
        _decode(some, [into / clip.relative_to(sounds).with_suffix(".flac") for clip in some])
    shutil.rmtree(unpacked)


def _decode(clips: list[Path], targets: list[Path]) -> None:
    """g722 -> flac, several at once, for a process costs more than a clip."""
    command = [ffmpeg.program(), "-v", "error", "-nostdin", "-y", "-threads", "1"]
    for clip in clips:
        command += ["-f", "g722", "-i", str(clip)]
    for place, target in enumerate(targets):
        target.parent.mkdir(parents=True, exist_ok=True)
        command += ["-map", str(place), "-fflags", "+bitexact", "-flags:a", "+bitexact", str(target)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"ffmpeg cannot decode g722: {(result.stderr.strip() or 'it said nothing').splitlines()[-1]}")
