"""SLURP: what people say to an assistant at home, 18 domains; text CC BY 4.0, audio CC BY-NC 4.0. See data/README.md.

Layout of the release: `slurp/{train,devel,test}.jsonl`, one text with its recordings in each line, `slurp/metadata.json` with
their speakers, and `slurp_real/*.flac`. `train_synthetic.jsonl` and its audio are another TTS's and are not read.
"""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from syn2real_utils import audio
from syn2real_utils.corpora.base import CorpusReport, check_merge, publish, read_audiofolder
from syn2real_utils.corpora.slurpfetch import LABELS, LICENCE, from_hub, from_release, hub_key, release_key
from syn2real_utils.errors import UserError
from syn2real_utils.profile import CorpusPart
from syn2real_utils.progress import say, track
from syn2real_utils.store import Store, write_text_atomic
from syn2real_utils.text import normalise

LANGUAGE = "en"
SPLITS = {"train": "train", "devel": "validation", "test": "test"}  # file -> `split` in our AudioFolders
METADATA = "metadata.json"
TEXTS, CLIPS = (
    ("slurp", "dataset/slurp", "."),
    ("slurp_real", "audio/slurp_real"),
)  # as released, or a clone of its repository
MORE = ("take", "microphone", "gender", "native", "entities")  # columns beside those of every corpus
HEADSET = "-headset"  # how the names of close-talk recordings end
USER = re.compile(r"(F|M|U|UNK)([EO]?)-?\w*")  # README of the release: gender, native language, number
GENDERS = {"F": "female", "M": "male"}
NATIVE = {"E": "native", "O": "other"}  # of English, of another language
UNKNOWN = "unknown"
NO_AUDIO = "no audio file"


def prepare(part: CorpusPart, folds: int, store: Store, into: Path) -> CorpusReport:
    """Fill `into` with SLURP, one row per recording; with its official split, `fold` is -1 in every row.

    Args:
        part: `path` is the folder of the release; None fetches it, or the hub's copy where `source` is "hub".
        folds: not used: SLURP has an official split.
        store: where what was fetched is kept.
        into: folder to fill, with LICENCE.txt and checks.csv beside what every corpus has.

    Raises:
        UserError: another language, a part of the release is missing or damaged, or it cannot be fetched.
    """
    if part.language != LANGUAGE:
        raise UserError(f"SLURP has no speech in '{part.language}': use {LANGUAGE}")
    for line in LICENCE.splitlines():
        say(line)
    root = Path(part.path).expanduser() if part.path else fetched(part, store)
    found, dropped = recordings(root, part.recordings == "headset")
    check_merge(part.merge, set(found.domain))
    report = publish(found, dropped, part, folds, into, part.merge, MORE, linked=part.path is None)
    write_text_atomic(into / "LICENCE.txt", LICENCE)
    table = checks(read_audiofolder(into), dropped)
    write_text_atomic(into / "checks.csv", table.to_csv(index=False, lineterminator="\n"))
    return CorpusReport(report.domains, report.dropped, report.texts, report.seconds, tuple(lines(table)))


def fetched(part: CorpusPart, store: Store) -> Path:
    """The folder of the release, or of the hub's copy in the same layout, fetched when it is not there yet."""
    key, make = (hub_key(), from_hub) if part.source == "hub" else (release_key(), from_release)
    return store.build("data/sources", LABELS[part.source], key, make).path


def recordings(root: Path, headset: bool = False) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """One row per recording of a release, and (utterance, reason) of the recordings that are left out.

    Args:
        root: the folder that holds `slurp/` and `slurp_real/`.
        headset: leave out what the far microphone heard.

    Raises:
        UserError: a file of the release is missing or damaged, or it has no audio at all.
    """
    text, clips = text_folder(root), _clip_folder(root)
    table = told(text)
    there = {clip.name for clip in clips.iterdir()}
    if not table.recording.isin(there).any():
        raise UserError(
            f"{clips} holds none of the {len(table)} recordings that {text} names: unpack slurp_real.tar.gz there"
        )
    dropped: list[tuple[str, str]] = []
    if headset:
        far = table.microphone == "far"
        table, dropped = _without(table, far, "far microphone, and corpus.recordings is headset", dropped)
    twice = table.duplicated("recording", keep=False)
    table, dropped = _without(table, twice, "the recording is listed twice", dropped)
    table, dropped = _without(table, ~table.recording.isin(there), NO_AUDIO, dropped)
    paths = [clips / name for name in table.recording]
    table = table.assign(
        recording=[str(path) for path in paths], duration=[_seconds(p) for p in track(paths, "read SLURP")]
    )
    return _without(table, table.duration == 0.0, "the audio cannot be read", dropped)


def told(text: Path) -> pd.DataFrame:
    """What the release tells of each of its recordings, in all splits; `recording` is a file name."""
    speakers = _speakers(text / METADATA)
    table = []
    for split, file in [(split, _given(text, f"{split}.jsonl")) for split in SPLITS]:
        table += told_in(file, SPLITS[split], speakers)
    if not table:
        raise UserError(
            f"{text} names no recordings: expected one text with its recordings in each line of train.jsonl"
        )
    return pd.DataFrame(table)


def told_in(file: Path, split: str, speakers: dict[str, str]) -> list[dict[str, object]]:
    """One row for each recording that one jsonl file names; `speakers`: usrid of each recording."""
    return [row for where, line in _lines(file) for row in _rows(line, split, speakers, where)]


def text_folder(root: Path) -> Path:
    """Where the texts of a release lie."""
    if not root.is_dir():
        raise UserError(
            f"corpus.path: no folder {root}: expected the release of SLURP, slurp/ and slurp_real/ below it"
        )
    for folder in (root / name for name in TEXTS):
        if folder.is_dir() and any(folder.glob("*.jsonl*")):
            return folder
    raise UserError(
        f"no texts of SLURP below {root}: expected slurp/train.jsonl, devel.jsonl, test.jsonl and {METADATA}"
    )


def checks(rows: pd.DataFrame, dropped: list[tuple[str, str]]) -> pd.DataFrame:
    """What must be known before SLURP is used: `check, domain, split, count`."""
    said = rows.assign(said=[normalise(t, LANGUAGE) for t in rows.transcription])
    of = {split: said[said.split == split] for split in SPLITS.values()}
    table = []
    for other in ("validation", "test"):
        for check, column in (("texts also in train", "said"), ("speakers also in train", "speaker")):
            both = set(of["train"][column]) & set(of[other][column]) - {""}
            table.append({"check": check, "split": other, "count": len(both)})
    lost = [reason for _, reason in dropped]
    table.append({"check": "recordings without audio", "split": "", "count": lost.count(NO_AUDIO)})
    table.append({"check": "recordings without a speaker", "split": "", "count": int((rows.speaker == "").sum())})
    for domain, rest in said.groupby("domain"):
        for split in (name for name in SPLITS.values() if (rest.split == name).any()):
            part = rest[rest.split == split]
            counts = {"recordings": len(part), "takes": part["take"].nunique(), "texts": part.text_id.nunique()}
            table += [{"check": check, "domain": domain, "split": split, "count": n} for check, n in counts.items()]
    return pd.DataFrame(table, columns=["check", "domain", "split", "count"]).fillna("")


def lines(table: pd.DataFrame) -> Iterator[str]:
    """The checks for people."""
    whole, parts = table[table.domain == ""], table[table.domain != ""]
    for check, rows in whole.groupby("check", sort=False):
        yield f"{check}: {_counts(rows)}"
    for domain, rows in parts[parts.check == "recordings"].groupby("domain"):
        yield f"{domain}: {_counts(rows)} recordings"


def _counts(rows: pd.DataFrame) -> str:
    """Such as "train 80, test 20"."""
    return ", ".join(f"{split} {count:,}".strip() for split, count in zip(rows.split, rows["count"], strict=True))


def _rows(line: dict, split: str, speakers: dict[str, str], where: str) -> Iterator[dict[str, object]]:
    """One row for each recording of one line of the release."""
    try:
        text, domain, files = line["sentence"], line["scenario"], [r["file"] for r in line["recordings"]]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{where} has no {error}: expected sentence, scenario and recordings with a file each"
        ) from error
    spans = json.dumps(entities(line), ensure_ascii=False)
    for file in files:
        name = Path(file).stem
        user = speakers.get(file, "")
        yield {
            "utterance": name,
            "recording": file,
            "transcription": " ".join(text.split()),
            "domain": domain,
            "split": split,
            "take": name.removesuffix(HEADSET),
            "microphone": "close" if name.endswith(HEADSET) else "far",
            "entities": spans,
            **person(user),
        }


def person(user: str) -> dict[str, str]:
    """Speaker, gender and native language from a `usrid` such as FO-488; "" for one that is not told."""
    known = USER.fullmatch(user)
    gender, native = known.groups() if known else ("", "")
    return {"speaker": user, "gender": GENDERS.get(gender, UNKNOWN), "native": NATIVE.get(native, UNKNOWN)}


def entities(line: dict) -> list[dict[str, object]]:
    """The entities of a line: type, text, and where it stands in the sentence as [start, end) in characters.

    Both are None where the sentence was mended after its tokens were told ("grassmarket" for "grass market").
    """
    plain = " ".join(line["sentence"].split())
    sentence, places, at = plain.lower(), {}, 0
    for token in line.get("tokens", ()):
        start = sentence.find(token["surface"].lower(), at)
        if start >= 0:  # else the token was mended by hand and stands not in the sentence
            at = start + len(token["surface"])
            places[token["id"]] = (start, at)
    words = {token["id"]: token["surface"] for token in line.get("tokens", ())}
    found: list[dict[str, object]] = []
    for entity in line.get("entities", ()):
        inside = [places[token] for token in entity["span"] if token in places]
        if not inside:
            told = " ".join(words[token] for token in entity["span"] if token in words)
            found.append({"type": entity["type"], "text": told, "start": None, "end": None})
            continue
        start, end = min(first for first, _ in inside), max(last for _, last in inside)
        found.append({"type": entity["type"], "text": plain[start:end], "start": start, "end": end})
    return found


def _without(
    table: pd.DataFrame, bad: pd.Series, reason: str, dropped: list[tuple[str, str]]
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    rest = table[~bad].reset_index(drop=True)
    return rest, [*dropped, *((utterance, reason) for utterance in table.utterance[bad])]


def _speakers(file: Path) -> dict[str, str]:
    """usrid of each recording, by its file name."""
    try:
        told = json.loads(_read(_given(file.parent, file.name)))
        return {name: about.get("usrid", "") for text in told.values() for name, about in text["recordings"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged: expected JSON, text -> recordings -> usrid: fetch it again") from error


def _lines(file: Path) -> Iterator[tuple[str, dict]]:
    for number, line in enumerate(_read(file).splitlines(), start=1):
        where = f"{file} line {number}"
        try:
            if line.strip():
                yield where, json.loads(line)
        except ValueError as error:
            raise UserError(f"{where} is no JSON: fetch the file again") from error


def _given(folder: Path, name: str) -> Path:
    """A file of the release, plain or gzipped."""
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise UserError(
        f"the SLURP folder {folder} has no {name} (nor {name}.gz): get it from the release, dataset/slurp/{name}"
    )


def _read(file: Path) -> str:
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as UTF-8 text: fetch it again") from error


def _clip_folder(root: Path) -> Path:
    for folder in (root / name for name in CLIPS):
        if folder.is_dir():
            return folder
    raise UserError(f"no audio of SLURP below {root}: expected the folder slurp_real, unpack slurp_real.tar.gz there")


def _seconds(clip: Path) -> float:
    """From the header; 0.0 of a clip that cannot be read."""
    try:
        return audio.duration(clip)
    except UserError:
        return 0.0
