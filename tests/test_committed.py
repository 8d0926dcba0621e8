"""What a reader sees who has not made the run: the committed rows, read and never computed."""

import gzip
import json
import os
import shutil

import pandas as pd
import pytest

from syn2real_utils import cli, committed, notebook, report, results, selectors, store, tables, weightspace
from syn2real_utils.errors import UserError
from syn2real_utils.profile import load_profile
from tests.conftest import ROOT
from tests.test_report import run  # noqa: F401


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A checkout with the committed figures and nothing else: whatever computed would fetch, and finds neither pip nor apt."""
    shutil.copytree(ROOT / "figures", tmp_path / "figures")
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for program in ("apt-get", "apt"):  # a kernel finds these first
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / program).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return tmp_path


def test_rows_are_those_that_are_committed(reader):
    profile = load_profile("quickstart")
    kept = tables.read_csv(ROOT / "figures" / "utterances.csv.gz")
    rows = results.utterance_rows(profile, "animals")
    order = ["tts", "model", "lam", "utterance"]
    pd.testing.assert_frame_equal(
        rows.sort_values(order).reset_index(drop=True)[list(kept.columns)],
        kept.sort_values(order).reset_index(drop=True),
        check_dtype=False,
    )
    assert len(weightspace.domain_cosines(profile)) == len(tables.read_csv(ROOT / "figures" / "cosines.csv"))
    scores = selectors.selector_scores(profile, "animals")
    assert set(scores.lam) == set(profile.evaluation.selection_grid)
    assert "no run here" in committed.told(profile) and "commit" in committed.told(profile)
    assert not (reader / "runs").exists() and not (reader / "data").exists()


@pytest.mark.parametrize("name", sorted(file.parent.name for file in (ROOT / "figures").glob("*/profile.yaml")))
def test_a_profile_of_that_name_finds_its_rows(reader, name):
    assert committed.folder(load_profile(name)) == reader / "figures" / name


def test_a_changed_profile_and_a_run_that_is_there_are_computed(reader):
    assert committed.folder(load_profile("quickstart")) == reader / "figures"
    assert committed.folder(load_profile("quickstart", {"seeds": [1]})) is None
    there = reader / "runs" / "quickstart"
    there.mkdir(parents=True)
    (there / "profile.yaml").write_text(load_profile("quickstart").to_yaml())
    assert committed.folder(load_profile("quickstart")) is None


@pytest.mark.parametrize(
    ("where", "message"), [({"target": "animls"}, "target 'animls': it has animals"), ({"seed": 7}, "seed '7'")]
)
def test_what_the_profile_does_not_have_is_named(reader, where, message):
    with pytest.raises(UserError, match=f"profile quickstart has no {message}"):
        committed.rows(load_profile("quickstart"), "utterances", **where)


@pytest.mark.parametrize("content", ["{", "[]", '{"profile": "quickstart"}', "\udcff"])
def test_a_damaged_manifest_is_one_line(reader, content):
    (reader / "figures" / "manifest.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="manifest.json is damaged .*: restore it with git") as raised:
        committed.told(load_profile("quickstart"))
    assert len(str(raised.value).splitlines()) == 1


def test_damaged_rows_are_one_line(reader):
    file = reader / "figures" / "utterances.csv.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:2000])
    with pytest.raises(UserError, match="utterances.csv.gz cannot be read .*; restore it with git"):
        results.utterance_rows(load_profile("quickstart"), "animals")
    with pytest.raises(UserError, match="utterances.csv.gz cannot be read .* expected a CSV"):
        report.redraw(reader / "figures")
    file.write_bytes(gzip.compress(gzip.decompress(whole).splitlines(keepends=True)[0]))
    with pytest.raises(UserError, match="utterances.csv.gz has no rows: expected one per model"):
        report.redraw(reader / "figures")
    (reader / "figures" / "manifest.json").rename(reader / "figures" / "elsewhere.json")
    with pytest.raises(UserError, match="no manifest.json beside its CSV: copy run.json"):
        report.redraw(reader / "figures")


@pytest.mark.parametrize(("name", "figure"), [("asterisk-en", "wer.png"), ("adapt-es-asterisk", "before_after.png")])
def test_figures_of_committed_rows_are_drawn_elsewhere(reader, capsys, name, figure):
    """What is committed stays as it is, also of benchmarks/adapt.py; a folder below another has no drawings of the idea."""
    place = reader / "figures" / name
    before = {file.name: file.read_bytes() for file in place.iterdir()}
    with pytest.raises(SystemExit) as left:
        cli.main(["figures", str(place), "-o", str(reader / "drawn")])
    assert left.value.code == 0
    assert {file.name: file.read_bytes() for file in place.iterdir()} == before
    assert {file.name for file in (reader / "drawn").iterdir()} == set(before) and "overview.png" not in before
    assert str(reader / "drawn" / figure) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("03", "quickstart"),
        ("04", "quickstart"),
        ("04", "tuxpaint-es-rivals"),
        ("05", "quickstart"),
        ("06", "tuxpaint-es-places"),
        ("07", "tuxpaint-es-studies"),
        ("08", "quickstart"),
    ],
)
def test_a_notebook_shows_what_is_committed_and_makes_no_model(reader, name, profile):
    shutil.copytree(ROOT / "notebooks", reader / "notebooks")
    (reader / "executed").mkdir()
    # The highest number that Linux gives a process is one less.
    killed = reader / "executed" / f".shown.{store.HOST}-4194304.partial.ipynb"
    elsewhere = killed.with_name(".shown.another-4194304.partial.ipynb")
    killed.write_text("{")
    elsewhere.write_text("{")
    out = notebook.execute(name, {"profile": profile}, reader / "executed" / "shown.ipynb")
    cells = json.loads(out.read_text(encoding="utf-8"))["cells"]
    said = "".join("".join(part.get("text", "")) for cell in cells for part in cell.get("outputs", []))
    assert f"{profile}: no run here, so these are the committed rows" in said
    pictures = [part for cell in cells for part in cell.get("outputs", []) if "image/png" in part.get("data", {})]
    assert (pictures or name == "03") and not killed.exists()
    assert elsewhere.exists(), "another machine may be writing it"
    assert not (reader / "runs").exists() and not (reader / "data").exists()


def test_rows_that_were_kept_before_in_another_form_do_not_stay(reader):
    place, into = reader / "figures" / "asterisk-en", reader / "drawn"
    into.mkdir()
    for name in ("manifest.json", "profile.yaml"):
        shutil.copyfile(place / name, into / name)
    (into / "utterances.csv").write_text("of another run")
    (into / "wer.csv.gz").write_bytes(b"of another run")
    committed.keep(place, into)
    assert {file.name: file.read_bytes() for file in into.iterdir()} == {
        file.name: file.read_bytes() for file in place.iterdir()
    }


def test_figures_are_not_written_over_other_things(reader, tmp_path, capsys):
    mine, of_run, another = tmp_path / "mine", tmp_path / "a_run", reader / "figures" / "adapt-en"
    mine.mkdir()
    (mine / "words.csv").write_text("my own")
    (of_run / "tables").mkdir(parents=True)
    for place, said in ((mine, "holds other things"), (of_run, "is a run's own folder"), (another, "holds other")):
        before = sorted(place.rglob("*"))
        with pytest.raises(SystemExit, match="2"):
            cli.main(["figures", str(reader / "figures"), "-o", str(place)])
        assert said in capsys.readouterr().err and sorted(place.rglob("*")) == before
    assert (mine / "words.csv").read_text() == "my own"


def test_what_is_kept_of_a_run_draws_its_figures_again(run, tmp_path):  # noqa: F811
    (run / "run.json").write_text(json.dumps({"commit": "0123456789ab"}))
    report.redraw(run)
    kept = tmp_path / "kept"
    committed.keep(run, kept)
    before = {file.name: file.read_bytes() for file in kept.iterdir()}
    report.redraw(kept)
    assert {name: (kept / name).read_bytes() for name in before} == before
    assert json.loads((kept / "manifest.json").read_text()) == json.loads((run / "run.json").read_text())
