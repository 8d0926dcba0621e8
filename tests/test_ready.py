"""Ready vectors: published whole and in low rank, found again, and refused where they do not fit or are damaged."""

import json
import math
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from syn2real_utils import checkpoints, lora, origins, ready
from syn2real_utils.corpora import asterisk, tuxpaint
from syn2real_utils.errors import UserError
from syn2real_utils.parameters import module_of
from syn2real_utils.profile import load_profile
from syn2real_utils.publish import Wanted, publish
from syn2real_utils.statistics import changes_table
from syn2real_utils.store import sha256
from syn2real_utils.tts.kokoro import Kokoro
from syn2real_utils.tts.pico import Pico
from syn2real_utils.vectors import TaskVector
from tests.made_run import DOMAINS, ENGINES, LAM, TARGETS, finished, vector_folder
from tests.test_checkpoints import contents, make
from tests.test_cli import call


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty project."""
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(home) -> Path:
    """A finished run of two targets and two engines."""
    return finished(home)


@pytest.fixture
def parent(run, home) -> str:
    return checkpoints.weights_hash(home / "pretrained")


def one_line(match: str, function, *arguments: object, **options: object) -> None:
    with pytest.raises(UserError, match=match) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)


def same(a: TaskVector, b: TaskVector) -> bool:
    return a.shapes() == b.shapes() and all(torch.equal(t, b.tensors[name]) for name, t in a.tensors.items())


def test_the_full_form_is_the_vector_of_the_run_bit_for_bit(run, home):
    published = publish(run, home / "out", Wanted("food", "pico"))
    assert set(contents(home / "out")) == {"vector.safetensors", "vector.json", "README.md", "sha256.json"}
    real, syn = (checkpoints.load_state(home / "made" / "made" / "pico" / name) for name in ("real", "syn"))
    assert same(published.load(), TaskVector.between(syn, real))
    stored = vector_folder(run, "pico") / "vector.safetensors"
    assert (home / "out" / "vector.safetensors").read_bytes() == stored.read_bytes()


def test_what_a_vector_says_of_itself_is_what_the_tables_of_its_run_say(run, home, parent):
    found = publish(run, home / "out", Wanted(tts="pico"))
    table = changes_table(pd.read_csv(run / "tables" / "utterances.csv", keep_default_na=False))
    row = table[(table.model == "adapted") & (table.target == "all") & (table.tts == "pico")]
    row = row[row.lam_source.str.startswith("leave-one-source-out")].iloc[0]
    assert (found.language, found.tts, found.domains, found.lam) == ("es", "pico", tuple(DOMAINS), LAM)
    assert found.expected == (row.ci_low, row.ci_high) and found.about.relative_change == row.relative_change
    assert found.measured_on == ("animals", "food"), "of all targets, not of the one that gained most"
    assert found.lam_how == "leave-one-source-out" and not found.noncommercial
    said = json.loads((home / "out" / "vector.json").read_text())
    assert said["parent"] == parent == found.lineage.parent and said["commit"] == "0123456789ab"
    card = ModelCard.load(home / "out" / "README.md")
    assert card.data.language == "es" and card.data.base_model == "openai/whisper-base" and card.data.license == "other"
    licences = {part["name"]: part["licence"] for part in card.data.to_dict()["data_sources"]}
    assert licences == {"Whisper base": "MIT", "recordings of Tux Paint": "GPL-2", "SVOX Pico": "Apache-2.0"}
    assert f"{row.wer_model:.1f} % after" in card.text and "household, town" in card.text
    assert not [name for name, text in contents(home / "out").items() if str(home).encode() in text]


def test_a_run_of_several_seeds_gives_the_vectors_of_its_first(run, home):
    file = run / "profile.yaml"
    file.write_text(load_profile(file, {"seeds": [0, 1]}).to_yaml())
    assert [(v.about.target, v.tts, v.about.seed) for v in ready.of_run(run)] == [
        (t, e, 0) for t in TARGETS for e in ENGINES
    ]
    with pytest.raises(
        UserError, match=r"no model of animals, pico, seed 1.*notebook 05 -p profile=.*profile.yaml -p target=animals"
    ):
        publish(run, home / "out", Wanted(tts="pico", seed=1))


def test_a_part_that_is_not_for_commercial_use_binds_the_whole(run, home, monkeypatch):
    monkeypatch.setitem(origins.ORIGINS, "tuxpaint", origins.ORIGINS["slurp"])
    assert publish(run, home / "out", Wanted()).noncommercial
    card = ModelCard.load(home / "out" / "README.md")
    assert card.data.license == "cc-by-nc-4.0" and "non-commercial" in card.data.tags
    assert "Not for commercial use" in card.text


def test_factors_of_full_rank_give_the_matrix_to_float32_rounding():
    torch.manual_seed(0)
    for shape in ((40, 24), (24, 40), (24, 24)):
        matrix = torch.randn(shape)
        b, a = lora.factors(matrix, 24)
        assert b.shape == (shape[0], 24) and a.shape == (24, shape[1])
        assert (b @ a - matrix).abs().max() < 1e-5 * matrix.abs().max()


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (24, 24)])
def test_factors_of_low_rank_are_the_truncated_svd(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape)
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    b, a = lora.factors(matrix, 5)
    assert torch.allclose(b.double() @ a.double(), (u[:, :5] * s[:5]) @ v[:5], atol=1e-6)


def test_at_full_rank_a_published_vector_is_whole(run, home):
    whole = publish(run, home / "full", Wanted())
    low = publish(run, home / "low", Wanted(form="lora", rank=64))
    assert same(low.load(), whole.load()) and low.about.kept["all"] == 1.0


def share(whole: TaskVector, low: TaskVector, of) -> float:
    """1 - |tau - low|^2 / |tau|^2 of the parameters that `of` picks."""
    picked = [name for name in whole.tensors if of(name)]
    lost = sum((whole.tensors[n].double() - low.tensors[n].double()).square().sum().item() for n in picked)
    return 1 - lost / sum(whole.tensors[n].double().square().sum().item() for n in picked)


def test_at_low_rank_the_kept_share_is_what_info_says(run, home, capsys):
    whole = publish(run, home / "full", Wanted()).load()
    low = publish(run, home / "low", Wanted(form="lora", rank=3)).load()
    status, out, _ = call(capsys, "vector", "info", home / "low", "--json")
    said = json.loads(out)
    assert status == 0 and said["form"] == "lora" and said["rank"] == 3
    assert said["kept"]["all"] == pytest.approx(share(whole, low, lambda name: True), abs=1e-5)
    for module in ("encoder", "decoder"):
        measured = share(whole, low, lambda name, module=module: module_of(name) == module)
        assert said["kept"][module] == pytest.approx(measured, abs=1e-5) and 0.2 < measured < 0.95
    measured = share(whole, low, lambda name: "embed_tokens" in name)
    assert said["kept"]["embed_tokens"] == pytest.approx(measured, abs=1e-5)
    assert whole.shapes() == low.shapes()
    for name, tensor in whole.tensors.items():  # the best that rank 3 can do, and what is no matrix as it was
        if tensor.ndim == 1:
            assert torch.equal(low.tensors[name], tensor), name
        elif (lost := (low.tensors[name] - tensor).double().square().sum().item()) > 0:
            rest = torch.linalg.svdvals(tensor.double().flatten(1))[3:].square().sum().item()
            assert lost == pytest.approx(rest, rel=1e-4), name


def test_low_rank_is_small(home):
    run = finished(home, size=64)
    publish(run, home / "full", Wanted())
    publish(run, home / "low", Wanted(form="lora", rank=2))
    sizes = {n: sum(t.nbytes for t in load_file(home / n / "vector.safetensors").values()) for n in ("full", "low")}
    assert sizes["low"] < 0.25 * sizes["full"]


def test_apply_and_mean_take_low_rank(run, home):
    low = publish(run, home / "low", Wanted(form="lora", rank=3)).load()
    base = home / "made" / "made" / "kokoro" / "animals"
    checkpoints.apply(base, home / "low", 0.7, home / "new")
    expected = low.apply(checkpoints.load_state(base), 0.7)
    made = load_file(home / "new" / "model.safetensors")
    assert all(torch.allclose(made[key], expected[key], rtol=0, atol=1e-7) for key in made)
    full = publish(run, home / "full", Wanted()).load()
    checkpoints.mean([home / "low", home / "full"], home / "mean")
    mean = checkpoints.load_vector(home / "mean")[0]
    assert same(mean, TaskVector.mean([low, full]))


def test_vectors_of_runs_and_published_ones_are_found(run, home, parent):
    publish(run, home / "vectors" / "mine", Wanted("animals", "kokoro"))
    (home / "vectors" / ".other.1.partial").mkdir()  # what a killed publish left
    (home / "vectors" / ".other.1.partial" / "vector.json").write_text("{}")
    found = ready.find(parent, "es")
    assert {v.path.name for v in found} == {"mine", vector_folder(run).name, vector_folder(run, "pico").name}
    assert [v.tts for v in ready.find(parent, "es", ["pico", "kokoro"])] == ["pico", "kokoro", "kokoro"]
    assert {v.tts for v in ready.find(parent, "es", ["kokoro"])} == {"kokoro"}
    assert all(same(v.load(), checkpoints.load_vector(v.path)[0]) for v in found)
    assert [v.path for v in ready.find(parent, "es", ["pico"], [run])] == [vector_folder(run, "pico")]


def test_the_surest_vector_comes_first(run, home, parent):
    """A large change on few clips, whose interval holds zero, is no reason to prefer a vector."""
    changes = {"few-clips": (-40.0, -80.0, 60.0), "many": (-15.0, -19.0, -11.5), "no-errors": (None, None, None)}
    for name, about in changes.items():
        publish(run, home / "vectors" / name, Wanted("animals", "kokoro"))
        file = home / "vectors" / name / "vector.json"
        told = dict(zip(("relative_change", "change_low", "change_high"), about, strict=True))
        file.write_text(json.dumps(json.loads(file.read_text()) | told))
        sums = home / "vectors" / name / "sha256.json"
        sums.write_text(json.dumps(json.loads(sums.read_text()) | {"vector.json": sha256(file)}))
    found = [v.name for v in ready.find(parent, "es", ["kokoro"]) if v.name in changes]
    assert found == ["many", "few-clips", "no-errors"]


def test_none_found_says_how_to_make_one(run, parent):
    assert ready.find(parent, "fr") == [] and ready.find("0" * 64, "es") == [] and ready.find(parent, "es", ["x"]) == []
    long = re.search("name=(\\S+)", ready.how_to_make("a/" + 200 * "x", "fr", ["pico"]))
    assert long and load_profile("quickstart", {"name": long[1]}).name == long[1]
    said = ready.how_to_make("/my models/x y", "fr", ["pico", "kokoro"])
    assert (
        "syn2real run quickstart --set name=tau-fr-x-y-pico-kokoro --set backbone.name='/my models/x y' --set corpus.language=fr "
        "--set tts='[{name: pico}, {name: kokoro}]'\n" in said
    )
    assert "learning_rate" not in ready.how_to_make("base", "fr", ["pico"], 2e-5), "the profile has it"
    assert "--set training.learning_rate=1e-05" in ready.how_to_make("openai/whisper-small", "fr", ["pico"], 1e-5)
    assert "syn2real vector publish" in said and len(said.splitlines()) <= 3


@pytest.mark.parametrize("language", ["de", "en", "es", "fr", "it", "pt"])
def test_the_run_that_makes_a_vector_has_speech_of_the_language(language):
    """Of every language that an engine here speaks: the command's profile has speech in it, or asks for the user's own."""
    engines = [engine.name for engine in (Kokoro, Pico) if language in engine.voices]
    words = shlex.split(ready.how_to_make("base", language, engines).splitlines()[1])
    assert words[:2] == ["syn2real", "run"]
    settings = {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in words[4::2])}
    profile = load_profile(words[2], settings)
    carried = {"tuxpaint": tuxpaint.LANGUAGES, "asterisk": asterisk.VOICES}.get(profile.corpus.name, ())
    assert language in carried or (profile.corpus.name, settings["corpus.path"]) == ("folder", "FOLDER")
    assert [part.name for part in profile.tts] == engines


def test_a_vector_of_another_parent_is_refused_by_both_names(run, home, parent):
    publish(run, home / "elsewhere", Wanted())
    other = checkpoints.weights_hash(make(home / "other", 99))
    one_line(f"{parent[:12]}.*not to {other[:12]}", ready.find, other, "es", (), [home / "elsewhere"])
    one_line("no ready vector at", ready.find, parent, "es", (), [home / "nowhere"])


def test_a_damaged_vector_is_refused_everywhere(run, home, parent, capsys):
    publish(run, home / "vectors" / "mine", Wanted())
    file = home / "vectors" / "mine" / "vector.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit of one number
    (mine,) = (v for v in ready.find(parent, "es") if v.path == file.parent)
    one_line("vector.safetensors is damaged: expected sha256", mine.load)
    base = home / "made" / "made" / "kokoro" / "animals"
    status, _, err = call(capsys, "vector", "apply", base, file.parent, "--lam", "0.5", "-o", home / "new")
    assert status == 2 and "is damaged" in err and len(err.splitlines()) == 1 and not (home / "new").exists()
    about = file.parent / "vector.json"
    about.write_text(about.read_text().replace('"lam": 0.5', '"lam": 0.9'))
    one_line("vector.json is damaged: expected sha256", ready.find, parent, "es")


def test_a_damaged_vector_of_a_run_is_refused(run, home, parent):
    file = vector_folder(run) / "vector.safetensors"
    whole = file.read_bytes()
    (found,) = ready.find(parent, "es", ["kokoro"])
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    one_line("is damaged: delete .* and run made again", found.load)
    one_line("is damaged", publish, run, home / "out", Wanted())
    assert not (home / "out").exists() and not list(home.glob(".*partial"))


def test_damaged_factors_are_refused(run, home):
    publish(run, home / "low", Wanted(form="lora", rank=2))
    (home / "low" / "sha256.json").unlink()
    file = home / "low" / "vector.safetensors"
    file.write_bytes(file.read_bytes().replace(b"fc1.weight.lora_A", b"fc1.weight.lora_C"))
    one_line("the factors of .* are missing or do not fit", checkpoints.load_vector, home / "low")


def test_of_two_artifacts_of_one_lineage_the_one_that_the_run_exported(home):
    first = finished(home, "first", first_seed=0)
    second = finished(home, "second", first_seed=100)  # the same lineages and sizes, other weights
    for run in (first, second):
        assert publish(run, home / f"of-{run.name}", Wanted()).load() is not None
        stored = vector_folder(run) / "vector.safetensors"
        assert (home / f"of-{run.name}" / "vector.safetensors").read_bytes() == stored.read_bytes()


def test_a_run_without_its_vector_or_its_tables_is_refused_and_not_found(run, home, parent):
    shutil.rmtree(vector_folder(run, "pico"))
    one_line("no longer in .*'syn2real run made' makes it again", publish, run, home / "out", Wanted(tts="pico"))
    shutil.rmtree(run / "tables")
    one_line("has no tables/utterances.csv: finish it with 'syn2real run made'", publish, run, home / "out", Wanted())
    assert ready.find(parent, "es") == [] and not (home / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("{", "made_from.json, or a damaged one: 'syn2real run made' makes it"),
        ('{"vector": "**/..", "lam": 0.5}', "no longer in .*'syn2real run made' makes it again"),
        ('{"vector": "x", "lam": 0.25}', "is not of lam 0.5, as tables/lam.csv has it"),
    ],
)
def test_a_model_that_does_not_say_its_vector_is_refused_in_a_line(run, home, parent, damage, message):
    for file in run.glob("models/*/made_from.json"):
        file.write_text(damage)
    one_line(message, publish, run, home / "out", Wanted())
    assert ready.find(parent, "es") == [] and not (home / "out").exists()


BAD = {
    "no run": (["nope", "-o", "out"], "no run 'nope'"),
    "no TTS": (["made", "-o", "out", "--tts", "bark"], "no TTS 'bark': it has kokoro, pico"),
    "no target": (["made", "-o", "out", "--target", "town"], "no target domain 'town': it has animals, food"),
    "no seed": (["made", "-o", "out", "--seed", "7"], "no seed 7: it has 0"),
    "no form": (["made", "-o", "out", "--form", "half"], "unknown form 'half': use one of full, lora"),
    "rank of full": (["made", "-o", "out", "--rank", "8"], "ask for --form lora"),
    "rank 0": (["made", "-o", "out", "--form", "lora", "--rank", "0"], "expected a whole number from 1 on"),
    "out exists": (["made", "-o", "pretrained"], "exists already"),
    "out is no vector": (["made", "-o", "runs", "--overwrite"], "is no model or vector, so it is not overwritten"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_to_publish_is_one_line_and_leaves_nothing(case, run, home, capsys):
    arguments, message = BAD[case]
    before = contents(home)
    status, _, err = call(capsys, "vector", "publish", *arguments)
    assert status == 2 and message in err and err.startswith("error: ") and len(err.splitlines()) == 1
    assert contents(home) == before and not list(home.glob(".*"))


def test_publish_takes_the_first_of_each_and_names_the_others(run, home, capsys):
    status, out, _ = call(capsys, "vector", "publish", "made", "-o", "vectors/mine")
    assert status == 0 and "target animals, TTS kokoro, seed 0, full" in out
    assert "the run has others: --target food; --tts pico" in out
    status, out, _ = call(capsys, "vector", "publish", run, "-o", "vectors/mine", "--form", "lora", "--overwrite")
    assert status == 0 and "lora" in out and "% of |tau|^2" in out
    assert ready.read(home / "vectors" / "mine").about.rank == 8
    status, out, _ = call(
        capsys, "vector", "publish", "made", "-o", "two", "--target", "food", "--tts", "pico", "--seed", "0"
    )
    assert status == 0 and "others" not in out


def test_an_undefined_change_is_said_to_be_none(run, home):
    file = run / "tables" / "utterances.csv"
    table = pd.read_csv(file)
    table.loc[table.model == "syn_target", "errors"] = 0
    table.to_csv(file, index=False)
    found = publish(run, home / "out", Wanted())
    assert all(map(math.isnan, found.expected)) and found.about.relative_change is None
    assert "no errors before" in (home / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("lam", {"lam_chosen": "lam"}, "lam.csv cannot be read .it has no column lam_chosen"),
        ("lam", {"model": "m"}, "lam.csv cannot be read .it has no column model"),
        ("utterances", {"text_id": "t"}, "utterances.csv cannot be read .it has no column text_id"),
    ],
)
def test_a_damaged_table_of_a_run_is_named(run, home, table, change, message):
    file = run / "tables" / f"{table}.csv"
    pd.read_csv(file).rename(columns=change).to_csv(file, index=False)
    with pytest.raises(UserError, match=message):
        publish(run, home / "out", Wanted())
    assert not (home / "out").exists()
