"""Profiles: what is wrong is said in one line that names the key."""

import pytest
import yaml

from syn2real_utils.errors import UserError
from syn2real_utils.profile import Profile, load_profile, parse_overrides, profile_names

GOOD = load_profile("quickstart").model_dump(mode="json")


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_of_the_package_loads_and_says_what_it_is(name):
    profile = load_profile(name)
    assert profile.name == name and profile.description
    assert 0.2 in profile.evaluation.lam_grid, "that of the released code"


def test_resolved_profile_reads_back_the_same(tmp_path):
    profile = load_profile("quickstart", {"training.epochs": 0.5, "corpus.max_utterances": {"food": 3}})
    (tmp_path / "again.yaml").write_text(profile.to_yaml(), encoding="utf-8")
    assert load_profile(tmp_path / "again.yaml") == profile
    assert (profile.corpus.most("food"), profile.corpus.most("animals")) == (3, None)


def changed(path: str, value: object) -> dict:
    values = yaml.safe_load(yaml.safe_dump(GOOD))
    *parents, last = path.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("epochs", 3, "unknown key 'epochs': use one of .*name, description, corpus"),
        ("training.epoch", 3, "unknown key 'training.epoch': use one of epochs"),
        ("training.max_step", 3, "unknown key 'training.max_step': use one of max_steps"),
        ("training.epochs", None, "key 'training.epochs' is missing"),
        ("training.epochs", "many", "training.epochs: .*valid number.*found 'many'"),
        ("training.epochs", -1, "training.epochs: .*greater than 0"),
        ("evaluation.bootstrap_samples", 10**9, "evaluation.bootstrap_samples: .*less than or equal to 1000000"),
        ("evaluation.protocol", "loose", "evaluation.protocol: .*'strict'"),
        ("evaluation.lam_grid", [0.1, 0.2], "lam_grid must rise from 0"),
        ("evaluation.selection_grid", [0.0, 0.25], "selection_grid must be part of lam_grid"),
        ("evaluation.selection_folds", 3, "selection_folds must not exceed folds"),
        ("evaluation.lam_grid", [0.0, float("inf")], "lam_grid.1: .*finite"),
        ("training.epochs", float("nan"), "training.epochs: .*finite|training.epochs: .*greater"),
        ("seeds", [0, 0], "seeds must name each of its values once"),
        ("seeds", [-1], "seeds.0: .*greater than or equal to 0"),
        ("tts", [{"name": "pico"}, {"name": "pico"}], "tts must name each of its values once"),
        ("targets", ["all"], "targets must not hold 'all'"),
        ("targets", [], "targets: .*at least 1"),
        (
            "evaluation",
            {"lam_grid": [0, 0.3333333, 1], "selection_grid": [0]},
            "lam_grid has 0.3333333: at most 6 digits",
        ),
        ("seeds", [2**32], "seeds.0: .*less than 4294967296"),
        ("name", "../out", "name: "),
        ("name", "artifacts", "runs/artifacts holds something else"),
        ("resources", {"evry": {}}, "unknown key 'resources.evry': use one of every, notebooks, retries"),
        ("resources", {"every": {"gpu": 1}}, "unknown key 'resources.every.gpu': use one of gpus, memory_gb, minutes"),
        ("resources", {"notebooks": {"03_finetune": {"gpu": 1}}}, "03_finetune.gpu': use one of gpus, memory_gb"),
        ("resources", {"every": {"minutes": 0}}, "resources.every.minutes: .*greater than 0"),
        ("resources", {"retries": -1}, "resources.retries: .*greater than or equal to 0"),
    ],
)
def test_bad_values_are_named(tmp_path, path, value, message):
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(changed(path, value)))
    with pytest.raises(UserError, match=message) as raised:
        load_profile(file)
    assert "\n" not in str(raised.value)


def test_unknown_profile_and_bad_files(tmp_path):
    with pytest.raises(UserError, match="no profile 'quikstart': use one of .*quickstart"):
        load_profile("quikstart")
    with pytest.raises(UserError, match="no profile 'tuxpaint-es-cor': use one of tuxpaint-es-core"):
        load_profile("tuxpaint-es-cor")
    unread = "x.yaml, line 2, can't be read as YAML: "
    for text, message in (
        ("a:\n\t- b", f"{unread}.*tab|cannot start"),
        ("name: a\nname: b", f"{unread}key 'name' stands twice"),
        ("- a", "holds no profile"),
        ("name: 2025-02-30", "x.yaml, can't be read as YAML: day is out of range"),
    ):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            load_profile(tmp_path / "x.yaml")


def test_overrides_are_read_as_yaml_and_checked():
    with pytest.raises(UserError, match="--set 'name=2025-06-31': the value is no YAML"):
        parse_overrides(["name=2025-06-31"])
    for twice, message in (
        (["training.epochs=1", "training.epochs=2"], "--set training.epochs=... is given more than once"),
        (["training={epochs: 1, epochs: 2}"], "the value is no YAML .key 'epochs' stands twice"),
        (["seeds=" + 2000 * "["], "the value is no YAML"),
    ):
        with pytest.raises(UserError, match=message):
            parse_overrides(twice)
    with pytest.raises(UserError, match="threads"):
        load_profile("quickstart", parse_overrides(["threads=100000"]))
    assert parse_overrides(["training.epochs=0.5", "targets=[food]"]) == {"training.epochs": 0.5, "targets": ["food"]}
    with pytest.raises(UserError, match="expected key=value"):
        parse_overrides(["training.epochs"])
    with pytest.raises(UserError, match="unknown key 'trainin': use one of training"):
        load_profile("quickstart", {"trainin.epochs": 1})
    with pytest.raises(UserError, match="--set name.first: 'name' is a value and no section"):
        load_profile("quickstart", {"name.first": "x"})
    with pytest.raises(UserError, match="key 'training.early_stopping.patience' is missing"):
        load_profile("quickstart", {"training.early_stopping.steps": 5})
    paper = load_profile("paper-fig4", {"resources.notebooks.06_cosine_heatmaps.minutes": 2880}).resources
    assert paper.job("06_cosine_heatmaps").minutes == 2880 != paper.job("03_finetune").minutes, "one notebook alone"
    asked = load_profile("quickstart", {"resources.every.partition": "gpu", "resources.notebooks.03_finetune.gpus": 1})
    assert asked.resources.job("03_finetune").model_dump(include={"partition", "gpus"}) == {
        "partition": "gpu",
        "gpus": 1,
    }


def test_a_tts_or_target_that_the_profile_lacks_is_named():
    profile = Profile.model_validate(GOOD)
    with pytest.raises(UserError, match="has no TTS 'bark': it has kokoro, pico"):
        profile.tts_part("bark")
    with pytest.raises(UserError, match="has no target domain 'moon': it has animals"):
        profile.check_target("moon")


def test_paths_are_absolute_wherever_the_profile_was_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = {"corpus": {"name": "folder", "language": "es", "path": "mine"}, "backbone": {"name": "./model"}}
    profile = load_profile("quickstart", own)
    assert profile.corpus.path == str(tmp_path.resolve() / "mine")
    assert profile.backbone.name == str(tmp_path.resolve() / "model")
    assert load_profile("quickstart").backbone.name == "base"


def test_a_notebook_asks_for_what_it_names_and_else_for_what_every_job_asks():
    every = {"memory_gb": 4, "partition": "cpu", "more": {"qos": "short", "constraint": "fast"}}
    own = {"03_finetune": {"partition": "gpu", "gpus": 1, "more": {"qos": "long"}}}
    resources = load_profile("quickstart", {"resources": {"every": every, "notebooks": own}}).resources
    found = resources.job("03_finetune")
    assert (found.memory_gb, found.partition, found.gpus) == (4, "gpu", 1)
    assert found.more == {"qos": "long", "constraint": "fast"}
    assert resources.job("08_results") == resources.every


def test_paths_are_meant_from_the_file_or_the_folder_that_name_them(tmp_path, monkeypatch):
    """A profile that extends one beside it works from anywhere, and notebooks find a backbone that lies here."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base2.yaml").write_text(yaml.safe_dump(GOOD))
    (tmp_path / "sub" / "mine.yaml").write_text("extends: base2.yaml\nname: mine\n")
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    profile = load_profile("sub/mine.yaml", {"backbone.name": "models/tiny"})
    assert profile.name == "mine" and profile.backbone.name == str(tmp_path / "models" / "tiny")
    assert (
        load_profile("sub/mine.yaml", {"backbone.name": "openai/whisper-small"}).backbone.name == "openai/whisper-small"
    )
    for name in ("base", "openai/whisper-base"):  # carried ones are meant whatever lies here
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        assert load_profile("sub/mine.yaml", {"backbone.name": name}).backbone.name == name
    assert load_profile("sub/mine.yaml", {"backbone.name": "./base"}).backbone.name == str(tmp_path / "base")
    with pytest.raises(UserError, match="'tts' is a list: give it whole"):
        load_profile("sub/mine.yaml", {"tts.0.takes": 2})
    for name, other in (("a", "b"), ("b", "a"), ("own", "own")):
        (tmp_path / "sub" / f"{name}.yaml").write_text(f"extends: {other}.yaml\n")
    for name in ("a", "own"):
        with pytest.raises(UserError, match=f"profile sub/{name}.yaml extends itself|extends itself: sub/a.yaml"):
            load_profile(f"sub/{name}.yaml")
