"""SLURP: the release as a folder and as fetched, the hub's copy, its checks, and what of it is trained on and scored."""

import gzip
import hashlib
import json
import os
import shutil
import tarfile
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from syn2real_utils import fetch, hubnames, needs, speech
from syn2real_utils.corpora import base, slurp, slurpfetch
from syn2real_utils.errors import UserError
from syn2real_utils.origins import UNKNOWN, origin
from syn2real_utils.profile import CorpusPart, Profile, load_profile
from syn2real_utils.store import Store, sha256
from tests import slurp_fixture

REAL = Path(os.environ.get("SYN2REAL_SLURP_TEXT") or Path(__file__).parents[2] / "shared" / "slurp")


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return slurp_fixture.write(tmp_path_factory.mktemp("slurp"), texts=4)


def part(root: Path | None, **settings) -> CorpusPart:
    return CorpusPart(name="slurp", language="en", path=str(root) if root else None, **settings)


def prepared(tmp_path: Path, of: CorpusPart) -> tuple[pd.DataFrame, base.CorpusReport, Path]:
    into = tmp_path / "out"
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    report = base.prepare(of, 2, Store(tmp_path / "home"), into)
    return base.read_audiofolder(into), report, into


def test_one_row_per_recording_with_all_that_the_release_tells(release, tmp_path, capsys):
    rows, report, into = prepared(tmp_path, part(release))
    assert list(report.domains) == slurp_fixture.DOMAINS and set(report.domains.values()) == {8}
    assert rows.split.value_counts().to_dict() == {"train": 72, "validation": 36, "test": 36}
    assert set(rows.fold) == {-1} and report.dropped == {}
    one = rows[rows["take"] == "audio-1500000302"].set_index("microphone")
    assert one.utterance.to_dict() == {"close": "audio-1500000302-headset", "far": "audio-1500000302"}
    assert one.text_id.nunique() == 1 and set(one.speaker) == {"FE-101"}
    assert set(one.gender) == {"female"} and set(one.native) == {"native"} and set(one.domain) == {"cooking"}
    assert set(rows[rows.speaker == "UNK-103"].gender) == {"unknown"} == set(rows[rows.speaker == "UNK-103"].native)
    assert set(rows[rows.speaker == "MO-102"].native) == {"other"}
    (entity,) = json.loads(one.entities.iloc[0])
    assert entity["text"] == one.transcription.iloc[0][entity["start"] : entity["end"]] == "new cooking"
    assert sha256(Path(one.path["far"])) == sha256(release / "slurp_real" / "audio-1500000302.flac")
    said = capsys.readouterr().out
    assert said.startswith("SLURP (") and "CC BY-NC 4.0" in said.splitlines()[2]  # before anything else
    assert "CC BY-NC 4.0" in (into / "LICENCE.txt").read_text()


def test_checks_count_what_must_be_known(release, tmp_path, capsys):
    root = shutil.copytree(release, tmp_path / "release")
    lines = (root / "slurp" / "test.jsonl").read_text().splitlines()
    first = json.loads((root / "slurp" / "train.jsonl").read_text().splitlines()[0])
    lines[0] = json.dumps(json.loads(lines[0]) | {"sentence": first["sentence"].upper() + "!"})  # of the same domain
    (root / "slurp" / "test.jsonl").write_text("\n".join(lines))
    metadata = json.loads((root / "slurp" / "metadata.json").read_text())
    del metadata["102"]
    (root / "slurp" / "metadata.json").write_text(json.dumps(metadata))
    (root / "slurp_real" / "audio-1500000000.flac").unlink()
    (root / "slurp_real" / "audio-1500000001.flac").write_bytes(b"no audio")
    rows, report, into = prepared(tmp_path, part(root))
    table = pd.read_csv(into / "checks.csv", keep_default_na=False)
    counted = table[table.domain == ""].set_index(["check", "split"])["count"].to_dict()
    assert counted == {
        ("texts also in train", "validation"): 0,
        ("texts also in train", "test"): 1,
        ("speakers also in train", "validation"): 5,
        ("speakers also in train", "test"): 5,
        ("recordings without audio", ""): 1,
        ("recordings without a speaker", ""): 2,
    }
    alarm = table[(table.domain == "alarm") & (table.split == "train")].set_index("check")["count"].to_dict()
    assert alarm == {"recordings": 3, "takes": 2, "texts": 2}
    assert report.dropped == {"no audio file": 1, "the audio cannot be read": 1} and len(rows) == 142
    said = capsys.readouterr().out
    assert "texts also in train: validation 0, test 1" in said and "recordings without audio: 1" in said
    assert "alarm: train 3, validation 1, test 2 recordings" in said


def test_headset_alone_merge_and_a_cap(release, tmp_path):
    rows, report, _ = prepared(tmp_path, part(release, recordings="headset"))
    assert set(rows.microphone) == {"close"} and len(rows) == 72 == report.dropped.pop(
        "far microphone, and corpus.recordings is headset"
    )
    rows, report, _ = prepared(tmp_path, part(release, merge={"leisure": ["music", "play"]}, max_utterances=4))
    assert report.domains["leisure"] == 4 == report.domains["alarm"] and "music" not in report.domains
    assert (rows.groupby("take").size() == 2).all()  # a take comes with both microphones
    with pytest.raises(UserError, match="corpus.merge: unknown domain 'moon'"):
        prepared(tmp_path, part(release, merge={"x": ["moon"]}))


def test_zipped_texts_in_a_clone_of_the_repository_and_a_second_preparation_are_the_same(release, tmp_path):
    expected, _, into = prepared(tmp_path, part(release))
    first = {p.relative_to(into): p.read_bytes() for p in into.rglob("*") if p.is_file()}
    zipped = slurp_fixture.write(tmp_path / "zipped", texts=4, zipped=True)
    clone = tmp_path / "clone"
    shutil.copytree(zipped / "slurp", clone / "dataset" / "slurp")
    shutil.copytree(zipped / "slurp_real", clone / "audio" / "slurp_real")
    for root in (release, clone):
        _, _, into = prepared(tmp_path, part(root))
        assert {p.relative_to(into): p.read_bytes() for p in into.rglob("*") if p.is_file()} == first
    assert len(expected) == 144


def _without_key(root: Path) -> None:
    (root / "slurp" / "test.jsonl").write_text('{"sentence": "hello", "scenario": "qa"}\n')


BAD = {
    "no texts of SLURP below": lambda root: shutil.rmtree(root / "slurp"),
    "has no devel.jsonl": lambda root: (root / "slurp" / "devel.jsonl").unlink(),
    "has no metadata.json": lambda root: (root / "slurp" / "metadata.json").unlink(),
    "metadata.json is damaged": lambda root: (root / "slurp" / "metadata.json").write_text("[1]"),
    "train.jsonl line 2 is no JSON": lambda root: (root / "slurp" / "train.jsonl").write_text('\n{"sente'),
    "test.jsonl line 1 has no 'recordings'": _without_key,
    "names no recordings": lambda root: [(root / "slurp" / f"{s}.jsonl").write_text("") for s in slurp.SPLITS],
    "test.jsonl.gz cannot be read": lambda root: (root / "slurp" / "test.jsonl").rename(
        root / "slurp" / "test.jsonl.gz"
    ),
    "no audio of SLURP below": lambda root: shutil.rmtree(root / "slurp_real"),
    "holds none of the 12 recordings": lambda root: [c.unlink() for c in (root / "slurp_real").iterdir()],
    "corpus.path: no folder": lambda root: shutil.rmtree(root),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_release_is_one_clear_line_and_nothing_is_written(tmp_path, message):
    root = slurp_fixture.write(tmp_path / "release", domains=["qa", "iot"])
    BAD[message](root)
    with pytest.raises(UserError, match=message) as caught:
        prepared(tmp_path, part(root))
    assert "\n" not in str(caught.value) and not list((tmp_path / "out").iterdir())


def test_a_release_of_which_nothing_can_be_scored_is_one_line(tmp_path):
    root = slurp_fixture.write(tmp_path / "release", domains=["qa"], sound=lambda text: slurp_fixture.tone(text, 0.4))
    with pytest.raises(UserError, match="nothing to score in 'en': see what was dropped: clip too short for its text"):
        prepared(tmp_path, part(root))


def test_other_languages_and_settings_of_slurp_elsewhere_are_refused(release, tmp_path):
    with pytest.raises(UserError, match="no speech in 'fr': use en"):
        prepared(tmp_path, CorpusPart(name="slurp", language="fr", path=str(release)))
    with pytest.raises(ValueError, match="of the corpus slurp, not of tuxpaint"):
        CorpusPart(name="tuxpaint", language="es", recordings="headset")


def test_a_recording_of_two_texts_is_left_out_and_a_damaged_token_keeps_its_entity(tmp_path):
    root = slurp_fixture.write(tmp_path / "release", domains=["qa", "iot"])
    lines = [json.loads(line) for line in (root / "slurp" / "train.jsonl").read_text().splitlines()]
    lines[1]["recordings"][0]["file"] = lines[0]["recordings"][0]["file"]
    lines[0]["tokens"][-2]["surface"] = "Bleu"
    (root / "slurp" / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows, report, _ = prepared(tmp_path, part(root))
    assert report.dropped == {"the recording is listed twice": 2}
    (entity,) = json.loads(rows[rows.transcription == lines[0]["sentence"]].entities.iloc[0])
    assert entity == {"type": "thing", "text": "qa", "start": 13, "end": 15}


def profile_of(release: Path, **overrides) -> Profile:
    values = {
        "corpus.name": "slurp",
        "corpus.language": "en",
        "corpus.path": str(release),
        "corpus.max_utterances": None,
    }
    values |= {"targets": ["music"], "sources": "all", "tts": [{"name": "pico"}], "backbone.name": "tiny.en"}
    return load_profile("quickstart", values | overrides)


def test_strict_trains_on_nothing_of_devel_and_test(release, tmp_path, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    profile = profile_of(release)
    assert len(speech.source_domains(profile, "music")) == 17 and speech.folds(profile) == [None]
    scored = speech.test_rows(profile, "music", None)
    assert set(scored.split) == {"test"} and len(scored) == 2
    real = speech.training_rows(profile, "real", ["music", "qa"])
    synthetic = speech.training_rows(profile, "pico", ["music"])
    assert set(real.split) == {"train"} == set(synthetic.split)
    assert set(speech.synthetic_rows(profile, "pico", ["music"]).text_id) == set(synthetic.text_id), (
        "no other is spoken"
    )
    devel = speech.real_rows(profile).query("split == 'validation'")
    for rows in (real, synthetic):
        assert not set(rows.text_id) & {*scored.text_id, *devel.text_id}


def test_texts_of_every_part_are_spoken_where_they_are_known(release, tmp_path, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    strict, paper, catalogue = (
        speech.to_speak(profile_of(release, **{"evaluation.protocol": protocol}))
        for protocol in ("strict", "paper", "catalogue")
    )
    assert set(strict.split) == {"train"} and set(catalogue.split) == {"train", "validation", "test"}
    assert strict.equals(paper), "one speech for both"


def test_settings_of_slurp_leave_the_addresses_of_other_corpora_as_they_were():
    _, label, key = speech._corpus_address(load_profile("quickstart"))
    assert label == "tuxpaint-es" and set(key["corpus"]) == {"name", "language", "path", "merge", "max_utterances"}
    _, _, key = speech._corpus_address(
        load_profile("quickstart", {"corpus.name": "slurp", "corpus.recordings": "headset"})
    )
    assert key["corpus"]["recordings"] == "headset"


def test_a_release_that_changes_is_prepared_anew_however_large(tmp_path, monkeypatch):
    root = slurp_fixture.write(tmp_path / "release", domains=["qa", "iot"])
    for many in (speech.MANY, 5):  # 12 clips
        monkeypatch.setattr(speech, "MANY", many)
        before = speech._user_files(str(root))
        assert before == speech._user_files(str(root)) and len(before) == (17 if many > 5 else 6)
        (root / "slurp_real" / f"more-{many}.flac").write_bytes(b"")
        assert speech._user_files(str(root)) != before
        (root / "slurp_real" / f"more-{many}.flac").unlink()


def test_texts_that_change_are_noticed_however_large_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "MANY", 2)
    for name in ("a.wav", "b.wav", "c.wav", "metadata.csv"):
        (tmp_path / name).write_text("one")
    before, folder = speech._user_files(str(tmp_path)), tmp_path.stat()
    (tmp_path / "metadata.csv").write_text("others")
    os.utime(tmp_path, ns=(folder.st_atime_ns, folder.st_mtime_ns))
    assert speech._user_files(str(tmp_path)) != before


class Ranged(SimpleHTTPRequestHandler):
    """A server that goes on where it is asked to, and breaks off once after 100 bytes."""

    broke = False

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        rest = data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if not Ranged.broke and len(rest) > 100:
            Ranged.broke, rest = True, rest[:100]
            self.close_connection = True
        self.wfile.write(rest)


@pytest.fixture
def site(release, tmp_path, monkeypatch):
    """The official addresses, served from a folder on this machine."""
    folder = tmp_path / "site"
    shutil.copytree(release / "slurp", folder / "text")
    with tarfile.open(folder / "slurp_real.tar.gz", "w:gz") as archive:
        archive.add(release / "slurp_real", "slurp_real")
    server = HTTPServer(("127.0.0.1", 0), partial(Ranged, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Ranged.broke = False
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(slurpfetch, "TEXT", f"{address}/text")
    monkeypatch.setattr(slurpfetch, "AUDIO", f"{address}/slurp_real.tar.gz")
    sums = {name: sha256(folder / "text" / name) for name in slurpfetch.SHA256}
    monkeypatch.setattr(slurpfetch, "SHA256", sums | {"metadata.json": None})
    yield folder
    server.shutdown()
    server.server_close()


def test_the_release_is_fetched_verified_and_gone_on_from_where_it_broke_off(
    site, release, tmp_path, monkeypatch, capsys
):
    expected, _, _ = prepared(tmp_path, part(release))
    with pytest.raises(UserError, match=r"broke off at .*give its folder as corpus.path"):
        prepared(tmp_path, part(None))
    with pytest.raises(UserError, match=r"wrong checksum of slurp_real.tar.gz.*expected md5 9efc0f058ced"):
        prepared(tmp_path, part(None))
    assert "fetching " in (said := capsys.readouterr().out) and "MB on" in said
    assert said.index("CC BY-NC 4.0") < said.index("fetching")
    md5 = hashlib.md5((site / "slurp_real.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(slurpfetch, "AUDIO_CHECKSUM", f"md5:{md5}")
    found, _, _ = prepared(tmp_path, part(None))
    assert found.drop(columns="path").equals(expected.drop(columns="path"))
    (kept,) = (tmp_path / "home" / "data" / "sources").glob("slurp-en-*/done.json")
    assert sorted(p.name for p in kept.parent.iterdir()) == ["LICENCE.txt", "done.json", "slurp", "slurp_real"]
    clip = Path(found.path[0])
    assert os.path.samefile(clip, kept.parent / "slurp_real" / f"{found.utterance[0]}.flac")  # not twice on the disk
    assert all(need.here(tmp_path / "home") for need in needs.of_corpus(part(None)))


def test_a_release_that_cannot_be_reached_says_what_to_do_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(slurpfetch, "TEXT", "http://127.0.0.1:9/text")
    with pytest.raises(UserError, match=r"cannot fetch http.*: get SLURP elsewhere .* corpus.path"):
        prepared(tmp_path, part(None))
    assert not [p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert not fetch.reachable("http://127.0.0.1:9/", 1.0)


@pytest.fixture
def hub_copy(release, tmp_path) -> Path:
    """A copy as people push it to the hub: Parquet, a split each, the audio inside."""
    folder = tmp_path / "copy"
    (folder / "data").mkdir(parents=True)
    features = {
        "audio": {"_type": "Audio"},
        **{name: {"dtype": "string", "_type": "Value"} for name in ("text", "scenario")},
    }
    for split in ("train", "devel", "test"):
        lines = [json.loads(line) for line in (release / "slurp" / f"{split}.jsonl").read_text().splitlines()]
        table = [
            {
                "audio": {"bytes": (release / "slurp_real" / r["file"]).read_bytes(), "path": r["file"]},
                "text": line["sentence"],
                "scenario": line["scenario"],
            }
            for line in lines
            for r in line["recordings"]
        ]
        made = pyarrow.Table.from_pylist(table)
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pyarrow.parquet.write_table(made, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_the_copy_on_the_hub_gives_the_same_recordings(hub_copy, release, tmp_path, monkeypatch):
    expected, _, _ = prepared(tmp_path, part(release))
    monkeypatch.setattr(slurpfetch, "_snapshot", lambda *_: hub_copy)  # what huggingface_hub would have put there
    found, _, _ = prepared(tmp_path, part(None, source="hub"))
    same = ["utterance", "transcription", "domain", "split", "take", "microphone", "text_id", "duration"]
    assert found[same].equals(expected[same])
    assert set(found.speaker) == {""} and set(found.gender) == {"unknown"}  # which this copy does not tell
    (hub_copy / "data" / "devel-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match="no split 'devel': it has"):
        slurpfetch.from_hub(tmp_path)


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot fetch jacksukk/slurp: .* cannot be reached .*corpus.path"):
        prepared(tmp_path, part(None, source="hub"))
    assert not [p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_hub_names_are_pinned_to_commits_or_say_that_they_are_not():
    for name, about in hubnames.HUB.items():
        revision = hubnames.pinned(name)
        assert revision is None or (len(revision) == 40 and int(revision, 16)), name
        assert (hubnames.UNPINNED in about.line()) == (revision is None)
    assert hubnames.pinned("someone/unknown") is None
    assert hubnames.pinned("openai/whisper-small") == "973afd24965f72e36ca33b3055d56a652f456b4d"


def test_the_licence_of_slurp_and_of_hub_backbones_travels_with_the_models():
    assert origin("slurp").noncommercial and origin("slurp").licence == "CC-BY-NC-4.0"
    conformer = origin("facebook/wav2vec2-conformer-rope-large-960h-ft@main")
    assert (conformer.licence, conformer.hub) == ("Apache-2.0", "facebook/wav2vec2-conformer-rope-large-960h-ft")
    assert origin("openai/whisper-base").licence == "MIT" and origin("me/mine").licence == UNKNOWN


@pytest.mark.skipif(not (REAL / "test.jsonl.gz").is_file(), reason="no real text of SLURP: set SYN2REAL_SLURP_TEXT")
def test_the_real_text_of_devel_and_test():
    for name in ("devel", "test"):
        data = gzip.decompress((REAL / f"{name}.jsonl.gz").read_bytes())
        assert hashlib.sha256(data).hexdigest() == slurpfetch.SHA256[f"{name}.jsonl"]
    rows = {
        name: pd.DataFrame(slurp.told_in(REAL / f"{name}.jsonl.gz", slurp.SPLITS[name], {}))
        for name in ("devel", "test")
    }
    test = rows["test"]
    assert (len(test), test["take"].nunique(), test.transcription.nunique()) == (13_078, 7_524, 2_973)
    assert sorted(set(test.domain)) == slurp_fixture.DOMAINS and (test.microphone == "close").sum() == 6_281
    both = pd.concat(rows.values())
    assert both.utterance.is_unique and both.transcription.str.len().max() == 365
    found = [
        (row.transcription, entity)
        for row in both.drop_duplicates("transcription").itertuples()
        for entity in json.loads(row.entities)
    ]
    placed = [(text, e) for text, e in found if e["start"] is not None]
    assert all(text[e["start"] : e["end"]] == e["text"] for text, e in placed)
    assert (len(found), len(placed)) == (4_843, 4_835)  # eight stand at a word that was mended
