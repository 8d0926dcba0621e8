"""What was heard in clips, and its four forms: text, JSON, CSV and subtitles (SRT)."""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from syn2real_utils.corpora.folder import FORMATS as AUDIO_FORMATS
from syn2real_utils.errors import UserError, names
from syn2real_utils.store import check_writable, walk, write_text_atomic

FORMATS = ("text", "json", "csv", "srt")


@dataclass(frozen=True)
class Segment:
    """What was heard in one stretch of a clip."""

    start: float  # seconds from the clip's beginning, where its first sound is
    end: float  # seconds, where its last sound is
    text: str


@dataclass(frozen=True)
class Transcript:
    """What was heard in one clip; a clip without a sound has no text and no segments."""

    file: str  # as it was given, or found in a folder that was given
    seconds: float  # of the whole clip
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The text of all segments."""
        return " ".join(segment.text for segment in self.segments)

    def as_data(self) -> dict[str, object]:
        """As plain data."""
        return {"file": self.file, "text": self.text, "seconds": self.seconds} | {
            "segments": [asdict(segment) for segment in self.segments]
        }


@dataclass(frozen=True)
class Output:
    """Where transcripts go, and in which form."""

    form: str = "text"  # one of FORMATS
    out: Path | None = None  # file, or with several clips in SRT a folder; None: to be printed
    overwrite: bool = False

    def check(self, files: Sequence[str]) -> "Output":
        """Return self if the transcripts of these clips can be written so; nothing is written yet.

        Raises:
            UserError: an unknown format, a place that cannot be written, or one that is taken.
        """
        if self.form not in FORMATS:
            raise UserError(f"unknown format '{self.form}': use one of {names(FORMATS)}")
        if self.out is None:
            if self.form == "srt" and len(files) > 1:
                raise UserError(f"--out is missing: {len(files)} clips give {len(files)} SRT files, name their folder")
            return self
        if not self.out.resolve().parent.is_dir():
            raise UserError(f"no folder {self.out.resolve().parent} to write {self.out.name} into: make it first")
        several = self.form == "srt" and len(files) > 1
        if several and (self.out.is_file() or self.out.suffix.lower() == ".srt"):
            raise UserError(f"{self.out} is one file for {len(files)} clips: name a folder, each clip gets its own SRT")
        if not several and self.out.is_dir():
            named = f"{self.out / 'transcripts'}.{'txt' if self.form == 'text' else self.form}"
            raise UserError(f"{self.out} is a folder: name the file to write, such as {named}")
        for place in {place.parent: place for place in self._places(files)}.values():
            check_writable(place)
        for place in self._places(files):
            if place.suffix.lower() in AUDIO_FORMATS or place.resolve() in {Path(file).resolve() for file in files}:
                raise UserError(
                    f"{place} is the name of a clip: name a file for the transcripts, such as {place.with_suffix('.txt')}"
                )
            if place.exists() and not place.is_file():
                raise UserError(f"{place} is no file that can be replaced: name another --out")
        taken = [path for path in self._places(files) if path.exists()]
        if taken and not self.overwrite:
            raise UserError(f"{taken[0]} exists already: give --overwrite, or another --out")
        return self

    def write(self, transcripts: Sequence[Transcript]) -> str:
        """Write the transcripts, each file whole or not at all, and say where; without `out` return them."""
        if self.out is None:
            return render(transcripts, self.form)
        places = self._places([transcript.file for transcript in transcripts])
        shares = [transcripts] if len(places) == 1 else [[transcript] for transcript in transcripts]
        for place, share in zip(places, shares, strict=True):
            write_text_atomic(place.resolve(), render(share, self.form))
        return f"wrote {self.out}\n"

    def _places(self, files: Sequence[str]) -> list[Path]:
        """The files to write: `out`, or below it one per clip, in folders as the clips have below their common one."""
        assert self.out is not None
        if self.form != "srt" or len(files) == 1:
            return [self.out]
        clips = [os.path.abspath(file) for file in files]
        common = os.path.commonpath([os.path.dirname(clip) for clip in clips])
        places: dict[Path, str] = {}
        for clip in clips:
            place = self.out / Path(clip).relative_to(common).with_suffix(".srt")
            if place in places:
                raise UserError(f"{places[place]} and {clip} would both be written to {place}: transcribe them apart")
            places[place] = clip
        return list(places)


def find_clips(given: Sequence[Path | str] | Path | str) -> list[str]:
    """The clips that are meant: files as they are given, those of folders and their folders sorted; each once.

    Raises:
        UserError: nothing is given, a file or folder is missing, or a folder holds no clip.
    """
    places = [given] if isinstance(given, Path | str) else list(given)
    if not places:
        raise UserError("no clip is given: name files or folders of wav, flac, ogg or mp3")
    files: list[str] = []
    for place in map(Path, places):
        if not place.exists():
            raise UserError(f"no clip or folder {place}: name files or folders of wav, flac, ogg or mp3")
        found = (folder / name for folder, there in walk(place) for name in there)
        inside = sorted(path for path in found if _is_clip(path)) if place.is_dir() else [place]
        if not inside:
            raise UserError(f"the folder {place} holds no clip: expected wav, flac, ogg or mp3 in it or below")
        files += map(str, inside)
    return list(dict.fromkeys(files))


def render(transcripts: Sequence[Transcript], form: str) -> str:
    """The transcripts as text (of several, a line `file<TAB>text` each), JSON, CSV or, of one clip, SRT."""
    if form == "json":
        return json.dumps([t.as_data() for t in transcripts], indent=1, ensure_ascii=False) + "\n"
    if form == "csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["file", "seconds", "text"])
        writer.writerows([t.file, t.seconds, t.text] for t in transcripts)
        return table.getvalue()
    if form == "srt":
        (transcript,) = transcripts
        return "\n".join(_cue(number, segment) for number, segment in enumerate(transcript.segments, start=1))
    if len(transcripts) == 1:
        return transcripts[0].text + "\n"
    return "".join(f"{t.file}\t{t.text}\n" for t in transcripts)


def _is_clip(path: Path) -> bool:
    """Whether a file in a folder is a clip by its name; hidden files are what systems leave beside clips."""
    return path.suffix.lower() in AUDIO_FORMATS and not path.name.startswith(".") and path.is_file()


def _cue(number: int, segment: Segment) -> str:
    return f"{number}\n{_clock(segment.start)} --> {_clock(segment.end)}\n{segment.text}\n"


def _clock(seconds: float) -> str:
    """Seconds as SRT writes them, e.g. 00:01:02,345."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02},{rest % 1000:03}"
