"""All notebooks in order, on real weights and real clips, through the workflow; killed in the middle and called again."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from transformers import pipeline

from syn2real_utils import cli, ready, report, results, runs, stages
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import REAL
from syn2real_utils.plan import plan
from syn2real_utils.profile import load_profile
from tests.conftest import ROOT
from tests.test_notebooks import NAMES

PROFILE = ROOT / "tests" / "smoke.yaml"
CALL = [sys.executable, "-m", "syn2real_utils.cli", "run", str(PROFILE), "--cores", "2"]
PER_TARGET = ("03", "04", "05", "07")
pytestmark = pytest.mark.real


def home(folder: Path) -> Path:
    """A project of its own that shares what is fetched with this checkout."""
    for name in ("sources", "backbones", "tts"):
        (ROOT / "data" / name).mkdir(parents=True, exist_ok=True)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).symlink_to(ROOT / "data" / name)
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    return folder


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"SYN2REAL_HOME": str(folder)}


def call(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(CALL, cwd=folder, env=environment(folder), capture_output=True, text=True)


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, str]:
    """A run that was killed with all its jobs once the first model was there, and called again; what that printed."""
    folder = home(tmp_path_factory.mktemp("smoke"))
    process = subprocess.Popen(CALL, cwd=folder, env=environment(folder))
    deadline = time.monotonic() + 1200
    while not list(folder.glob("runs/artifacts/models/*/done.json")):
        assert process.poll() is None and time.monotonic() < deadline, "no model was made"
        time.sleep(0.2)
    for job in psutil.Process(process.pid).children(recursive=True):
        job.kill()
    process.kill()
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("runs/artifacts/models/*/done.json")}
    done = call(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items()), "what was done is not done again"
    return folder, done.stdout


@pytest.fixture(scope="module")
def run(killed) -> Path:
    return killed[0] / "runs" / "smoke"


def test_exactly_these_artefacts_are_made_and_were_foreseen(killed, run, monkeypatch):
    expected = {f"tables/{name}.csv" for name in (
        "utterances", "selection", "contexts", "cosines", "geometry", "synthetic",
        "wer", "cer", "changes", "baselines", "lam", "context_gaps", "examples",
        "audit", "hallucinations", "quality", "anatomy", "words",
    )}  # fmt: skip
    expected |= {"tables/results.md", "profile.yaml", "inputs.json", "run.json", "report.html"}
    expected |= {f"figures/{name}.png" for name in (
        "quadrants", "overview", "wer", "lam_curves", "geometry", "cosine_heatmap", "ensemble",
        "audit", "anatomy", "words", "quality",
    )}  # fmt: skip
    for name in [name for name in NAMES if name not in runs.APART]:
        stem = f"{name}-animals" if name[:2] in PER_TARGET else name
        expected |= {f"notebooks/{stem}.ipynb", f"notebooks/{stem}.html"}
    found = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
    models = {path for path in found if path.startswith("models/")}
    assert {path.split("/")[1] for path in models} == {"animals-kokoro-s0", "animals-pico-s0"}
    found -= models
    assert found == expected
    artifacts = killed[0] / "runs" / "artifacts"
    counts = {folder.name: len(list(folder.glob("*/done.json"))) for folder in artifacts.iterdir()}
    # models: 3 pooled; 2 x 3 of single domains; 2 x 2 targets; 2 x 2 that choose lam
    # lengths of what stands in for tau where a source domain is left out, and of tau
    made = {name: counts.get(name, 0) for name in ("vectors", "transcripts", "lengths")}
    assert counts == {"models": 17, "adapted": 2, "cosines": 1, "geometry": 2} | made
    assert made["transcripts"] and made["lengths"]
    heard = {file.parent.name: set(pd.read_csv(file).lam) for file in artifacts.glob("transcripts/*/transcripts.csv")}
    swept = {
        name: lams for name, lams in heard.items() if any(f"-{of}-" in name for of in ("pooled", "mean", "direction"))
    }
    plain = {name: lams for name, lams in heard.items() if name not in swept}
    assert {frozenset(lams) for lams in plain.values()} == {frozenset([0.0])}
    assert swept and not any(0.0 in lams for lams in swept.values())
    keys = [json.loads((artifacts / "transcripts" / name / "done.json").read_text())["key"] for name in plain]
    once = {(key["model"], key["clips"], key.get("full", False)) for key in keys}
    assert len(once) == len(keys), "lam 0 is heard once for all vectors"
    assert counts["vectors"] == 2
    monkeypatch.setenv("SYN2REAL_HOME", str(killed[0]))
    foreseen = plan(profile := load_profile(PROFILE), stages.real_rows(profile))
    exported = 2
    assert foreseen.models == counts["models"] and foreseen.moved == counts["vectors"] + counts["adapted"] + exported
    assert not list(killed[0].rglob("*.partial")) and not list(killed[0].rglob("*.failed.ipynb"))


def test_a_profile_without_an_ensemble_hears_none(killed, tmp_path):
    """What `adapted` needs is there; notebook 07 says what it has not, and makes nothing more."""
    folder = killed[0]
    own = tmp_path / "alone.yaml"
    own.write_text(re.sub("^name: smoke", "name: alone", PROFILE.read_text(), flags=re.M) + "  ensembles: []\n")
    before = set(folder.glob("runs/artifacts/*/*/done.json"))
    command = [sys.executable, "-m", "syn2real_utils.cli", "notebook", "07_ensemble", "-p", f"profile={own}"]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the profile alone asks for no ensemble" in done.stdout + done.stderr
    assert set(folder.glob("runs/artifacts/*/*/done.json")) == before


def begun(folder: Path, name: str) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """A run in the middle of its first notebook, and the processes of its jobs."""
    other = [*CALL, "--set", f"name={name}"]
    process = subprocess.Popen(other, cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True)
    parent, deadline = psutil.Process(process.pid), time.monotonic() + 600
    while not list((folder / "runs" / name / "notebooks").glob("*.partial.ipynb")):
        assert process.poll() is None and time.monotonic() < deadline, "no job was started"
        time.sleep(0.2)
    return process, parent.children(recursive=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_no_job_is_started_once_the_command_was_killed_outright(killed):
    process, started = begun(killed[0], "outright")
    process.kill()
    process.communicate(timeout=100)  # until the last of them has closed it
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
    assert [file.name for file in (killed[0] / "runs" / "outright" / "notebooks").glob("*.ipynb")] == [
        "00_overview.ipynb"
    ]


def test_kill_of_the_command_ends_its_jobs_too(killed):
    folder = killed[0]
    process, started = begun(folder, "ended")
    process.terminate()
    said = process.communicate(timeout=100)[1]
    assert process.returncode == cli.STOPPED and said.splitlines()[-1] == "stopped; call again to go on"
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
    assert not list((folder / "runs" / "ended").rglob(".*.partial.*"))


def test_the_run_ends_with_the_table_and_the_places(killed):
    text = killed[1]
    for word in ("animals", "kokoro", "pico", "syn_target", "relative", "runs/smoke/report.html", "notebooks"):
        assert word in text


def test_tables_have_every_model_lam_and_utterance(run):
    wer = pd.read_csv(run / "tables" / "wer.csv")
    assert set(wer.model) == {"pretrained", "real_source", "syn_source", "syn_target", "adapted", "ensemble"}
    assert set(wer.tts) == {"kokoro", "pico"} and (wer.n_utterances == 6).all()
    assert wer[wer.model == "adapted"].groupby("tts").lam.apply(list).tolist() == [[0.0, 0.5, 1.0]] * 2
    rows = pd.read_csv(run / "tables" / "utterances.csv")
    assert (rows.errors == rows.substitutions + rows.deletions + rows.insertions).all()
    assert len(rows) == 2 * 6 * (4 + 3 + 2)


def test_no_text_that_is_scored_was_trained_on(killed, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(killed[0]))
    profile = load_profile(PROFILE)
    for fold in stages.folds(profile):
        scored = set(stages.test_rows(profile, "animals", fold).text_id)
        trained = set(stages.training_rows(profile, "pico", ["animals"], held_out=fold).text_id)
        assert scored and trained and not scored & trained
    known = stages.training_rows(profile, "pico", ["animals"], known=True)
    assert set(known.text_id) == set(stages.test_rows(profile, "animals", None).text_id)


def test_a_second_call_does_nothing(killed, run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    done = call(killed[0])
    assert done.returncode == 0 and "animals" in done.stdout
    assert before == {
        path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"
    }


def test_what_a_cluster_is_asked_for_changes_nothing_that_is_made(killed, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(killed[0]))
    profile = load_profile(PROFILE, {"resources": {"every": {"memory_gb": 9, "partition": "gpu"}}})
    assert runs.preview(profile).text().startswith("jobs: none, everything is up to date")


def test_what_the_killed_run_made_has_the_bytes_that_another_process_makes(run, tmp_path, monkeypatch):
    """The models near the kill, and what one fold of the target was heard with, made by another process from nothing."""
    monkeypatch.setenv("SYN2REAL_HOME", str(home(tmp_path)))
    for name in ("corpora", "synthetic"):  # their bytes have tests of their own
        (tmp_path / "data" / name).symlink_to(run.parents[1] / "data" / name)
    profile = load_profile(PROFILE)
    for speech in (REAL, "kokoro"):
        stages.finetuned(profile, speech, ["food"], 0)
    results.source_scores(profile, "animals", "pico", 0)
    evaluation = profile.evaluation.model_copy(update={"protocol": "catalogue"})
    known = profile.model_copy(update={"evaluation": evaluation})
    results.source_scores(known, "animals", "pico", 0)  # of the same models and clips: nothing is heard again
    fold = stages.folds(profile)[0]
    rows, model = stages.test_rows(profile, "animals", fold), stages.syn_target(profile, "pico", "animals", 0, fold)
    stages.transcripts(profile, model, rows, results.spec(profile, "animals", "pico", 0), profile.evaluation.lam_grid)
    made = {file.relative_to(tmp_path): file.read_text() for file in tmp_path.glob("runs/artifacts/*/*/done.json")}
    assert len(made) == 5 + 5, "models; transcripts of pretrained, both sources, syn_target and adapted"
    assert made == {name: (run.parents[1] / name).read_text() for name in made}, "the hash of every file"


def test_a_table_that_was_deleted_sends_its_notebook_to_the_workflow_again(killed, run, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(killed[0]))
    profile, notebook, table = load_profile(PROFILE), run / "notebooks" / "08_results.ipynb", run / "tables" / "wer.csv"
    kept = {path: path.read_bytes() for path in (notebook, table)}
    table.unlink()
    assert runs.lacks(profile) == ["tables/wer.csv"]
    runs.prepare(profile)
    assert not notebook.exists()
    for path, content in kept.items():
        path.write_bytes(content)
    assert runs.lacks(profile) == []


def test_a_run_whose_profile_changes_has_no_results_until_it_is_made(killed, run, tmp_path, monkeypatch):
    """Else what was found in one language would pass for another's."""
    there = tmp_path / "runs" / "smoke"
    shutil.copytree(run, there)
    monkeypatch.setenv("SYN2REAL_HOME", str(home(tmp_path)))
    (tmp_path / "data" / "corpora").symlink_to(run.parents[1] / "data" / "corpora")
    finished = sorted(there.rglob("*"))
    profile = load_profile(PROFILE)
    runs.prepare(profile)
    runs.prepare(profile.model_copy(update={"description": "other words"}))
    assert set(finished) <= set(there.rglob("*")), "a changed path of the project, or words, change no result"
    runs.prepare(profile.model_copy(update={"description": "another", "seeds": [5]}))
    with pytest.raises(UserError, match=r"no tables/utterances.csv: finish it with 'syn2real run smoke'"):
        report.redraw(there)
    with pytest.raises(UserError, match=r"tables/wer.csv"):
        runs.write_report(there)
    assert not (there / "run.json").exists() and not ready.find(stages.parent(profile), "es")


@pytest.mark.parametrize("newer", ["inputs", "notebooks"], ids=["stopped before its first job", "edited"])
def test_what_is_newer_than_the_report_goes_to_the_workflow(killed, run, newer, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(killed[0]))
    asked: list[str] = []
    monkeypatch.setattr(runs, "_work", lambda profile, _: asked.append(profile.name))
    monkeypatch.setattr(runs, "_fetch_apart", lambda _: None)
    before = {file: file.stat().st_mtime_ns for file in (run / "inputs.json", run / "report.html")}
    made = before[run / "report.html"]
    runs.run(load_profile(PROFILE))
    assert asked == []
    times = (made + 1, made) if newer == "inputs" else (1, 2)  # of inputs.json and the report
    for file, moment in zip(before, times, strict=True):
        os.utime(file, ns=(moment, moment))
    runs.run(load_profile(PROFILE))
    assert asked == ["smoke"]
    for file, moment in before.items():
        os.utime(file, ns=(moment, moment))


def test_the_exported_model_opens_in_a_pipeline_and_hears_words(killed):
    (folder, *_) = sorted((killed[0] / "runs" / "smoke" / "models").glob("*/"))
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["operation"] == "apply" and lineage["domains"] == ["animals"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlanguage: es\n") and "base_model: openai/whisper-base" in card
    gaps = pd.read_csv(killed[0] / "runs" / "smoke" / "tables" / "context_gaps.csv")
    gap = gaps[gaps.tts == folder.name.split("-")[1]].iloc[0]
    assert f"| {gap.wer_clip:.1f} % |" in card and f"| {gap.wer_full:.1f} % |" in card, "the card has both"
    assert "GPL-2" in card and f"lam | {gap.lam:g}," in card
    clip = next((killed[0] / "data" / "corpora").rglob("*.ogg"))
    heard = pipeline("automatic-speech-recognition", model=str(folder))(
        str(clip), generate_kwargs={"max_new_tokens": 30}
    )
    assert len(heard["text"].split()) >= 1


def test_figures_are_drawn_again_from_csv_alone(run, capsys):
    before = {path: path.read_bytes() for path in run.glob("figures/*.png")}
    with pytest.raises(SystemExit) as raised:
        cli.main(["figures", str(run)])
    assert not raised.value.code and len(capsys.readouterr().out.splitlines()) == 11
    assert before == {path: path.read_bytes() for path in run.glob("figures/*.png")}


UNKNOWN = [
    ({"targets": ["moon"]}, "unknown domain 'moon': the corpus has animals, clothes"),
    ({"corpus.max_utterances": {"moon": 3}}, "unknown domain 'moon'"),
    ({"backbone.name": "tiny.en"}, "knows only English, not 'es'"),
    ({"backbone.name": "nobody/whisper"}, "nobody/whisper.*use base or tiny.en"),
    ({"backbone.name": "nowhere"}, "no backbone 'nowhere': use base or tiny.en"),
]


@pytest.mark.parametrize(("settings", "message"), UNKNOWN)
def test_what_only_the_data_can_tell_is_refused_before_any_job(killed, settings, message, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(killed[0]))
    with pytest.raises(UserError, match=message):
        runs.fetch(load_profile(PROFILE, {"name": "other", **settings}))


def test_an_unknown_domain_is_one_line_and_status_2(killed, monkeypatch, capsys):
    monkeypatch.setenv("SYN2REAL_HOME", str(killed[0]))
    with pytest.raises(SystemExit) as raised:
        cli.main(["run", str(PROFILE), "--set", "name=other", "--set", "targets=[moon]"])
    err = capsys.readouterr().err
    assert raised.value.code == 2 and re.fullmatch("error: unknown domain 'moon': the corpus has .*\n", err), err
    assert not list((killed[0] / "runs" / "other").glob("[!.]*"))
