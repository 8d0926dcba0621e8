"""AudioFolders in and out, and what every corpus does with its recordings: filter, merge, choose, fold, publish."""

import contextlib
import csv
import hashlib
import importlib
import os
import posixpath
import re
import shutil
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath

import pandas as pd

from syn2real_utils.errors import UserError, names
from syn2real_utils.profile import CorpusPart
from syn2real_utils.progress import say, track
from syn2real_utils.store import Store, read_utf8, write_text_atomic
from syn2real_utils.text import normalise

METADATA = "metadata.csv"
GIVEN = ("file_name", "transcription", "domain")
LEAST = GIVEN[:2]  # columns that a user's own AudioFolder must have
SHARED = (*GIVEN, "speaker", "split")
CORPUS = (*SHARED, "utterance", "text_id", "fold", "duration", "language")
SYNTHETIC = (
    *SHARED,
    "utterance",
    "text_id",
    "fold",
    "spoken",
    "engine",
    "voice",
    "seed",
    "take",
    "settings",
    "duration",
    "quality",
    "language",
)
INTEGERS = ("fold", "seed", "take")
NO_FOLD = -1  # of rows with an official split

SHORTEST = 0.3  # seconds; the shortest clip of Spanish Tux Paint that holds its text ("Más.") has 0.42 s
LONGEST = 30.0  # seconds, what Whisper hears at once
FASTEST = 25.0  # characters a second; careful reading has about 13, above this the clip does not hold its text

# Words from which `datasets` would infer a split when they stand alone in a folder's name
SPLIT_WORDS = re.compile(
    r"(?:^|[-._ 0-9])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?:$|[-._ 0-9])", re.I
)


@dataclass(frozen=True)
class CorpusReport:
    """What a corpus holds after its preparation."""

    domains: dict[str, int]  # utterances per domain
    dropped: dict[str, int]  # rows per reason
    texts: int  # distinct within their domain
    seconds: float
    checks: tuple[str, ...] = ()  # what else the corpus looked at, for people

    def lines(self) -> list[str]:
        """The report for people."""
        total = sum(self.domains.values())
        domains = ", ".join(f"{name} {count}" for name, count in self.domains.items())
        head = f"{total} utterances, {self.texts} texts, {self.seconds / 60:.1f} minutes: {domains}"
        dropped = (f"  dropped {count}: {reason}" for reason, count in self.dropped.items())
        return [head, *dropped, *(f"  {line}" for line in self.checks)]


def prepare(part: CorpusPart, folds: int, store: Store, into: Path) -> CorpusReport:
    """Fill `into` with the corpus that `part` names, as an AudioFolder beside `dropped.csv` (utterance, reason)."""
    corpus = importlib.import_module(f"syn2real_utils.corpora.{part.name}")  # the profile admits known names only
    report = corpus.prepare(part, folds, store, into)
    for line in report.lines():
        say(line)
    return report


def read_audiofolder(folder: Path, synthetic: bool = False) -> pd.DataFrame:
    """Rows of an AudioFolder that this package wrote, with the absolute `path` of each clip.

    Raises:
        UserError: no folder or metadata.csv, a missing column, an empty cell, a clip that is missing, listed twice or
            outside the folder, or a number that is none.
    """
    columns = SYNTHETIC if synthetic else CORPUS
    rows = read_metadata(folder, columns)
    for column in ("duration", *(c for c in INTEGERS if c in columns)):
        try:
            rows[column] = pd.to_numeric(rows[column]).astype(float if column == "duration" else int)
        except ValueError as error:
            raise UserError(f"{folder / METADATA}: column '{column}' must hold numbers: {error}") from error
    return rows


def read_metadata(folder: Path, columns: tuple[str, ...] = GIVEN) -> pd.DataFrame:
    """Rows of any AudioFolder as text, with the absolute `path` of each clip; the first row below the header is row 2."""
    if not Path(folder).is_dir():
        raise UserError(f"no corpus folder {folder}: expected a folder with clips and {METADATA}")
    file = Path(folder) / METADATA
    if not file.is_file():
        raise UserError(
            f"the corpus folder {folder} has no {METADATA}: write one with the columns {', '.join(LEAST)}[, domain, speaker, split]"
        )
    text = read_utf8(file)
    try:
        reader = csv.DictReader(StringIO(text, newline=""), strict=True)
        header, table = reader.fieldnames or [], list(reader)
    except csv.Error as error:
        raise UserError(f"{file} is no CSV: {error}") from error
    if missing := [c for c in columns if c not in header]:
        raise UserError(f"{file} has no column '{missing[0]}': expected {', '.join(columns)}")
    if len(set(header)) < len(header):
        raise UserError(f"{file} names a column twice in its header: name each once")
    if not table:
        raise UserError(f"{file} has no rows below its header")
    _check_rows(table, Path(folder), file)
    rows = pd.DataFrame(table, columns=list(header), dtype=str)
    rows["file_name"] = [posixpath.normpath(name) for name in rows["file_name"]]
    return rows.assign(path=[str(Path(folder).resolve() / name) for name in rows["file_name"]])


def write_audiofolder(rows: pd.DataFrame, folder: Path, synthetic: bool = False, more: tuple[str, ...] = ()) -> None:
    """Write metadata.csv with our columns in our order, and `more` behind them; the same rows give the same bytes."""
    columns = (*(SYNTHETIC if synthetic else CORPUS), *more)
    rows = rows[list(columns)].sort_values(
        [c for c in ("utterance", "engine", "voice", "take", "file_name") if c in columns]
    )
    rows = rows.assign(duration=[f"{seconds:.3f}" for seconds in rows.duration])
    write_text_atomic(folder / METADATA, rows.to_csv(index=False, lineterminator="\n"))


def clip_name(domain: str, key: str, suffix: str) -> str:
    """Where a clip goes inside an AudioFolder; `datasets` can read no split or label into it.

    Its file is named by the hash of `key` (unique within the folder), its folder by the domain where that is harmless.
    """
    harmless = re.fullmatch(r"[^\W_][\w-]*", domain) and not SPLIT_WORDS.search(domain)
    return f"clips/{domain if harmless else _hash(domain, 12)}/{_hash(key, 16)}{suffix}"


def text_id(domain: str, text: str, language: str) -> str:
    """12 hex digits that are equal when two texts of a domain are equal once normalised."""
    return _hash(f"{domain}\n{normalise(text, language)}", 12)


def distinct(found: pd.DataFrame, language: str) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Rows with `hash`, of their recording: one for each recording, and (utterance, reason) of those that are left out."""
    said = pd.Series([normalise(t, language) for t in found.transcription], index=found.index, dtype=str)
    ambiguous = said.groupby(found.hash).transform("nunique") > 1
    repeated = found.duplicated("hash") & ~ambiguous
    dropped = [(u, "one recording for several texts") for u in found.utterance[ambiguous]]
    dropped += [(u, "the same recording again") for u in found.utterance[repeated]]
    return found[~ambiguous & ~repeated].drop(columns="hash").reset_index(drop=True), dropped


def assign_folds(rows: pd.DataFrame, folds: int, seed: int = 0) -> pd.Series:
    """Fold of each row, 0 .. folds - 1: within a domain by distinct `text_id`, in hash order, balanced to one text."""
    chosen = {}
    for _, ids in rows.groupby("domain").text_id:
        for place, name in enumerate(sorted(set(ids), key=lambda i: _hash(f"{seed}:{i}", 64))):
            chosen[name] = place % folds
    return rows.text_id.map(chosen).astype(int)


def check_domains(rows: pd.DataFrame, domains: list[str]) -> None:
    """Raise UserError unless the corpus has every one of `domains`."""
    known = sorted(set(rows.domain))
    if unknown := [d for d in domains if d not in known]:
        raise UserError(f"unknown domain '{unknown[0]}': the corpus has {names(known, 40)}")


def publish(
    found: pd.DataFrame,
    dropped: list[tuple[str, str]],
    part: CorpusPart,
    folds: int,
    into: Path,
    merge: dict[str, list[str]],
    more: tuple[str, ...] = (),
    linked: bool = False,
) -> CorpusReport:
    """Write the AudioFolder of a corpus and its dropped.csv into `into`.

    Args:
        found: `utterance, recording, transcription, domain, speaker, split, duration`; `recording` is the path of its file.
        dropped: (utterance, reason) of recordings that the corpus itself left out.
        part: language and `max_utterances`.
        folds: parts of each domain's texts.
        into: folder to fill.
        merge: new domain -> domains that go into it; names that are not there are passed over.
        more: columns of `found` that are kept beside those of every corpus.
        linked: the recordings are the store's own, which nobody writes into: link them where the disk can, instead of a copy.

    Raises:
        UserError: nothing can be scored.
    """
    new_name = {old: new for new, folders in merge.items() for old in folders}
    rows = found.assign(language=part.language, domain=[new_name.get(d, d) for d in found.domain])
    rows["text_id"] = [text_id(d, t, part.language) for d, t in zip(rows.domain, rows.transcription, strict=True)]
    reasons = [
        _unscorable(normalise(t, part.language), s) for t, s in zip(rows.transcription, rows.duration, strict=True)
    ]
    rows, dropped = _drop(rows, reasons, dropped)
    rows, dropped = _drop(rows, _told_elsewhere(rows, part.language), dropped)
    if isinstance(part.max_utterances, dict):
        check_domains(rows, list(part.max_utterances))
    few = _choose(rows, part)
    reasons = [
        "" if t in few else f"over max_utterances {part.most(d)}"
        for t, d in zip(rows.text_id, rows.domain, strict=True)
    ]
    rows, dropped = _drop(rows, reasons, dropped)
    if rows.empty:
        raise UserError(
            f"the corpus {part.name} has nothing to score in '{part.language}': see what was dropped: {names(sorted({r for _, r in dropped}))}"
        )
    rows["fold"] = NO_FOLD if (rows.split != "").any() else assign_folds(rows, folds)
    rows["file_name"] = [
        clip_name(d, u, Path(c).suffix.lower())
        for d, u, c in zip(rows.domain, rows.utterance, rows.recording, strict=True)
    ]
    wanted = {into / name for name in rows.file_name}
    for stale in [file for file in (into / "clips").rglob("*") if file.is_file() and file not in wanted]:
        stale.unlink()  # of a killed attempt
    for clip, name in track(list(zip(rows.recording, rows.file_name, strict=True)), "put the clips"):
        _place(Path(clip), into / name, linked)
    lost = pd.DataFrame(sorted(dropped), columns=["utterance", "reason"])
    write_text_atomic(into / "dropped.csv", lost.to_csv(index=False, lineterminator="\n"))
    write_audiofolder(rows, into, more=more)
    counts = lost.reason.value_counts().sort_index().to_dict()
    return CorpusReport(
        rows.domain.value_counts().sort_index().to_dict(), counts, rows.text_id.nunique(), float(rows.duration.sum())
    )


def check_merge(merge: dict[str, list[str]], domains: set[str]) -> None:
    """Raise UserError unless each name in the profile's `merge` is a domain of the corpus, named once."""
    listed = [old for folders in merge.values() for old in folders]
    for old in listed:
        if old not in domains:
            raise UserError(f"corpus.merge: unknown domain '{old}': the corpus has {names(sorted(domains), 40)}")
        if listed.count(old) > 1:
            raise UserError(f"corpus.merge: domain '{old}' is listed twice: a domain goes into one new domain")


def _check_rows(table: list[dict], folder: Path, file: Path) -> None:
    seen: dict[str, int] = {}
    for number, row in enumerate(table, start=2):
        where = f"{file} row {number}"
        if None in row or None in row.values():
            raise UserError(f"{where} has not as many cells as the header: quote cells that hold a comma")
        for column in (name for name in GIVEN if name in row):
            if not row[column].strip():
                raise UserError(
                    f"{where} ({row['file_name'] or 'no name'}): empty {column}: fill it in or delete the row"
                )
        name = posixpath.normpath(row["file_name"])
        if PurePosixPath(name).is_absolute() or name.split("/")[0] == "..":
            raise UserError(
                f"{where}: the clip {row['file_name']} lies outside the folder: expected a path below {folder}"
            )
        if name in seen:
            raise UserError(f"{where}: duplicate file name {name}, first in row {seen[name]}: list each clip once")
        seen[name] = number
        if not (folder / name).is_file():
            raise UserError(f"{where}: the clip {name} is missing: put it below {folder} or delete the row")


def _unscorable(text: str, seconds: float) -> str:
    if not text:
        return "the text has no words"
    if seconds < SHORTEST:
        return f"clip under {SHORTEST} s"
    if seconds > LONGEST:
        return f"clip over {LONGEST:g} s"
    if len(text) > FASTEST * seconds:
        return f"clip too short for its text (over {FASTEST:g} characters a second)"
    return ""


def _told_elsewhere(rows: pd.DataFrame, language: str) -> list[str]:
    """A text that stands in several domains stays in the first: else it would be trained on in one, scored in another."""
    said = [normalise(text, language) for text in rows.transcription]
    first = rows.domain.groupby(pd.Series(said, index=rows.index)).transform("min")
    return [f"its text stands in {f} too" if d != f else "" for d, f in zip(rows.domain, first, strict=True)]


def _drop(
    rows: pd.DataFrame, reasons: list[str], dropped: list[tuple[str, str]]
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    lost = [(u, r) for u, r in zip(rows.utterance, reasons, strict=True) if r]
    kept = pd.Series([not r for r in reasons], index=rows.index, dtype=bool)  # a bool also when there are no rows
    return rows[kept].reset_index(drop=True), [*dropped, *lost]


def _choose(rows: pd.DataFrame, part: CorpusPart) -> set[str]:
    """Texts of at most `max_utterances` per domain, in hash order; a text comes with all its recordings."""
    chosen = set()
    for domain, ids in rows.groupby("domain").text_id:
        left = part.most(str(domain)) or len(ids)
        for name, count in ids.value_counts().sort_index().items():  # text_id is a hash
            if count <= left:
                chosen.add(name)
                left -= count
    return chosen


def _place(clip: Path, target: Path, linked: bool) -> None:
    """Put a clip, byte for byte: a copy of a user's file, for what writes into a link writes into the source too.

    One that a killed attempt put whole stays.
    """
    if target.is_file() and target.stat().st_size == clip.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if linked:
        with contextlib.suppress(OSError):  # another disk, or one without links
            os.link(clip, target)
            return
    shutil.copyfile(clip, target)


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
