"""Tux Paint stamps: volunteers name what a child stamps. GPL-2; see data/README.md.

Layout of the package: `stamps/<folder>/**/NAME_desc_<language>.ogg` beside `NAME.txt`, whose first line is the English text
(recorded in `NAME_desc.ogg`) and whose others read `<language>.utf8=text`.
"""

import re
import shutil
import tarfile
from pathlib import Path

import pandas as pd

from syn2real_utils import audio, fetch
from syn2real_utils.corpora.base import CorpusReport, check_merge, distinct, publish
from syn2real_utils.errors import UserError, names
from syn2real_utils.profile import CorpusPart
from syn2real_utils.progress import say, track
from syn2real_utils.store import Store, read_utf8, sha256

PACKAGE, VERSION = "tuxpaint-stamps-default", "2022.06.04-1"
SHA256 = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
# The same files as upstream releases them; the checksum is that of Debian's source package.
RELEASE = (
    "https://downloads.sourceforge.net/project/tuxpaint/tuxpaint-stamps/2022-06-04/tuxpaint-stamps-2022.06.04.tar.gz"
)
RELEASE_SHA256 = "842065576fae554358e00e51d71a492616a6490b12b592228067477c287a0bf8"
LANGUAGES = ("be", "bg", "ca", "da", "el", "en", "es", "fr", "nl", "ro", "ru")  # with recordings and texts of their own

# Our choice: folders of fewer than about 40 recordings cannot stand alone. `corpus.merge` of a profile replaces it.
MERGE = {
    "nature": ["plants", "naturalforces", "space"],
    "people": ["people", "medical", "military"],
    "leisure": ["hobbies", "sports"],
}


def prepare(part: CorpusPart, folds: int, store: Store, into: Path) -> CorpusReport:
    """Fill `into` with the recordings of one language, one row per distinct recording.

    Args:
        part: `path` is the unpacked upstream source release, or its `stamps` folder; None fetches the Debian package.
        folds: parts of each domain's texts.
        store: where the fetched recordings of the language are kept.
        into: folder to fill.

    Raises:
        UserError: no such language, or the recordings can be had neither from apt nor from `path`.
    """
    if part.language not in LANGUAGES:
        raise UserError(f"Tux Paint has no speech in '{part.language}': use one of {names(LANGUAGES)}")
    if part.path:
        stamps = _given(Path(part.path).expanduser())
    else:
        key = {"package": PACKAGE, "sha256": SHA256, "language": part.language}
        stamps = (
            store.build(
                "data/sources", f"tuxpaint-{part.language}", key, lambda folder: _fetch(part.language, folder)
            ).path
            / "stamps"
        )
    found, dropped = recordings(stamps, part.language)
    check_merge(part.merge, set(found.domain))
    return publish(found, dropped, part, folds, into, part.merge or MERGE)


def recordings(stamps: Path, language: str) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """One row per distinct recording below `stamps`, and (utterance, reason) of the files that are left out.

    Raises:
        UserError: there is none, or a recording cannot be read.
    """
    tail = _tail(language)
    files = sorted((f for f in stamps.rglob(f"*{tail}") if f.parent != stamps), key=lambda f: str(f).removesuffix(tail))
    if not files:
        raise UserError(
            f"no Tux Paint speech in '{language}' below {stamps}: expected <folder>/NAME{tail} beside <folder>/NAME.txt"
        )
    table, dropped = [], []
    for file in track(files, "read Tux Paint"):
        utterance = file.relative_to(stamps).as_posix().removesuffix(tail)
        note = file.with_name(file.name.removesuffix(tail) + ".txt")
        text = _text(note, language) if note.is_file() else ""
        if not text:
            dropped.append((utterance, f"no text in '{language}'" if note.is_file() else "no text file"))
            continue
        table.append({"utterance": utterance, "recording": str(file), "transcription": text, "hash": sha256(file)})
    found = pd.DataFrame(table, columns=["utterance", "recording", "transcription", "hash"], dtype=str)
    found, again = distinct(found, language)
    domains = [u.split("/")[0] for u in found.utterance]
    found = found.assign(domain=domains, speaker="", split="", duration=[audio.duration(c) for c in found.recording])
    return found, dropped + again


def _tail(language: str) -> str:
    return "_desc.ogg" if language == "en" else f"_desc_{language}.ogg"


def _text(note: Path, language: str) -> str:
    lines = read_utf8(note).splitlines() or [""]
    start = f"{language}.utf8="
    given = (
        lines[0]
        if language == "en"
        else next((line.removeprefix(start) for line in lines if line.startswith(start)), "")
    )
    return re.sub(r"\s+", " ", given).strip()


def _given(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"corpus.path: no folder {folder}: expected the unpacked source release of tuxpaint-stamps")
    return folder / "stamps" if (folder / "stamps").is_dir() else folder


def _fetch(language: str, into: Path) -> None:
    """Keep the recordings of one language, their texts and the licence; the rest goes."""
    unpacked = into / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # of a killed attempt
    unpacked.mkdir()
    try:
        root, licence = _unpack(unpacked)
        for file in sorted(root.rglob(f"*{_tail(language)}")):
            target = into / "stamps" / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
            note = file.name.removesuffix(_tail(language)) + ".txt"
            if (file.parent / note).is_file():
                shutil.copyfile(file.parent / note, target.parent / note)
        shutil.copyfile(licence, into / "copyright")
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _unpack(into: Path) -> tuple[Path, Path]:
    """The folder `stamps` and the licence, from the Debian package, else from the source release."""
    try:
        fetch.debian_tree(PACKAGE, VERSION, SHA256, into)
        share = into / "usr" / "share"
        return share / "tuxpaint" / "stamps", share / "doc" / PACKAGE / "copyright"
    except fetch.UnreachableError as error:
        say(f"{error}; trying the source release")
        without_apt = error
    try:
        release = fetch.download(RELEASE, into / "release.tar.gz", RELEASE_SHA256)
    except fetch.UnreachableError as error:
        raise UserError(
            f"{without_apt}; and {error}: get tuxpaint-stamps-2022.06.04.tar.gz of Tux Paint, unpack it, and give its folder "
            "as corpus.path"
        ) from error
    with tarfile.open(release) as archive:
        archive.extractall(into, filter="data")
    (root,) = (path for path in into.iterdir() if path.is_dir())
    return root / "stamps", next(path for path in sorted(root.rglob("COPYING*")))
