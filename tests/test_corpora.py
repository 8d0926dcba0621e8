"""Corpora: Tux Paint, a user's folder, folds, and what `datasets` makes of them."""

import errno
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import types
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from syn2real_utils import fetch, ffmpeg
from syn2real_utils.corpora import asterisk, base, folder, tuxpaint
from syn2real_utils.errors import UserError
from syn2real_utils.profile import CorpusPart
from syn2real_utils.store import Store, sha256
from syn2real_utils.text import normalise


def clip(path: Path, seconds: float, pitch: int, rate: int = 44_100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)
    soundfile.write(str(path), np.stack([wave, wave], axis=1) if path.suffix == ".ogg" else wave, rate)
    return path


def stamp(
    root: Path, name: str, text: str | None, seconds: float = 2.0, pitch: int = 200, language: str = "es"
) -> Path:
    if text is not None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.txt").write_text(f"In English.\nfr.utf8=Bonjour.\n{language}.utf8={text}\n", encoding="utf-8")
    return clip(root / f"{name}_desc_{language}.ogg", seconds, pitch)


@pytest.fixture
def stamps(tmp_path) -> Path:
    root = tmp_path / "release" / "stamps"
    for i, word in enumerate(["perro", "gato", "pez", "oso"]):
        stamp(root, f"animals/{word}", f"Un {word} ({i} €).", pitch=200 + 10 * i)
    stamp(root, "animals/other/perro2", "¡Un perro!", pitch=300)  # another recording of the same text
    stamp(root, "vehicles/locomotive/white_train", "Un tren.", pitch=310)
    stamp(root, "vehicles/dev_test", "Un coche.", pitch=320)
    stamp(root, "plants/rosa", "Una rosa.", pitch=330)
    stamp(root, "space/luna", "La luna.", pitch=340)
    shutil.copyfile(stamp(root, "food/pan", "Pan.", pitch=400), stamp(root, "food/pan_again", "pan"))
    shutil.copyfile(stamp(root, "food/sopa", "Sopa.", pitch=410), stamp(root, "food/caldo", "Caldo."))
    stamp(root, "food/signs", "¡…!", pitch=420)
    stamp(root, "food/click", "Sal.", seconds=0.2, pitch=430)
    stamp(root, "food/cut", "Una paella valenciana con conejo, pollo y verduras.", seconds=0.7, pitch=440)
    stamp(root, "food/no_note", None, pitch=450)
    stamp(root, "food/untold", "", pitch=460)
    return root


def prepared(tmp_path: Path, part: CorpusPart, folds: int = 2) -> tuple[pd.DataFrame, base.CorpusReport, Path]:
    into = tmp_path / "out"
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    report = base.prepare(part, folds, Store(tmp_path / "home"), into)
    return base.read_audiofolder(into), report, into


def tux(root: Path, **settings) -> CorpusPart:
    return CorpusPart(name="tuxpaint", language=settings.pop("language", "es"), path=str(root), **settings)


def test_tuxpaint_keeps_one_row_per_recording_and_says_what_it_dropped(stamps, tmp_path, capsys):
    rows, report, into = prepared(tmp_path, tux(stamps.parent))
    assert report.domains == {"animals": 5, "food": 1, "nature": 2, "vehicles": 2}
    dropped = pd.read_csv(into / "dropped.csv").set_index("utterance").reason.to_dict()
    assert dropped == {
        "food/caldo": "one recording for several texts",
        "food/sopa": "one recording for several texts",
        "food/pan_again": "the same recording again",
        "food/signs": "the text has no words",
        "food/click": "clip under 0.3 s",
        "food/cut": "clip too short for its text (over 25 characters a second)",
        "food/no_note": "no text file",
        "food/untold": "no text in 'es'",
    }
    assert sum(report.dropped.values()) == 8 and sum(report.domains.values()) == len(rows)
    said = capsys.readouterr().out
    assert "dropped 2: one recording for several texts" in said and "nature 2" in said
    train = rows.set_index("utterance").loc["vehicles/locomotive/white_train"]
    assert (train.transcription, train.domain, train.language, train.duration) == ("Un tren.", "vehicles", "es", 2.0)
    original = stamps / "vehicles/locomotive/white_train_desc_es.ogg"
    assert sha256(Path(train.path)) == sha256(original)
    assert not os.path.samefile(train.path, original)  # a user's file is copied, never linked


def test_preparing_again_over_what_a_kill_left_gives_the_same_bytes(stamps, tmp_path):
    _, _, into = prepared(tmp_path, tux(stamps))
    first = {p.relative_to(into): p.read_bytes() for p in into.rglob("*") if p.is_file()}
    (into / "clips" / "stale.ogg").write_bytes(b"half")
    whole, half = sorted(p for p in (into / "clips" / "animals").iterdir())[:2]
    half.write_bytes(half.read_bytes()[:100])
    made = whole.stat().st_mtime_ns
    base.prepare(tux(stamps), 2, Store(tmp_path / "home"), into)
    assert {p.relative_to(into): p.read_bytes() for p in into.rglob("*") if p.is_file()} == first
    assert whole.stat().st_mtime_ns == made  # what is whole is not put again


def test_merge_of_the_profile_replaces_the_default(stamps, tmp_path):
    _, report, _ = prepared(tmp_path, tux(stamps, merge={"outdoors": ["plants", "vehicles"]}))
    assert list(report.domains) == ["animals", "food", "outdoors", "space"]
    with pytest.raises(UserError, match="unknown domain 'moon': the corpus has animals"):
        prepared(tmp_path, tux(stamps, merge={"x": ["moon"]}))
    with pytest.raises(UserError, match="'space' is listed twice"):
        prepared(tmp_path, tux(stamps, merge={"x": ["space"], "y": ["space"]}))


def test_max_utterances_keeps_all_recordings_of_a_text_together(stamps, tmp_path):
    rows, _, _ = prepared(tmp_path, tux(stamps, max_utterances=3))
    counts = rows[rows.domain == "animals"].groupby("text_id").size()
    assert counts.sum() == 3
    everything, _, _ = prepared(tmp_path, tux(stamps))
    assert (everything.groupby("text_id").size()[counts.index] == counts).all()


def test_no_text_stands_on_both_sides_of_a_fold_and_folds_are_balanced():
    ids = [f"{i:012x}" for i in range(31)] + ["00000000000a"] * 9
    rows = pd.DataFrame(
        {"domain": ["a"] * 40 + ["b"] * 5, "text_id": ids + [f"b{i}" for i in range(5)]}, index=range(100, 145)
    )
    folds = base.assign_folds(rows, 3)
    assert list(folds.index) == list(rows.index)
    assert (folds.groupby(rows.text_id).nunique() == 1).all()
    for domain, count in (("a", 31), ("b", 5)):
        sizes = folds[rows.domain == domain].groupby(folds).apply(lambda f: rows.text_id[f.index].nunique())
        assert sizes.max() - sizes.min() <= 1 and sizes.sum() == count
    shuffled = rows.sample(frac=1, random_state=1)
    assert (base.assign_folds(shuffled, 3).sort_index() == folds).all()
    assert (base.assign_folds(rows, 3, seed=1) != folds).any()


def test_texts_that_are_equal_once_normalised_share_text_id_and_fold(stamps, tmp_path):
    rows, _, _ = prepared(tmp_path, tux(stamps))
    twins = rows[rows.utterance.isin(["animals/perro", "animals/other/perro2"])]
    assert twins.text_id.nunique() == 1 and twins.fold.nunique() == 1
    assert rows[rows.domain == "animals"].fold.nunique() == 2


def test_a_text_of_two_domains_stays_in_one_and_the_other_is_counted(stamps, tmp_path):
    stamp(stamps, "plants/oso", "¡UN OSO (3 €)!", pitch=350)
    rows, report, _ = prepared(tmp_path, tux(stamps))
    assert report.dropped["its text stands in animals too"] == 1 and "plants/oso" not in set(rows.utterance)


def test_tuxpaint_says_what_it_cannot_have(stamps, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no speech in 'lt': use one of be, bg"):
        prepared(tmp_path, tux(stamps, language="lt"))
    with pytest.raises(UserError, match="no Tux Paint speech in 'fr' below"):
        prepared(tmp_path, tux(stamps, language="fr"))
    with pytest.raises(UserError, match="no folder .*nowhere"):
        prepared(tmp_path, tux(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without apt, and without a network
    monkeypatch.setattr(tuxpaint, "RELEASE", f"file://{tmp_path}/nowhere.tar.gz")
    with pytest.raises(UserError, match=r"no apt-get.*and cannot fetch file:.*give its folder as corpus.path"):
        prepared(tmp_path, CorpusPart(name="tuxpaint", language="es"))
    assert not [p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_without_apt_the_source_release_gives_the_same_corpus(stamps, tmp_path, monkeypatch):
    expected, _, _ = prepared(tmp_path, tux(stamps))
    (stamps.parent / "docs").mkdir()
    (stamps.parent / "docs" / "COPYING.txt").write_text("GPL")
    with tarfile.open(tmp_path / "release.tar.gz", "w:gz") as archive:
        archive.add(stamps.parent, "tuxpaint-stamps-2022.06.04")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tuxpaint, "RELEASE", f"file://{tmp_path}/release.tar.gz")
    part = CorpusPart(name="tuxpaint", language="es")
    with pytest.raises(UserError, match="wrong checksum of release.tar.gz"):
        prepared(tmp_path, part)
    monkeypatch.setattr(tuxpaint, "RELEASE_SHA256", sha256(tmp_path / "release.tar.gz"))
    found, _, _ = prepared(tmp_path, part)
    assert found.drop(columns="path").equals(expected.drop(columns="path"))
    (kept,) = (tmp_path / "home" / "data" / "sources").glob("tuxpaint-es-*/")
    assert sorted(p.name for p in kept.iterdir()) == ["copyright", "done.json", "stamps"]


def test_english_stamps_have_their_text_in_the_first_line(tmp_path):
    root = tmp_path / "stamps"
    stamp(root, "animals/dog", "Un perro.", language="es")
    clip(root / "animals" / "dog_desc.ogg", 1.0, 250)
    rows, _, _ = prepared(tmp_path, tux(root, language="en"))
    assert rows.transcription.tolist() == ["In English."]


PROMPTS = """\ufeff; Core sounds

vm-saved: saved
vm-message:  Message  saved.
vm-intro: Leave a message. (a tone plays)
vm-options: press # to go on
conf-full: That conference is full.
confbridge-full: That conference is full.
confbridge-join: <beep ascending>
digits/7: seven
digits/8: eight
digits/8: ate
letters/dash: dash [-]
silence/1: (1 second of silence)
hello-world: Hello world!
hello: Hello.
goodbye: Goodbye.
"""


@pytest.fixture
def prompts(tmp_path) -> Path:
    root = tmp_path / "prompts"
    root.mkdir()
    (root / "core-sounds-en.txt").write_text(PROMPTS, encoding="utf-8")
    names = [line.partition(":")[0] for line in PROMPTS.splitlines()[2:]]
    for i, name in enumerate(dict.fromkeys([*names, "vm-untold"])):
        clip(root / f"{name}.wav", 2.0, 200 + 10 * i, 8_000)
    shutil.copyfile(root / "hello.wav", root / "goodbye.wav")
    return root


def test_asterisk_has_a_domain_per_purpose_and_no_stage_direction(prompts, tmp_path, capsys):
    rows, report, into = prepared(tmp_path, CorpusPart(name="asterisk", language="en", path=str(prompts)))
    assert report.domains == {"calls": 1, "conference": 2, "numbers": 1, "spelling": 1, "voicemail": 2}
    dropped = pd.read_csv(into / "dropped.csv").set_index("utterance").reason.to_dict()
    direction, twice = "a stage direction, or a text with one", "one recording for several texts"
    assert dropped == {
        **dict.fromkeys(("confbridge-join", "silence/1", "vm-intro"), direction),
        "vm-options": "a key (* or #) that is not written as it is said",
        "digits/8": "no text",
        "vm-untold": "no text",
        **dict.fromkeys(("hello", "goodbye"), twice),
    }
    said = rows.set_index("utterance").transcription
    assert (
        said["letters/dash"] == "dash"
        and said["vm-message"] == "Message saved."
        and set(rows.speaker) == {"Allison Smith"}
    )
    assert "Allison Smith, CC-BY-SA-3.0" in capsys.readouterr().out
    part = CorpusPart(name="asterisk", language="en", path=str(prompts), merge={"mail": ["vm"]})
    assert prepared(tmp_path, part)[1].domains == {"conf": 1, "digits": 1, "hello": 1, "letters": 1, "mail": 2}


def test_asterisk_says_what_it_cannot_have(prompts, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no prompts in 'de': use one of en, es, fr, it, ru"):
        prepared(tmp_path, CorpusPart(name="asterisk", language="de"))
    with pytest.raises(UserError, match="no Asterisk prompts in 'fr' below .*expected core-sounds-fr.txt"):
        prepared(tmp_path, CorpusPart(name="asterisk", language="fr", path=str(prompts)))
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without apt
    with pytest.raises(UserError, match=r"no apt-get.*give it as corpus.path"):
        prepared(tmp_path, CorpusPart(name="asterisk", language="en"))
    assert not [p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_asterisk_keeps_the_packages_g722_as_16_khz_flac(prompts, tmp_path, monkeypatch):
    def unpack(package: str, version: str, checksum: str, into: Path) -> Path:
        """The packages as `dpkg-deb -x` lays them out; their fetching is `fetch`'s own."""
        about, sounds = into / "usr/share/doc" / package, into / "usr/share/asterisk/sounds/en_US_f_Allison"
        about.mkdir(parents=True)
        if package.endswith("en"):
            (about / "core-sounds-en.txt.gz").write_bytes(gzip.compress(PROMPTS.encode()))
            (about / "copyright").write_text("CC-BY-SA-3.0")
        for wav in sorted(prompts.rglob("*.wav")) if package.endswith("g722") else []:
            target = (sounds / wav.relative_to(prompts)).with_suffix(".g722")
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                [ffmpeg.program(), "-v", "error", "-i", wav, "-ar", "16000", "-f", "g722", target], check=True
            )
        return into

    monkeypatch.setattr(fetch, "debian_tree", unpack)
    monkeypatch.setattr(asterisk, "TOGETHER", 4)
    rows, _, _ = prepared(tmp_path, CorpusPart(name="asterisk", language="en"))
    assert len(rows) == 7 and {soundfile.info(path).samplerate for path in rows.path} == {16_000}
    assert rows.duration.round(1).tolist() == [2.0] * 7
    (kept,) = (tmp_path / "home" / "data" / "sources").glob("asterisk-en-*/")
    assert (kept / "copyright").is_file() and not (kept / "unpacked").exists()


@pytest.fixture
def own(tmp_path) -> Path:
    """A user's folder with all four formats, odd rates, and names that look like splits."""
    root = tmp_path / "own"
    table = []
    for i, (name, rate) in enumerate(
        [("a.wav", 8_000), ("train/b.flac", 48_000), ("test/c d.ogg", 44_100), ("é.mp3", 22_050)]
    ):
        clip(root / name, 1.5, 200 + i, rate)
        table.append(
            {"file_name": name, "transcription": f'Texto, "{i}"', "domain": ["dev", "dev", "my/odd domain", "menu"][i]}
        )
    pd.DataFrame(table).to_csv(root / "metadata.csv", index=False)
    return root


def own_part(root: Path, **settings) -> CorpusPart:
    return CorpusPart(name="folder", language="es", path=str(root), **settings)


def edit(root: Path, **columns) -> None:
    """Change columns of metadata.csv; None removes one."""
    rows = pd.read_csv(root / "metadata.csv")
    for name, values in columns.items():
        rows = rows.drop(columns=name) if values is None else rows.assign(**{name: values})
    rows.to_csv(root / "metadata.csv", index=False)


def test_folder_takes_every_format_and_rate(own, tmp_path):
    rows, report, _ = prepared(tmp_path, own_part(own))
    assert report.domains == {"dev": 2, "menu": 1, "my/odd domain": 1}
    assert sorted(rows.utterance) == ["a.wav", "test/c d.ogg", "train/b.flac", "é.mp3"]
    assert rows.duration.round(1).tolist() == [1.5] * 4
    assert {sha256(Path(p)) for p in rows.path} == {sha256(own / u) for u in rows.utterance}
    assert set(rows.fold) <= {0, 1}


def test_one_recording_under_several_texts_is_told(own, tmp_path, capsys):
    prepared(tmp_path, own_part(own))
    assert "one recording" not in capsys.readouterr().out
    (own / "again.wav").write_bytes((own / "a.wav").read_bytes())
    rows = pd.read_csv(own / "metadata.csv")
    more = {"file_name": "again.wav", "transcription": "otro texto", "domain": "menu"}
    pd.concat([rows, pd.DataFrame([more])]).to_csv(own / "metadata.csv", index=False)
    _, report, _ = prepared(tmp_path, own_part(own))
    assert "2 clips are one recording under several texts (a.wav, again.wav)" in capsys.readouterr().out
    assert sum(report.domains.values()) == 5


def test_folder_without_a_column_domain_is_one_domain(own, tmp_path):
    edit(own, domain=None)
    _, report, _ = prepared(tmp_path, own_part(own))
    assert report.domains == {own.name: 4}


def test_folder_with_an_official_split_has_no_folds(own, tmp_path, capsys):
    edit(
        own,
        split=["train", "test", "validation", "train"],
        speaker=["s1", "s2", "s1", "s2"],
        transcription=["Sol", "Sol", "Mar", "Pan"],
    )
    rows, _, _ = prepared(tmp_path, own_part(own))
    assert (
        set(rows.fold) == {-1}
        and set(rows.speaker) == {"s1", "s2"}
        and sorted(rows.split) == ["test", "train", "train", "validation"]
    )
    assert "1 texts of" in capsys.readouterr().out
    edit(own, split=["train", "", "test", "train"])
    with pytest.raises(UserError, match="row 3: split '' is unknown"):
        prepared(tmp_path, own_part(own))


BAD = {
    "no column 'transcription'": lambda own: edit(own, transcription=None),
    "row 3 .*train/b.flac.*: empty transcription": lambda own: edit(own, transcription=["a", " ", "c", "d"]),
    "row 2 .*: empty domain": lambda own: edit(own, domain=["", "b", "c", "d"]),
    "row 4: duplicate file name a.wav, first in row 2": lambda own: edit(
        own, file_name=["a.wav", "train/b.flac", "./a.wav", "é.mp3"]
    ),
    "row 2: the clip ../a.wav lies outside": lambda own: edit(own, file_name=["../a.wav", "x", "y", "z"]),
    "row 2: the clip /etc/hosts lies outside": lambda own: edit(own, file_name=["/etc/hosts", "x", "y", "z"]),
    "row 2: the clip a.wav is missing": lambda own: (own / "a.wav").unlink(),
    "row 2: cannot read the clip .*a.wav": lambda own: (own / "a.wav").write_bytes(b"no audio at all"),
    "row 2: the clip .*a.wav holds nan or inf": lambda own: soundfile.write(
        str(own / "a.wav"), np.array([0.1, np.nan, 0.1] * 4000, dtype="float32"), 8_000, subtype="FLOAT"
    ),
    "row 2: the clip .*a.wav holds samples beyond": lambda own: soundfile.write(
        str(own / "a.wav"), np.full(4000, 1e30, dtype="float32"), 8_000, subtype="FLOAT"
    ),
    "row 2: the clip .*a.wav is cut short: 956 of its 8000 bytes": lambda own: (
        soundfile.write(str(own / "a.wav"), np.full(4000, 0.1), 8_000),
        (own / "a.wav").write_bytes((own / "a.wav").read_bytes()[:1000]),
    ),
    "row 2: the clip .*a.wav is empty": lambda own: soundfile.write(str(own / "a.wav"), np.zeros(0), 8_000),
    "row 2: the clip metadata.csv is no wav": lambda own: edit(
        own, file_name=["metadata.csv", "train/b.flac", "test/c d.ogg", "é.mp3"]
    ),
    "has no metadata.csv": lambda own: (own / "metadata.csv").unlink(),
    "is not UTF-8": lambda own: (own / "metadata.csv").write_bytes(
        "file_name,transcription,domain\na.wav,niño,x\n".encode("latin-1")
    ),
    "no rows": lambda own: (own / "metadata.csv").write_text("file_name,transcription,domain\n"),
    "not as many cells": lambda own: (own / "metadata.csv").write_text(
        "file_name,transcription,domain\na.wav,uno, dos,x\n"
    ),
    "is no CSV": lambda own: (own / "metadata.csv").write_text('file_name,transcription,domain\na.wav,"uno,x\n'),
    "no corpus folder": lambda own: shutil.rmtree(own),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_folder_is_one_clear_line_and_nothing_is_written(own, tmp_path, message):
    BAD[message](own)
    with pytest.raises(UserError, match=message) as caught:
        prepared(tmp_path, own_part(own))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def test_unknown_domains_and_missing_path_are_named(own, tmp_path):
    rows, _, _ = prepared(tmp_path, own_part(own))
    base.check_domains(rows, ["dev", "menu"])
    with pytest.raises(UserError, match="unknown domain 'birds': the corpus has dev, menu, my/odd domain"):
        base.check_domains(rows, ["dev", "birds"])
    with pytest.raises(UserError, match="corpus.path is missing"):
        prepared(tmp_path, CorpusPart(name="folder", language="es"))


def test_a_prepared_folder_that_was_edited_by_hand_is_refused(own, tmp_path):
    _, _, into = prepared(tmp_path, own_part(own))
    edit(into, duration="long")
    with pytest.raises(UserError, match="column 'duration' must hold numbers"):
        base.read_audiofolder(into)
    with pytest.raises(UserError, match="no column 'spoken'"):
        base.read_audiofolder(into, synthetic=True)


def test_folder_read_for_scoring_has_every_column_of_a_corpus(own):
    rows = folder.read_audio(own, "es")
    assert set(base.CORPUS) <= set(rows.columns) and set(rows.fold) == {-1}


@pytest.fixture
def encoder(monkeypatch):
    """datasets 5.2 imports torchcodec's encoder before it stores the path of a clip, and calls it only for arrays.

    torchcodec needs FFmpeg and a torch built like it, so it may be absent or not load; an empty stand-in is enough here.
    """
    import datasets  # noqa: F401  (it looks for the real torchcodec when it is imported)

    try:
        from torchcodec.encoders import AudioEncoder  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        stand_in = types.ModuleType("torchcodec.encoders")
        stand_in.AudioEncoder = None
        monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
        monkeypatch.setitem(sys.modules, "torchcodec.encoders", stand_in)


def load(folder_: Path, cache: Path):
    import datasets

    found = datasets.load_dataset("audiofolder", data_dir=str(folder_), cache_dir=str(cache))
    assert list(found) == ["train"]  # one piece: nothing is taken for a split
    return found["train"].cast_column("audio", datasets.Audio(decode=False))


def test_datasets_opens_both_corpora_whole(stamps, own, tmp_path, encoder):
    for name, part in (
        ("test", tux(stamps)),
        ("dev set", own_part(own)),
    ):  # the folder itself may be called like a split
        place = tmp_path / name / "validation"
        place.mkdir(parents=True)
        base.prepare(part, 2, Store(tmp_path / "home"), place)
        (place / "done.json").write_text("{}")
        rows, opened = base.read_audiofolder(place), load(place, tmp_path / "cache")
        assert len(opened) == len(rows)
        assert set(opened.column_names) == {"audio", *base.CORPUS} - {"file_name"}  # no label column
        by_name = rows.set_index("utterance")
        for item in opened:
            assert item["transcription"] == by_name.transcription[item["utterance"]]
            assert item["audio"]["path"] == by_name.path[item["utterance"]]


@pytest.mark.real
def test_the_real_spanish_stamps(shared_data, tmp_path):
    report = base.prepare(CorpusPart(name="tuxpaint", language="es"), 2, shared_data, tmp_path)
    rows = base.read_audiofolder(tmp_path)
    assert len(rows) == 746 and report.texts == 704
    assert report.domains["animals"] == 132 and report.domains["nature"] == 51 and len(report.domains) == 11
    assert sum(n for reason, n in report.dropped.items() if "again" in reason) == 136
    assert 21.5 < rows.duration.sum() / 60 < 22.5
    assert (rows.groupby("text_id").fold.nunique() == 1).all()
    said = rows.transcription.map(lambda text: normalise(text, "es"))
    assert (rows.groupby(said).domain.nunique() == 1).all(), "no text of one domain is trained on in another"
    assert len({sha256(Path(p)) for p in rows.path}) == len(rows)


@pytest.mark.real
def test_the_real_english_prompts(shared_data, tmp_path):
    report = base.prepare(CorpusPart(name="asterisk", language="en"), 2, shared_data, tmp_path)
    rows = base.read_audiofolder(tmp_path)
    assert report.domains == {"calls": 163, "conference": 85, "numbers": 93, "spelling": 83, "voicemail": 105}
    assert 21 < rows.duration.sum() / 60 < 22 and report.texts == 497
    assert {soundfile.info(path).samplerate for path in rows.path} == {16_000}


def test_a_network_that_fails_in_its_own_way_is_one_line(tmp_path, monkeypatch):
    def lost(*_, **__):
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(urllib.request, "urlopen", lost)
    with pytest.raises(fetch.UnreachableError, match="cannot fetch https://example.org/a: .*No route to host"):
        fetch.download("https://example.org/a", tmp_path / "a", None)
