"""SLURP from its authors' release or from the hub's copy, in the release's layout; its licence is shown before either."""

import gzip
import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import yaml

from syn2real_utils import fetch, hubnames
from syn2real_utils.errors import UserError, names
from syn2real_utils.progress import Progress
from syn2real_utils.store import write_text_atomic

LICENCE = """SLURP (Bastianelli, Vanzo, Swietojanski and Rieser, EMNLP 2020), https://github.com/pswietojanski/slurp
Text: Creative Commons Attribution 4.0 (CC BY 4.0), https://creativecommons.org/licenses/by/4.0/
Audio: Creative Commons Attribution-NonCommercial 4.0 (CC BY-NC 4.0), https://creativecommons.org/licenses/by-nc/4.0/
Not for commercial use: the recordings, and models and vectors that were made of them.
"""

COMMIT = "8eb16545762be97ace75334109d73824217311f1"
TEXT = f"https://raw.githubusercontent.com/pswietojanski/slurp/{COMMIT}/dataset/slurp"
# devel and test: of the files that we have. train: a public audit of that commit whose sums of the other two are ours.
# metadata.json: none that could be tied to the commit; TLS and the commit in its address must do, and every recording is
# looked up in it.
SHA256 = {
    "train.jsonl": "4a05a3de6c7f028aff298c4a90196e6a3fecd1938d96fb1c125d6fd10d5e301e",
    "devel.jsonl": "00d346b183ecc2d160853cd3dc20e8ccd207d9e1809cf6e2c05182076bd0ecc9",
    "test.jsonl": "fe3449af69b42fda7163345482556066c35a80f7e552a6d67e212a0e2f0783cc",
    "metadata.json": None,
}
AUDIO = "https://zenodo.org/record/4274930/files/slurp_real.tar.gz"  # as the release's own script names it; 3.9 GB
AUDIO_CHECKSUM = "md5:9efc0f058ced47bf5131c7cb2cade513"  # as Zenodo publishes it, seen in three public reports
ENTRIES = 72_396  # of the archive

SITES = {"GitHub": f"{TEXT}/devel.jsonl", "Zenodo": AUDIO}  # what must answer before the release can be fetched

LABELS = {"official": "slurp-en", "hub": "slurphub-en"}  # in the store, by `corpus.source`
HUB = "jacksukk/slurp"  # what the paper's released code reads
HUB_FILES = ["*.parquet", "*.csv", "*.jsonl", "*.json", "*.flac", "*.wav", "*.md"]  # no code
SENTENCES = ("text", "sentence", "transcription")  # how copies of SLURP name the column; the first is this one's
SPEAKERS = ("usrid", "user_id", "speaker", "speaker_id")


def release_key() -> dict:
    """What the fetched release depends on."""
    return {"commit": COMMIT, "audio": AUDIO_CHECKSUM}


def hub_key() -> dict:
    """What the hub's copy depends on."""
    return {"hub": HUB, "revision": hubnames.pinned(HUB)}


def from_release(into: Path) -> None:
    """Fill `into` with slurp/, slurp_real/ and LICENCE.txt; what a killed attempt left is gone on from.

    Raises:
        UserError: it cannot be reached, or a checksum is wrong.
    """
    write_text_atomic(into / "LICENCE.txt", LICENCE)
    (into / "slurp").mkdir(exist_ok=True)
    archive = into / "slurp_real.tar.gz"
    try:
        for name, checksum in SHA256.items():
            if not (into / "slurp" / name).is_file():
                fetch.download(f"{TEXT}/{name}", into / "slurp" / name, checksum)
        if not archive.is_file():
            fetch.download(AUDIO, archive, AUDIO_CHECKSUM)
    except fetch.UnreachableError as error:
        _leave_no_trace(into)
        raise UserError(
            f"{error}: get SLURP elsewhere (dataset/slurp of github.com/pswietojanski/slurp as slurp/, and slurp_real.tar.gz of "
            "Zenodo record 4274930, unpacked) and give its folder as corpus.path"
        ) from error
    with tarfile.open(archive) as members, Progress("unpack SLURP", ENTRIES) as progress:
        for member in members:
            members.extract(member, into, filter="data")
            progress.step()
    archive.unlink()


def from_hub(into: Path) -> None:
    """Fill `into` with the hub's copy in the layout of the release.

    Raises:
        UserError: the hub cannot be reached, has no such revision, or the copy has other columns.
    """
    write_text_atomic(into / "LICENCE.txt", LICENCE)
    try:
        snapshot = _snapshot(HUB, hubnames.pinned(HUB))
        convert(snapshot, into)
        origin = {"source": "hub", "repository": HUB, "commit": snapshot.name}
        write_text_atomic(into / "origin.yaml", yaml.safe_dump(origin, sort_keys=False))
    except UserError:
        _leave_no_trace(into)
        raise


def convert(snapshot: Path, into: Path) -> None:
    """Write a copy of SLURP that `datasets` opens as slurp/*.jsonl, metadata.json and slurp_real/; no clip is decoded."""
    import datasets  # takes a second to import

    found = datasets.load_dataset(str(snapshot), streaming=True)
    if missing := [split for split in ("train", "devel", "test") if split not in found]:
        raise UserError(f"the hub's copy of SLURP has no split '{missing[0]}': it has {names(found)}")
    for folder in ("slurp", "slurp_real"):
        shutil.rmtree(into / folder, ignore_errors=True)  # of a killed attempt
        (into / folder).mkdir()
    speakers: dict[str, dict] = {}
    for split in ("train", "devel", "test"):
        rows = found[split].cast_column("audio", datasets.Audio(decode=False))
        with (
            gzip.open(into / "slurp" / f"{split}.jsonl.gz", "wt", encoding="utf-8") as out,
            Progress(split, 0) as progress,
        ):
            for row in rows:
                line, user = _line(row, into / "slurp_real")
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
                speakers[line["recordings"][0]["file"]] = {"usrid": user}
                progress.step()
    write_text_atomic(into / "slurp" / "metadata.json", json.dumps({"all": {"recordings": speakers}}))


def _line(row: dict, clips: Path) -> tuple[dict, str]:
    """A row of the copy as a line of the release, and its speaker; writes its clip."""
    sentence = next((row[name] for name in SENTENCES if row.get(name)), None)
    if sentence is None or not row.get("scenario"):
        raise UserError(f"the hub's copy of SLURP has the columns {names(row)}: expected audio, text and scenario")
    sound = row["audio"]
    data = sound["bytes"] if sound.get("bytes") is not None else Path(sound["path"]).read_bytes()
    file = Path(sound.get("path") or hashlib.sha256(data).hexdigest()[:16] + ".flac").name
    (clips / file).write_bytes(data)
    line = {"sentence": sentence, "scenario": row["scenario"], "recordings": [{"file": file}]}
    return line, str(next((row[name] for name in SPEAKERS if row.get(name)), ""))


def _snapshot(repository: str, revision: str | None) -> Path:
    from syn2real_utils import hub  # imports torch

    try:
        return hub.pull(repository, revision, HUB_FILES, "dataset")
    except UserError as error:
        raise UserError(f"{error}: set corpus.source to official, or give corpus.path") from error


def _leave_no_trace(into: Path) -> None:
    """Of an attempt that fetched nothing that could be gone on from."""
    if [file.name for file in into.rglob("*") if file.is_file()] == ["LICENCE.txt"]:
        (into / "LICENCE.txt").unlink()
        for folder in [path for path in into.iterdir() if path.is_dir()]:
            shutil.rmtree(folder)
