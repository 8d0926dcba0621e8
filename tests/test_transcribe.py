"""Transcripts: real clips through the carried weights, four formats, long clips, and what is refused."""

import csv
import io
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from syn2real_utils import audio, transcription
from syn2real_utils.backbones import sources
from syn2real_utils.backbones.whisper import Whisper
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import Lineage, architecture, write_lineage
from syn2real_utils.profile import BackbonePart
from syn2real_utils.transcripts import Output, Segment, Transcript, find_clips, render
from tests.test_cli import call, home, tree  # noqa: F401

RATE = audio.SAMPLE_RATE
WORDS = ("elephant", "kangaroo", "penguin")  # clips that tiny.en hears right; it does not hear the giraffe
CUE = re.compile(r"(\d+)\n(\d\d):(\d\d):(\d\d),(\d{3}) --> (\d\d):(\d\d):(\d\d),(\d{3})\n(.+)\n")
real = pytest.mark.real


@pytest.fixture(scope="module")
def tiny_en(shared_data) -> Path:
    return sources.resolve("tiny.en", shared_data)


@pytest.fixture(scope="module")
def base(shared_data) -> Path:
    return sources.resolve("base", shared_data)


@pytest.fixture(scope="module")
def clear(real_clips) -> list[Path]:
    """A real clip of each of WORDS."""
    return [next(path for path in real_clips["tiny.en"] if word in path.name) for word in WORDS]


@pytest.fixture(scope="module")
def long_clip(clear, tmp_path_factory) -> Path:
    """Three real clips with 12 s of silence before each, stereo at 44.1 kHz: more than 30 s."""
    silence = np.zeros(12 * RATE, dtype=np.float32)
    wave = np.concatenate([part for path in clear for part in (silence, audio.read(path))])
    wave = audio.resample(wave, RATE, 44_100)
    file = tmp_path_factory.mktemp("long") / "long.flac"
    soundfile.write(file, np.stack([wave, wave], axis=1), 44_100)
    return file


@pytest.fixture
def clip(tmp_path) -> Path:
    return tone(tmp_path / "clip.wav")


def tone(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    audio.write(file, (0.1 * np.sin(np.arange(RATE))).astype(np.float32))
    return file


def relative_of(folder: Path, model: Path, lineage: Lineage | None) -> Path:
    """A folder with the files of a model and another lineage."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    if lineage:
        write_lineage(folder, lineage)
    return folder


# what is heard


@real
def test_one_clip_gives_its_text_and_nothing_else(tiny_en, clear, home, capsys):  # noqa: F811
    status, out, err = call(capsys, "transcribe", tiny_en, clear[0])
    asr = Whisper(tiny_en, "en", BackbonePart(name="tiny.en"))
    (same,) = asr.transcribe(asr.load(), [asr.features(clear[0], full=True)], 1)
    assert status == 0, err
    assert out == same + "\n" and "elephant" in out.lower()


@real
def test_several_clips_in_the_order_given(tiny_en, clear, home, capsys):  # noqa: F811
    clips = clear[::-1]
    status, out, _ = call(capsys, "transcribe", tiny_en, *clips)
    rows = [line.split("\t") for line in out.splitlines()]
    assert status == 0 and [row[0] for row in rows] == [str(clip) for clip in clips]
    for (file, text), word in zip(rows, WORDS[::-1], strict=True):
        assert word in file and word in text.lower()


@real
def test_all_formats_hold_the_same(tiny_en, clear, home, capsys):  # noqa: F811
    clips = clear[:2]
    printed = {
        form: call(capsys, "transcribe", tiny_en, *clips, "--format", form)[1] for form in ("text", "json", "csv")
    }
    found = json.loads(printed["json"])
    assert [set(item) for item in found] == [{"file", "text", "seconds", "segments"}] * 2
    assert [item["seconds"] for item in found] == pytest.approx([audio.duration(clip) for clip in clips], abs=0.001)
    for item in found:
        (segment,) = item["segments"]
        assert segment["text"] == item["text"] and 0 <= segment["start"] < segment["end"] <= item["seconds"]
    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert [(row["file"], float(row["seconds"]), row["text"]) for row in rows] == [
        (item["file"], item["seconds"], item["text"]) for item in found
    ]
    assert printed["text"] == "".join(f"{item['file']}\t{item['text']}\n" for item in found)


@real
def test_any_rate_and_format_of_a_clip(tiny_en, clear, tmp_path):
    wave = audio.read(clear[0])
    files = [tmp_path / "a" / "low.wav", tmp_path / "b.mp3", tmp_path / "c.FLAC", tmp_path / "d.ogg"]
    files[0].parent.mkdir()
    for file, rate in zip(files, (8_000, 44_100, 48_000, 22_050), strict=True):
        soundfile.write(file, audio.resample(wave, RATE, rate), rate)
    (tmp_path / "notes.txt").write_text("no clip")
    (tmp_path / ".hidden.wav").write_bytes(b"no clip")
    heard = transcription.transcribe(tiny_en, tmp_path)
    assert [t.file for t in heard] == [str(file) for file in files]
    assert all("elephant" in t.text.lower() for t in heard), heard


@real
def test_a_clip_of_more_than_30_s(tiny_en, long_clip, home, capsys):  # noqa: F811
    (heard,) = transcription.transcribe(tiny_en, long_clip)
    assert heard.seconds > 36 and len(heard.segments) > 1
    for word in WORDS:
        assert word in heard.text.lower()
    edges = [edge for segment in heard.segments for edge in (segment.start, segment.end)]
    assert edges == sorted(edges) and len(set(edges)) == len(edges) and edges[0] >= 12 and edges[-1] <= heard.seconds
    assert heard.text == " ".join(segment.text for segment in heard.segments)
    status, out, _ = call(capsys, "transcribe", tiny_en, long_clip, "--format", "srt", "-o", "long.srt")
    assert status == 0 and out == "wrote long.srt\n"
    cues = [match.groups() for match in CUE.finditer((home / "long.srt").read_text())]
    assert [cue[0] for cue in cues] == [str(n + 1) for n in range(len(heard.segments))]
    assert [cue[-1] for cue in cues] == [segment.text for segment in heard.segments]
    assert [seconds(cue[1:5]) for cue in cues] == pytest.approx([segment.start for segment in heard.segments])


def seconds(clock) -> float:
    hours, minutes, whole, thousandths = map(int, clock)
    return 3600 * hours + 60 * minutes + whole + thousandths / 1000


@real
def test_groups_change_nothing(tiny_en, long_clip, clear, monkeypatch, capsys):
    clips = [clear[0], long_clip, clear[1]]
    at_once = transcription.transcribe(tiny_en, clips)
    monkeypatch.setattr(transcription, "GROUP", 2)
    assert transcription.transcribe(tiny_en, clips) == at_once
    assert "clips 2 to 2 of 3" in capsys.readouterr().out


@real
def test_silence_has_no_text(tiny_en, tmp_path, home, capsys):  # noqa: F811
    audio.write(tmp_path / "silence.wav", np.zeros(40 * RATE, dtype=np.float32))
    audio.write(tmp_path / "short.wav", np.zeros(10, dtype=np.float32))
    silence, short = transcription.transcribe(tiny_en, [tmp_path / "silence.wav", tmp_path / "short.wav"])
    assert (silence.text, silence.seconds, silence.segments) == ("", 40.0, ())
    assert (short.text, short.segments) == ("", ())
    assert call(capsys, "transcribe", tiny_en, tmp_path / "silence.wav", "--format", "srt")[:2] == (0, "")


@real
def test_the_language_is_the_models_own(base, real_clips, home, tmp_path, capsys):  # noqa: F811
    clips = real_clips["base"][:2]
    lineage = Lineage(kind="model", architecture=architecture(base), corpus="folder-es")
    ours = relative_of(tmp_path / "ours", base, lineage)
    assert transcription.transcribe(ours, clips) == transcription.transcribe(ours, clips, "es")
    status, _, err = call(capsys, "transcribe", base, *clips, "-o", "text.txt")
    assert status == 2 and "--language is missing" in err and "give one such as es" in err
    unsaid = relative_of(tmp_path / "unsaid", base, lineage.model_copy(update={"corpus": None}))
    assert "--language is missing" in call(capsys, "transcribe", unsaid, *clips)[2]
    settings = json.loads((base / "generation_config.json").read_text())
    for said in ("es", "Spanish", "<|es|>"):
        (unsaid / "generation_config.json").unlink()
        (unsaid / "generation_config.json").write_text(json.dumps(settings | {"language": said}))
        assert transcription._language(unsaid, "unsaid") == "es"
    assert not list(home.glob("*.txt"))


@real
def test_the_name_of_a_carried_backbone_and_a_language_it_lacks(tiny_en, clear, home, capsys):  # noqa: F811
    (home / "data").mkdir()
    (home / "data" / "backbones").symlink_to(tiny_en.parent)
    status, out, _ = call(capsys, "transcribe", "tiny.en", clear[0])
    assert status == 0 and "elephant" in out.lower()
    status, _, err = call(capsys, "transcribe", "tiny.en", clear[0], "--language", "es")
    assert status == 2 and "knows only English, not 'es'" in err and len(err.splitlines()) == 1


@real
def test_subtitles_of_several_clips_and_overwriting(tiny_en, clear, home, tmp_path, capsys):  # noqa: F811
    for place, clip in zip(("a/one.ogg", "b/one.ogg"), clear[:2], strict=True):
        (tmp_path / "own" / place).parent.mkdir(parents=True)
        (tmp_path / "own" / place).write_bytes(clip.read_bytes())
    arguments = ["transcribe", tiny_en, tmp_path / "own", "--format", "srt", "-o", "subtitles"]
    assert call(capsys, *arguments)[:2] == (0, "wrote subtitles\n")
    assert tree(home / "subtitles") == ["a", "a/one.srt", "b", "b/one.srt"]
    assert "elephant" in (home / "subtitles" / "a" / "one.srt").read_text().lower()
    (home / "subtitles" / "b" / "one.srt").write_text("mine")
    (home / "subtitles" / "a" / "one.srt").unlink()
    status, _, err = call(capsys, *arguments)
    assert status == 2 and "b/one.srt exists already" in err and tree(home / "subtitles") == ["a", "b", "b/one.srt"]
    assert call(capsys, *arguments, "--overwrite")[0] == 0
    assert "kangaroo" in (home / "subtitles" / "b" / "one.srt").read_text().lower()


@real
def test_an_unreadable_clip_is_named_and_nothing_is_written(tiny_en, clear, home, tmp_path, capsys):  # noqa: F811
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF no wave")
    before = tree(home)
    status, out, err = call(capsys, "transcribe", tiny_en, clear[0], bad, "-o", "text.txt")
    assert status == 2 and out == "" and f"cannot read the clip {bad}" in err and len(err.splitlines()) == 1
    assert tree(home) == before


# what is refused, before any weights are fetched

REFUSED = {
    "no such model": (["./nope", "{clip}"], "no backbone './nope': use base or tiny.en"),
    "no such clip": (["base", "nope.wav"], "no clip or folder nope.wav"),
    "no clip at all": (["base"], "no clip is given: name files or folders"),
    "a folder without clips": (["base", "{empty}"], "holds no clip: expected wav, flac, ogg or mp3"),
    "unknown format": (["base", "{clip}", "--format", "vtt"], "unknown format 'vtt': use one of text, json, csv, srt"),
    "unknown language": (["base", "{clip}", "--language", "xx"], "unknown language 'xx'"),
    "out exists": (["base", "{clip}", "-o", "{there}"], "exists already: give --overwrite"),
    "out is a folder": (["base", "{clip}", "-o", "{empty}", "--format", "csv"], "transcripts.csv"),
    "out in no folder": (["base", "{clip}", "-o", "nowhere/text.txt"], "make it first"),
    "out is nowhere to write": (["base", "{clip}", "-o", "/proc/text.txt"], "/proc is no folder that you may write to"),
    "several SRT without a folder": (["base", "{clips}", "--format", "srt"], "--out is missing: 2 clips"),
    "several SRT into a file": (["base", "{clips}", "--format", "srt", "-o", "x.srt"], "one file for 2 clips"),
    "SRT of one name": (["base", "{clips}", "--format", "srt", "-o", "out"], "would both be written to out/a.srt"),
    "an unreadable clip": (["base", "{there}"], "cannot read the clip"),
    "samples without a rate": (["base", "{raw}"], "cannot read the clip"),
    "SRT below a file": (["base", "{clip}", "{deep}", "--format", "srt", "-o", "{taken}"], "that you may write to"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_status_2(case, clip, home, tmp_path, capsys):  # noqa: F811
    tone(tmp_path / "two" / "a.wav"), tone(tmp_path / "two" / "a.flac")
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.txt").write_text("mine")
    (tmp_path / "there.raw").write_bytes(bytes(3200))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "deep").write_text("a file where a folder is needed")
    names = {"clip": clip, "empty": tmp_path / "empty", "there": tmp_path / "there.txt", "clips": tmp_path / "two"}
    names |= {"raw": tmp_path / "there.raw", "deep": tone(tmp_path / "deep" / "b.wav"), "taken": tmp_path / "taken"}
    arguments, message = REFUSED[case]
    before = tree(tmp_path)
    status, out, err = call(capsys, "transcribe", *(a.format(**names) for a in arguments))
    assert status == 2 and out == "" and message in err and err.startswith("error: ") and len(err.splitlines()) == 1, (
        err
    )
    assert tree(tmp_path) == before and (tmp_path / "there.txt").read_text() == "mine"


def test_the_call_refuses_an_empty_list():
    with pytest.raises(UserError, match="no clip is given"):
        transcription.transcribe("base", [])


def test_clips_are_found_once_and_in_order(tmp_path):
    later, sooner = tone(tmp_path / "b" / "x.wav"), tone(tmp_path / "a" / "deep" / "y.FLAC")
    assert find_clips(tmp_path) == [str(sooner), str(later)]
    assert find_clips([later, tmp_path, str(later)]) == [str(later), str(sooner)]
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("away", "once-more"):
        (linked / name).symlink_to(tmp_path / "a", target_is_directory=True)
    (linked / "round").symlink_to(linked, target_is_directory=True)
    assert find_clips(linked) == [str(linked / "away" / "deep" / "y.FLAC")], "links are followed, each folder once"


# cutting and writing, without a model


def spoken(*parts: float) -> np.ndarray:
    """Noise and near-silence of so many seconds by turns."""
    generator = np.random.default_rng(0)
    levels = [0.3 if i % 2 == 0 else 0.001 for i in range(len(parts))]
    waves = [level * generator.standard_normal(round(part * RATE)) for level, part in zip(levels, parts, strict=True)]
    return np.concatenate(waves).astype(np.float32)


def test_cuts_fall_into_pauses_and_lose_nothing():
    wave = spoken(14, 0.5, 12, 0.1, 9, 0.5, 20, 0.5, 11)
    pieces = audio.cut(wave, 30.0)
    assert pieces[0][0] == 0 and pieces[-1][1] == len(wave)
    assert all(a[1] == b[0] for a, b in pairwise(pieces))
    assert all(10 <= (stop - start) / RATE <= 30 for start, stop in pieces)
    for _, stop in pieces[:-1]:  # the pauses of 0.5 s, in seconds
        assert any(first < stop / RATE < last for first, last in ((14, 14.5), (35.6, 36.1), (56.1, 56.6))), stop / RATE


def test_cutting_short_waves_noise_and_constants():
    for samples in (0, 1, 100, 30 * RATE):
        assert audio.cut(np.zeros(samples, np.float32), 30.0) == [(0, samples)]
    for wave in (spoken(100), np.zeros(100 * RATE + 7, np.float32)):
        pieces = audio.cut(wave, 30.0)
        assert max(stop - start for start, stop in pieces) <= 30 * RATE and sum(b - a for a, b in pieces) == len(wave)


def test_sounds_are_found():
    wave = np.concatenate([np.zeros(RATE, np.float32), spoken(1.0), np.zeros(RATE, np.float32)])
    sounds = audio.sounding(wave)
    assert sounds[0] == RATE and sounds[-1] == 2 * RATE - audio.FRAME * RATE
    assert len(audio.trim(wave)) == RATE + 2 * round(audio.KEPT_SILENCE * RATE)
    assert not len(audio.sounding(np.zeros(RATE, np.float32))) and not len(audio.sounding(np.zeros(3, np.float32)))


HEARD = [
    Transcript("a, b.wav", 3725.5, (Segment(0.25, 29.9996, 'Say "hi"'), Segment(3661.001, 3725.5, "ñandú"))),
    Transcript("c.wav", 1.0, ()),
]


def test_formats_parse_with_the_standard_library():
    assert json.loads(render(HEARD, "json"))[0] == {
        "file": "a, b.wav",
        "text": 'Say "hi" ñandú',
        "seconds": 3725.5,
        "segments": [
            {"start": 0.25, "end": 29.9996, "text": 'Say "hi"'},
            {"start": 3661.001, "end": 3725.5, "text": "ñandú"},
        ],
    }
    assert list(csv.reader(io.StringIO(render(HEARD, "csv")))) == [
        ["file", "seconds", "text"],
        ["a, b.wav", "3725.5", 'Say "hi" ñandú'],
        ["c.wav", "1.0", ""],
    ]
    assert render(HEARD, "text") == 'a, b.wav\tSay "hi" ñandú\nc.wav\t\n'
    assert render(HEARD[1:], "text") == "\n" and render(HEARD[1:], "srt") == ""
    assert render(HEARD[:1], "srt") == (
        '1\n00:00:00,250 --> 00:00:30,000\nSay "hi"\n\n2\n01:01:01,001 --> 01:02:05,500\nñandú\n'
    )


def test_what_is_written_is_what_would_be_printed(tmp_path):
    files = [t.file for t in HEARD]
    for form in ("text", "json", "csv"):
        output = Output(form, tmp_path / f"out.{form}").check(files)
        assert output.write(HEARD) == f"wrote {tmp_path / f'out.{form}'}\n"
        assert (tmp_path / f"out.{form}").read_text() == render(HEARD, form) == Output(form).check(files).write(HEARD)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.json", "out.text"]


def test_transcripts_never_take_the_place_of_a_clip(tmp_path):
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"a recording")
    link = tmp_path / "link.txt"
    link.symlink_to(clip)
    for out in (clip, tmp_path / "other.flac", link):
        with pytest.raises(UserError, match="is the name of a clip: name a file for the transcripts"):
            Output("text", out, overwrite=True).check([str(clip)])
    with pytest.raises(UserError, match="is no file that can be replaced"):
        Output("text", Path("/dev/null"), overwrite=True).check([str(clip)])
    assert clip.read_bytes() == b"a recording"


@pytest.mark.parametrize("hertz", [90, 150, 220, 400])
def test_the_pitch_of_a_voice_is_found_and_noise_has_none(hertz):
    time = np.arange(RATE, dtype=np.float32) / RATE
    voice = sum(np.sin(2 * np.pi * hertz * n * time) / n for n in range(1, 8)).astype(np.float32) / 3
    silence, noise = np.zeros(RATE, np.float32), np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert audio.pitch(np.concatenate([silence, voice, silence])) == pytest.approx(hertz, rel=0.03)
    assert all(np.isnan(audio.pitch(wave)) for wave in (silence, noise, voice[:100], silence[:0]))


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_whose_writer_did_not_know_its_length_is_no_cut_one(tmp_path, size):
    file = tmp_path / "a.wav"
    soundfile.write(str(file), np.full(RATE, 0.1), RATE)
    content = file.read_bytes()
    at = content.index(b"data") + 4
    file.write_bytes(content[:at] + size.to_bytes(4, "little") + content[at + 4 :])
    assert len(audio.read(file)) == RATE
