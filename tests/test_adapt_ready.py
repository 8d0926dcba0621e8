"""`adapt` with ready vectors: found by itself, in low rank, from the hub; and what the clips of other domains show."""

import re
import shutil

import pandas as pd
import pytest
from safetensors.torch import save_file

from syn2real_utils import checkpoints, cli, proof, ready, recipe, vectorpick
from syn2real_utils.checkpoints import load_state
from syn2real_utils.errors import UserError
from syn2real_utils.publish import Wanted, publish
from tests.made_run import LAM, finished, vector_folder
from tests.test_adapt import call, clips, home, tiny  # noqa: F401
from tests.test_hub import there  # noqa: F401

CONV = "model.encoder.conv1.weight"


@pytest.fixture
def run(home, tiny, monkeypatch):  # noqa: F811
    """A finished run of the tiny backbone that surely gained; our default lam is none that it could have recorded."""
    monkeypatch.setattr(vectorpick, "LAM", 0.05)
    folder = finished(home, backbone=tiny)
    errors(folder, "syn_target", 2)
    errors(folder, "adapted", 1)
    errors(folder, "pretrained", 3)
    return folder


def errors(run, model: str, most: int) -> None:
    """Let a model make so many errors in each clip of three words, and in every fifth none."""
    file = run / "tables" / "utterances.csv"
    rows = pd.read_csv(file)
    own = rows.model == model
    rows.loc[own, "errors"] = [0 if i % 5 == 0 else most for i in range(own.sum())]
    rows.to_csv(file, index=False)


def test_a_published_vector_is_found_and_gives_lam_and_what_to_expect(run, tiny, home):  # noqa: F811
    publish(run, home / "vectors" / "mine", Wanted(tts="pico"))
    found, plain = call(tiny, "model", vector="auto"), call(tiny, "plain")
    (picked,) = found.vectors
    assert picked.name == "mine" and found.lam == LAM
    low, high = picked.expected
    assert found.go and f"% against pretrained (against syn_target by {low:+.1f} to {high:+.1f} %)" in found.reason
    assert picked.about.wer_pretrained > picked.about.wer_adapted and picked.promised[1] < 0 > high > low
    card = (found.path / "README.md").read_text(encoding="utf-8")
    assert f"- mine: {picked.about.relative_change:+.1f} % [{low:+.1f}, {high:+.1f}] (95 % interval)" in card
    assert "on animals, food, TTS pico, protocol strict, at the lam chosen there" in card, (
        "of all targets, not the best"
    )
    assert "| lam | 0.5, recorded with the vector (chosen by leave-one-source-out) |" in card
    assert "recordings of Tux Paint GPL-2" in card and str(home.parent) not in card and "base_model" not in card
    tau = picked.load().tensors[CONV]
    moved, base = load_state(found.path)[CONV], load_state(plain.path)[CONV]
    assert (moved - base - LAM * tau).abs().max() < 1e-6 < tau.abs().max()
    errors(run, "pretrained", 1)
    publish(run, home / "vectors" / "mine", Wanted(tts="pico"), overwrite=True)
    again = call(tiny, "again", vector="vectors/mine")
    assert not again.go and "not surely better" in again.reason
    assert "no-go" in (again.path / "README.md").read_text(encoding="utf-8")


def test_a_run_or_a_folder_of_vectors_can_be_named(run, tiny, home, tmp_path):  # noqa: F811
    publish(run, home / "some" / "mine", Wanted(tts="pico"))
    publish(finished(tmp_path), home / "others" / "one", Wanted(tts="pico"))
    parent = checkpoints.weights_hash(tiny)

    def pick(place: str, *tts: str):
        vectorpick.check_choice(place, "auto", None)
        return [v.path.name for v in vectorpick.pick_vectors(place, tiny, parent, "es", tts, "mine")]

    assert pick("some", "pico") == pick("some", "kokoro", "pico") == ["mine"]
    assert pick(str(run), "kokoro", "pico") == [vector_folder(run, tts).name for tts in ("kokoro", "pico")]
    with pytest.raises(UserError, match="others holds no vector for these pretrained weights"):
        pick("others", "pico")


def test_two_tts_take_the_mean_of_their_vectors_and_what_is_made_hides_no_run(run, tiny, home, capsys):  # noqa: F811
    parent = checkpoints.weights_hash(tiny)
    picked = vectorpick.pick_vectors("auto", tiny, parent, "es", ["pico", "kokoro"], "town")
    assert [v.path for v in picked] == [vector_folder(run, tts) for tts in ("pico", "kokoro")]
    assert capsys.readouterr().out.count("comes from real speech of 'town' too: no proof for it") == 2
    assert "mean of 0.5 (pico) and 0.5 (kokoro)" in vectorpick.choose_lam("auto", picked).how
    mean = checkpoints.load_vector(vectorpick.vector_folder(picked)[0])[0].tensors[CONV]
    one, other = (vector.load().tensors[CONV] for vector in picked)
    assert (mean - (one + other) / 2).abs().max() < 1e-6
    kept = call(tiny, "kept", vector="auto", keep=0.25)
    assert kept.go and "without --keep, this one is not" in kept.reason
    assert len(ready.find(parent, "es")) == 2, "models of `adapt` lie beside those of runs"
    assert vectorpick.pick_vectors("auto", tiny, parent, "fr", ["pico"], "town") == []
    said = capsys.readouterr().out
    assert "no vector of pico in 'fr' for these weights is here" in said
    other = shutil.copytree(tiny, home / "other")
    save_file(
        {key: tensor + 1 for key, tensor in load_state(tiny).items()}, other / "model.safetensors", {"format": "pt"}
    )
    assert not call(other, "of other weights", vector="auto").vectors
    assert ready.how_to_make(str(other), "es", ["pico"], 1e-5) in capsys.readouterr().out, (
        "with what was asked for, and at the rate of a Whisper that is none of tiny and base"
    )


def test_low_rank_is_applied_and_its_card_says_so(run, tiny, home):  # noqa: F811
    low = publish(run, home / "low", Wanted(tts="pico", form="lora", rank=2))
    found = call(tiny, "model", vector="low", lam=1.0)
    moved, base = load_state(found.path)[CONV], load_state(call(tiny, "plain").path)[CONV]
    assert (moved - base - low.load().tensors[CONV]).abs().max() < 1e-6
    card = (found.path / "README.md").read_text(encoding="utf-8")
    assert re.search(r"measured with the whole vector, this one is of low rank 2 and keeps \d+ % of", card)
    assert found.go and "this one is not" in found.reason and found.lam_how == "as it was asked for"
    publish(run, home / "vectors" / "a-low", Wanted(tts="pico", form="lora", rank=2))
    publish(run, home / "vectors" / "b-full", Wanted(tts="pico"))
    names = [v.path.name for v in ready.find(checkpoints.weights_hash(tiny), "es", ["pico"])]
    assert names[0] == "b-full" and names[-1] == "a-low", "of one change, whole ones first"


def test_another_parent_and_damage_are_refused_before_anything_is_spoken(run, tiny, home, tmp_path):  # noqa: F811
    publish(finished(tmp_path), home / "other", Wanted(tts="pico"))
    with pytest.raises(UserError, match=r"other belongs to the pretrained weights \w{12} .*, not to \w{12}"):
        call(tiny, "model", vector="other")
    file = vector_folder(run, "pico") / "vector.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="is damaged"):
        call(tiny, "model", vector="auto")
    assert not (home / "model").exists() and not (home / "data" / "synthetic").exists()


def test_a_vector_from_the_hub_and_the_model_to_it(there, run, tiny, home, capsys):  # noqa: F811
    from syn2real_utils import hub

    publish(run, home / "mine", Wanted(tts="pico"))
    hub.push(home / "mine", "me/tau")
    found = call(tiny, "model", vector="me/tau", push_to_hub="me/model", private=True)
    said = capsys.readouterr().out
    assert "no folder me/tau is here" in said and "fetching me/tau" in said and "which needs the network" in said
    assert f"pushed to {there.url}/me/model" in said
    assert found.vectors[0].name.startswith("me/tau (") and found.lam == LAM
    sent = there.repositories["me/model"].at("main")[1]
    assert sent["model.safetensors"] == (found.path / "model.safetensors").read_bytes() and "devel.csv" not in sent
    assert there.repositories["me/model"].private


NOWHERE = {
    "vector": (["--vector", "me/tau"], "http://127.0.0.1:9 cannot be reached"),
    "push": (["--vector", "none", "--push-to-hub", "me/model"], "http://127.0.0.1:9 cannot be reached"),
    "folder": (["--vector", "taken/tau"], "no task vector at taken/tau"),
}


@pytest.mark.parametrize("case", NOWHERE)
def test_without_the_network_it_is_one_line_and_nothing_is_made(case, there, tiny, home, monkeypatch, capsys):  # noqa: F811
    more, message = NOWHERE[case]
    (home / "taken").mkdir()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    given = "--texts animales.txt --language es --tts pico --threads 1 --out out"
    with pytest.raises(SystemExit) as raised:
        cli.main(["adapt", *given.split(), "--backbone", str(tiny), *more])
    err = capsys.readouterr().err
    assert raised.value.code == 2 and message in err and len(err.splitlines()) == 1
    assert not (home / "out").exists() and not (home / "data" / "synthetic").exists()


def test_clips_of_other_domains_show_what_was_forgotten(tiny, home, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(recipe, "EPOCHS", 1)
    said = ["el perro ladra", "la casa azul", "tres manzanas"]
    devel = clips(home, "devel", said, 7, ["animales", "animales", "comida"])
    found = call(tiny, "model", devel=devel)
    assert "those of animales prove the model" in capsys.readouterr().out
    assert found.wer is not None and set(found.wer.n_utterances) == {2} and set(found.wer.n_words) == {6}
    assert found.domains is not None and list(found.domains.domain) == ["animales", "comida"]
    assert list(found.domains.n_words) == [6, 2] and {"pretrained", "syn_target", "adapted"} <= set(found.domains)
    rows = pd.read_csv(found.path / "devel.csv", keep_default_na=False)
    full = rows[(rows.context == "30 s") & (rows.model == "adapted")]
    wers = 100 * full.groupby("domain").errors.sum() / full.groupby("domain").n_words.sum()
    assert list(wers) == list(found.domains.adapted)
    for page in ("README.md", "report.md"):
        text = (found.path / page).read_text(encoding="utf-8")
        assert "| comida | 1 | 2 |" in text and "| animales | 2 | 6 |" in text
    assert len(proof.of_domain(rows, "animales")) < len(rows) == len(proof.of_domain(rows, "ropa")), (
        "none: all prove it"
    )
