"""The user's own speech: any AudioFolder with `file_name,transcription[,domain,speaker,split]` in its metadata.csv."""

from pathlib import Path

import pandas as pd

from syn2real_utils import audio
from syn2real_utils.corpora.base import (
    LEAST,
    METADATA,
    NO_FOLD,
    CorpusReport,
    check_merge,
    publish,
    read_metadata,
    text_id,
)
from syn2real_utils.errors import UserError, names
from syn2real_utils.profile import CorpusPart
from syn2real_utils.progress import say, track
from syn2real_utils.store import Store, sha256
from syn2real_utils.text import clean, normalise

FORMATS = (".wav", ".flac", ".ogg", ".mp3")
SPLITS = ("train", "validation", "test")


def prepare(part: CorpusPart, folds: int, store: Store, into: Path) -> CorpusReport:
    """Fill `into` with a copy of the AudioFolder `part.path`; with an official split, `fold` is -1 in every row.

    Raises:
        UserError: no path is given, or the folder is not as it must be (see `read_audio`).
    """
    if not part.path:
        raise UserError("corpus.path is missing: give the folder that holds metadata.csv and the clips")
    rows = read_audio(Path(part.path).expanduser(), part.language)
    _tell_copies(rows, part.language)
    check_merge(part.merge, set(rows.domain))
    return publish(rows.assign(recording=rows.path), [], part, folds, into, part.merge)


def _tell_copies(rows: pd.DataFrame, language: str) -> None:
    """Say which recordings stand under several texts: at most one is right, and the clip could be trained on and scored."""
    said = pd.Series([normalise(text, language) for text in rows.transcription], index=rows.index)
    recording = pd.Series([sha256(Path(path)) for path in rows.path], index=rows.index)
    copies = rows.file_name[said.groupby(recording).transform("nunique") > 1]
    if len(copies):
        say(
            f"warning: {len(copies)} clips are one recording under several texts ({names(copies, 4)}): correct them in {METADATA}, "
            "else a clip may be trained on and scored"
        )


def read_audio(folder: Path, language: str) -> pd.DataFrame:
    """Rows of a user's AudioFolder with every column of a corpus and `path`; each clip is decoded once.

    `utterance` is the file name, `fold` -1; without a column `domain` all is one domain, called as the folder.

    Raises:
        UserError: no folder or metadata.csv, not UTF-8, a missing column, an empty cell, a clip that is missing,
            unreadable, listed twice or outside the folder, or a `split` that is none of train, validation, test.
    """
    rows = read_metadata(folder, LEAST)
    if "domain" not in rows:
        rows["domain"] = folder.resolve().name
    for column in ("speaker", "split"):
        rows[column] = rows[column].str.strip() if column in rows else ""
    for column in ("domain", "transcription"):
        rows[column] = rows[column].map(clean)
    _check_splits(rows, folder / METADATA, language)
    rows["duration"] = [
        _seconds(name, path, f"{folder / METADATA} row {number}") for number, name, path in _numbered(rows)
    ]
    ids = [text_id(d, t, language) for d, t in zip(rows.domain, rows.transcription, strict=True)]
    return rows.assign(utterance=rows.file_name, text_id=ids, fold=NO_FOLD, language=language)


def _numbered(rows: pd.DataFrame):
    return track(list(zip(range(2, len(rows) + 2), rows.file_name, rows.path, strict=True)), "check the clips")


def _seconds(name: str, path: str, where: str) -> float:
    if Path(name).suffix.lower() not in FORMATS:
        raise UserError(f"{where}: the clip {name} is no wav, flac, ogg or mp3 by its name: convert it")
    try:
        return len(audio.read(path)) / audio.SAMPLE_RATE
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_splits(rows: pd.DataFrame, file: Path, language: str) -> None:
    """All rows name a split or none does; says how many texts stand on both sides."""
    if not (rows.split != "").any():
        return
    for number, split in enumerate(rows.split, start=2):
        if split not in SPLITS:
            raise UserError(
                f"{file} row {number}: split '{split}' is unknown: expected train, validation or test in every row, or no split at all"
            )
    train, test = (
        {(row.domain, normalise(row.transcription, language)) for row in part.itertuples()}
        for part in (rows[rows.split == "train"], rows[rows.split == "test"])
    )
    if both := len(train & test):
        where = "stand in both train and test of their domain"
        say(f"{both} texts of {file} {where}: they are left out of training, but for protocol catalogue")
