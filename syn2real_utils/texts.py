"""A user's own texts: read from .txt, .csv or .jsonl, checked, and made into rows as those of a corpus.

What cannot be spoken, or would teach a wrong spelling, is dropped and counted with its reason; nothing is mended in silence
but white space. The checks fetch nothing and need no model.
"""

import csv
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd

from syn2real_utils.corpora.base import NO_FOLD, text_id
from syn2real_utils.errors import UserError, names
from syn2real_utils.guess import guess_language, unsaid
from syn2real_utils.progress import track
from syn2real_utils.store import read_utf8
from syn2real_utils.text import clean, normalise, spoken

COLUMNS = ("text", "transcription")  # of a .csv, keys of a .jsonl; else the only one
AT_LEAST = 2  # usable texts
# Letters, digits and spaces of the spoken text a second: careful reading has about 13, a fast voice 16. A text that is too
# long even so is dropped here; one that only turns out so is flagged by the quality control of its clip.
FASTEST = 16.0
HEARD = 30.0  # seconds that Whisper hears at once
MARKUP = re.compile(
    r"</?[A-Za-z][^<>]*>|<!--|&(?:[A-Za-z]{2,8}|#\d+);|\{\{|\]\(|https?://|```"
    r"|\*\*|__|^(?:#{1,6}|[-*+•>])\s"  # Markdown: bold, headings, lists, quotes
    r"|\{[\w.]*\}|%(?:\(\w+\))?[sd]\b"  # places that a program fills in
)
SHORT = re.compile(
    r"\d\s?(?!x\b|(?:st|nd|rd|th)\b)[b-df-hj-np-tv-xzµ]{1,3}\b(?!['’])"  # a unit: 600 mg, 8 h; no ordinal, no 3x4
    r"|[^\W\d_]/\w",  # mg/kg, c/8
    re.IGNORECASE,
)
DROPPED = ("line", "reason", "text")  # columns of the report
EMPTY, CONTROL, TAGS = "empty", "control characters", "markup"
SILENT, LONG, AGAIN = "nothing pronounceable", f"too long for {HEARD:g} s of speech", "duplicate after normalisation"
UNSAID = "letters or signs that are not said in this language"


@dataclass(frozen=True)
class Texts:
    """The texts of one domain."""

    file: Path
    language: str
    kept: tuple[tuple[int, str], ...]  # (line or row of the file, text)
    dropped: tuple[tuple[int, str, str], ...]  # (line or row, reason, text)
    warnings: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Dropped texts per reason."""
        return pd.Series([reason for _, reason, _ in self.dropped], dtype=str).value_counts().sort_index().to_dict()

    def letters(self) -> int:
        """Characters that are spoken, numbers written out."""
        return sum(len(spoken(text, self.language)) for _, text in self.kept)

    def rows(self, domain: str) -> pd.DataFrame:
        """One row per text in the columns that TTS engines take; every text is trained on, so none is in a fold."""
        table = [
            {"text_id": text_id(domain, text, self.language), "transcription": text, "domain": domain}
            for _, text in self.kept
        ]
        return pd.DataFrame(table).assign(split="", fold=NO_FOLD)

    def report(self) -> str:
        """What was dropped and why, as CSV; control characters are written out."""
        table = [(line, reason, _visible(text)) for line, reason, text in self.dropped]
        return pd.DataFrame(table, columns=list(DROPPED)).to_csv(index=False, lineterminator="\n")

    def lines(self) -> list[str]:
        """For people."""
        head = f"{len(self.kept)} texts of {self.file.name}"
        lost = [f"  dropped {count}: {reason}" for reason, count in self.counts().items()]
        return [head, *lost, *(f"  warning: {warning}" for warning in self.warnings)]


def read_texts(file: Path | str, language: str) -> Texts:
    """Read and check the texts of one domain.

    Args:
        file: .txt (a text in each line), .csv (column `text` or `transcription`, else the only one) or .jsonl (the same keys).
        language: ISO 639-1.

    Raises:
        UserError: the file is missing, empty, not UTF-8 or not what its name says, or holds fewer than two usable texts;
            the language is unknown.
    """
    file = Path(file)
    content = _content(file)
    warnings: list[str] = []
    found = list(_readers()[file.suffix.lower()](file, content, warnings))
    kept: list[tuple[int, str]] = []
    dropped: list[tuple[int, str, str]] = []
    seen: set[str] = set()
    for line, raw in track(found, "check the texts"):
        text = clean(raw)
        if reason := _unusable(text, language, seen):
            dropped.append((line, reason, raw))
        else:
            kept.append((line, text))
    texts = Texts(file, language, tuple(kept), tuple(dropped), ())
    if len(kept) < AT_LEAST:
        lost = names(f"{count} {reason}" for reason, count in texts.counts().items())
        usable = f"{len(kept)} usable text{'' if len(kept) == 1 else 's'}"
        raise UserError(
            f"{file} has {usable} of {len(found)}{f' (dropped: {lost})' if lost else ''}: "
            f"at least {AT_LEAST} are needed, add texts of the domain{', or is --language right?' if UNSAID in texts.counts() else ''}"
        )
    said = [text for _, text in kept]
    if other := guess_language(said, language):
        warnings.append(f"the texts look like '{other}', not '{language}': is --language right?")
    if short := [text for text in said if SHORT.search(text)]:
        warnings.append(_as_it_stands(short, language))
    return Texts(file, language, texts.kept, texts.dropped, tuple(warnings))


def _as_it_stands(short: list[str], language: str) -> str:
    """That units and abbreviations are not written out, with the first of the texts as it is said."""
    example = min(short, key=len)
    return (
        f"{len(short)} texts have units or abbreviations, which are said as they stand ('{example[:60]}' as "
        f"'{spoken(example, language)[:80]}'): write them as people say them, also in transcripts of real clips"
    )


def _unusable(text: str, language: str, seen: set[str]) -> str:
    """Why a text cannot be used, or ""; `seen` holds the usable texts before it, normalised."""
    if not text:
        return EMPTY
    if any(unicodedata.category(sign) in ("Cc", "Co", "Cn", "Cs") or sign == "\ufffd" for sign in text):
        return CONTROL
    if MARKUP.search(text):
        return TAGS
    said, scored = spoken(text, language), normalise(text, language)
    if not any(sign.isalnum() for sign in said) or not scored:
        return SILENT
    if unsaid(said, language):
        return UNSAID
    if len(said) > FASTEST * HEARD:
        return LONG
    if scored in seen:
        return AGAIN
    seen.add(scored)
    return ""


def _content(file: Path) -> str:
    if file.is_dir():
        raise UserError(f"{file} is a folder: expected a file with the texts of your domain, a text in each line")
    if file.suffix.lower() not in _readers():
        raise UserError(f"{file} is no list of texts by its name: expected {names(_readers())}")
    if not file.is_file():
        raise UserError(f"no file {file}: expected the texts of your domain, a text in each line")
    try:
        content = read_utf8(file)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    if "\0" in content:
        raise UserError(f"{file} is not UTF-8 (it holds zero bytes, as UTF-16 does): save it as UTF-8")
    if not content.strip():
        raise UserError(f"{file} is empty: expected the texts of your domain, a text in each line")
    return content


def _readers():
    return {".txt": _from_txt, ".csv": _from_csv, ".jsonl": _from_jsonl}


def _from_txt(file: Path, content: str, warnings: list[str]) -> Iterator[tuple[int, str]]:
    yield from enumerate(content.removesuffix("\n").split("\n"), start=1)


def _from_csv(file: Path, content: str, warnings: list[str]) -> Iterator[tuple[int, str]]:
    reader = csv.DictReader(StringIO(content, newline=""), strict=True)
    try:
        header, table = list(reader.fieldnames or []), list(reader)
    except csv.Error as error:
        raise UserError(f"{file} is no CSV: {error}") from error
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise UserError(f"{file} names the column {names(twice, 3)} twice in its header: name each once")
    column = _column(header, f"{file} has", "column")
    if column not in COLUMNS and re.search(r"[;\t|]", column):
        raise UserError(f"{file} is not separated by commas (its header is '{column}'): save it with commas")
    if column not in COLUMNS:
        warnings.append(f"the first line of {file.name}, '{column}', was taken for the name of its column")
    for number, row in enumerate(table, start=2):
        if None in row:
            raise UserError(f"{file} row {number} has more cells than the header: quote texts that hold a comma")
        yield number, row[column] or ""


def _from_jsonl(file: Path, content: str, warnings: list[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f'{file} line {number} is no JSON: expected one object such as {{"text": ...}}') from error
        if not isinstance(row, dict):
            raise UserError(f'{file} line {number} is no JSON object: expected one such as {{"text": ...}}')
        key = _column(list(row), f"{file} line {number} has", "key")
        if not isinstance(row[key], str | None):
            raise UserError(f"{file} line {number}: '{key}' must be a text in quotes, found {row[key]!r}")
        yield number, row[key] or ""


def _column(there: list[str], where: str, what: str) -> str:
    """Which column or key holds the text."""
    for name in COLUMNS:
        if name in there:
            return name
    if len(there) == 1 and there[0]:
        return there[0]
    raise UserError(f"{where} no {what} '{COLUMNS[0]}' or '{COLUMNS[1]}' (found {names(there) or 'none'}): name one so")


def _visible(text: str) -> str:
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
