"""To the hub and back, against a stand-in on loopback that receives the bytes; and one clear line where it cannot be."""

import pytest
import torch
from huggingface_hub import constants

from syn2real_utils import hub, hubnames, ready
from syn2real_utils.backbones import sources
from syn2real_utils.corpora import slurpfetch
from syn2real_utils.errors import UserError
from syn2real_utils.publish import Wanted, publish
from syn2real_utils.store import Store
from syn2real_utils.tts import snapshots
from tests.hub_standin import TOKEN, Hub, Repository
from tests.test_checkpoints import contents, make
from tests.test_cli import call
from tests.test_ready import home, one_line, run, same  # noqa: F401


@pytest.fixture
def there(tmp_path_factory, monkeypatch):
    """The stand-in, as the hub of this process, with our token; large files go the way without Xet."""
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with Hub() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        yield standin


@pytest.mark.parametrize("form", ["full", "lora"])
def test_the_hub_gets_the_bytes_of_the_folder_and_gives_them_back(form, there, run, home, capsys):  # noqa: F811
    arguments = ["made", "-o", "vectors/mine", "--form", form, "--push-to-hub", "me/tau", "--private"]
    status, out, err = call(capsys, "vector", "publish", *arguments)
    assert status == 0 and f"pushed to {there.url}/me/tau" in out, err
    assert "which needs the network" in err
    repository, sent = there.repositories["me/tau"], contents(home / "vectors" / "mine")
    sha, files = repository.at("main")
    card = sent.pop("README.md").replace(b"--vector mine ", b"--vector me/tau ")
    assert b"--vector me/tau -o my-model/" in card, "the commands of a card on the hub name the repository"
    assert files == sent | {"README.md": card} and repository.private and repository.lfs == {"vector.safetensors"}
    found = ready.from_hub("me/tau")
    assert {p.name: p.read_bytes() for p in found.path.iterdir()} == files
    assert same(found.load(), ready.read(home / "vectors" / "mine").load())
    assert same(ready.from_hub("me/tau", revision=sha).load(), found.load())


def test_what_shall_be_private_does_not_go_where_all_can_read_it(there, run, home, capsys):  # noqa: F811
    publish(run, home / "a", Wanted())
    hub.push(home / "a", "me/tau")
    before = there.repositories["me/tau"].at("main")
    one_line("me/tau is there and public: make it private", hub.push, home / "a", "me/tau", True)
    assert there.repositories["me/tau"].at("main") == before and not there.repositories["me/tau"].private
    status, _, err = call(capsys, "vector", "publish", "made", "-o", "vectors/mine", "--private")
    assert status == 2 and "--private is for the repository of --push-to-hub" in err
    status, _, err = call(
        capsys, "vector", "publish", "made", "-o", "vectors/mine", "--push-to-hub", "me/tau", "--private"
    )
    assert status == 2 and "me/tau is there and public" in err
    assert not (home / "vectors" / "mine").exists(), "refused before anything is made"


def test_a_newer_commit_replaces_and_an_older_one_can_still_be_had(there, run, home):  # noqa: F811
    publish(run, home / "a", Wanted())
    publish(run, home / "b", Wanted(tts="pico"))
    assert hub.push(home / "a", "me/tau") == f"{there.url}/me/tau"
    first = there.repositories["me/tau"].at("main")[0]
    hub.push(home / "b", "me/tau")
    assert ready.from_hub("me/tau").tts == "pico" and ready.from_hub("me/tau", first).tts == "kokoro"


def test_what_was_fetched_stays_where_the_hub_cannot_be_reached(there, run, home, monkeypatch):  # noqa: F811
    publish(run, home / "a", Wanted())
    hub.push(home / "a", "me/tau")
    sha = there.repositories["me/tau"].at("main")[0]
    ready.from_hub("me/tau", sha)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert ready.from_hub("me/tau", sha).tts == "kokoro"
    one_line("cannot fetch me/other: .* cannot be reached", ready.from_hub, "me/other")


def test_a_model_goes_without_its_pickles_and_only_what_may_be_read_comes_back(there, tmp_path, capsys):
    folder = make(tmp_path / "model", 1)
    (folder / "README.md").write_text('---\nlicense: mit\n---\npipeline(model="model") of my model\n')
    (folder / "merges.txt").write_text("a b\n")
    torch.save({}, folder / "training_args.bin")
    hub.push(folder, "me/model")
    assert "not pushed: training_args.bin" in capsys.readouterr().out
    expected = {name: content for name, content in contents(folder).items() if name != "training_args.bin"}
    expected["README.md"] = b'---\nlicense: mit\n---\npipeline(model="me/model") of my model\n'
    assert there.repositories["me/model"].at("main")[1] == expected
    expected.pop("merges.txt")
    assert {p.name: p.read_bytes() for p in hub.pull("me/model").iterdir()} == expected


def test_damage_on_the_way_is_refused(there, run, home):  # noqa: F811
    publish(run, home / "a", Wanted())
    file = home / "a" / "vector.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    hub.push(home / "a", "me/tau")
    one_line("is damaged: expected sha256", ready.from_hub("me/tau").load)


def test_no_vector_in_a_repository_is_refused(there, tmp_path):
    hub.push(make(tmp_path / "model", 1), "me/model")
    one_line("has no vector.json", ready.from_hub, "me/model")
    one_line("has no such repository", ready.from_hub, "me/nothing")


REFUSED = {
    "no token": ({"HF_TOKEN": ""}, "me/tau", "no token to push me/tau with"),
    "another token": ({"HF_TOKEN": "hf_wrong"}, "me/tau", "the hub refuses the token"),
    "unreachable": ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "me/tau", "http://127.0.0.1:9 cannot be reached"),
    "no owner": ({}, "tau", "'tau' is no repository of the hub: expected owner/name"),
    "no name": ({}, "me/a b", "'me/a b' is no repository of the hub"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_pushed_is_one_line_and_nothing_is_made(case, there, run, home, monkeypatch, capsys):  # noqa: F811
    setting, repo_id, message = REFUSED[case]
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    before = contents(home)
    status, _, err = call(capsys, "vector", "publish", "made", "-o", "vectors/mine", "--push-to-hub", repo_id)
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(told) == 1 and message in told[0] and err.splitlines()[-1] == told[0]
    assert contents(home) == before and not there.repositories


def test_a_folder_without_a_vector_or_model_is_not_pushed(there, tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    one_line("nothing to push", hub.push, tmp_path, "me/tau")
    assert not there.requests


def test_a_card_that_the_hub_refuses_is_one_line(there, run, home):  # noqa: F811
    publish(run, home / "a", Wanted())
    (home / "a" / "README.md").write_text("no header")
    with pytest.raises(UserError, match="cannot push me/tau: ") as caught:
        hub.push(home / "a", "me/tau")
    assert "\n" not in str(caught.value)


GONE = "2" * 40  # a commit that no repository of the stand-in has


def _backbone(folder):
    sources.resolve("openai/whisper-small", Store(folder))


def _tts(folder):
    snapshots.resolve(snapshots.BARK, "config.json", Store(folder))


def _slurp(folder):
    slurpfetch.from_hub(folder)


def _vector(folder):
    ready.from_hub("me/tau", GONE)


@pytest.mark.parametrize(
    ("name", "fetch", "todo"),
    [
        ("openai/whisper-small", _backbone, "name another as openai/whisper-small@COMMIT, or use base or tiny.en"),
        (
            snapshots.BARK,
            _tts,
            "name a folder with a copy of suno/bark as `model` of the TTS .* or use kokoro",
        ),
        (slurpfetch.HUB, _slurp, "set corpus.source to official, or give corpus.path"),
        ("me/tau", _vector, ""),
    ],
    ids=["backbone", "TTS", "SLURP", "vector"],
)
def test_a_revision_that_is_gone_is_one_line_with_what_to_do(name, fetch, todo, there, tmp_path, monkeypatch):
    there.repositories[name] = Repository(False)
    monkeypatch.setattr(hubnames, "pinned", lambda _: GONE)
    one_line(rf"cannot fetch {name}: .* has it, but not \(or no longer\) its revision {GONE}.*{todo}", fetch, tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"]
