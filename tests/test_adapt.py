"""From texts to a model: the whole path with a tiny random Whisper and Pico, resumption, the algebra to the bit, errors."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration, pipeline

from syn2real_utils import audio, checkpoints, cli, proof, recipe, training, vectorpick
from syn2real_utils.adapt import adapt
from syn2real_utils.backbones import sources, whisper
from syn2real_utils.backbones.base import open_backbone
from syn2real_utils.checkpoints import load_state
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import Lineage
from syn2real_utils.profile import BackbonePart
from syn2real_utils.store import Store
from syn2real_utils.tts.pico import Pico
from syn2real_utils.vectorpick import PlainVector, Scaling
from syn2real_utils.verdict import verdict
from tests.made_run import moved

TEXTS = [
    "el perro ladra",
    "un gato negro",
    "",
    "el pez nada",
    "<b>la vaca</b>",
    "la casa roja",
    "5 manzanas",
    "El perro ladra.",
]
SAID = ["el perro ladra", "la casa azul", "tres manzanas"]


@pytest.fixture(scope="session")
def tiny(shared_data, tmp_path_factory) -> Path:
    """A random Whisper of 16 dimensions with the real tokenizer."""
    base, folder = sources.resolve("base", shared_data), tmp_path_factory.mktemp("tiny")
    shutil.copytree(base, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model.safetensors", "done.json"))
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(0)
    WhisperForConditionalGeneration(WhisperConfig.from_pretrained(base, **sizes, **heads)).save_pretrained(folder)
    shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty project with a list of texts; the current folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "animales.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    monkeypatch.setenv("SYN2REAL_HOME", str(folder))
    monkeypatch.setattr(whisper, "TOKENS_PER_SECOND", 1)  # a random model never ends by itself
    monkeypatch.setattr(proof, "SAMPLE", 2)
    monkeypatch.chdir(folder)
    return folder


def vector_of(tiny: Path, out: Path, tts: str = "pico", corpus: str = "voices-es", **more) -> Path:
    """A task vector of the tiny backbone, of models that were moved at random."""
    parent, folders = checkpoints.weights_hash(tiny), []
    for name, speech in (("real", "real"), ("syn", tts)):
        folders.append(moved(tiny, out.with_name(f"{out.name}-{name}"), len(tts) + len(name)))
        known = {"architecture": checkpoints.architecture(tiny), "parent": parent, "domains": ("comida", "ropa")} | more
        checkpoints.write_lineage(folders[-1], Lineage(kind="model", corpus=corpus, speech=speech, **known))
    checkpoints.subtract(*folders, out)
    for folder in folders:
        shutil.rmtree(folder)
    return out


def call(tiny: Path, out: str, **more):
    return adapt("animales.txt", "es", str(tiny), ["pico"], out, threads=1, **({"vector": "none"} | more))


def artifacts(home: Path) -> dict[Path, int]:
    places = (home / "data", home / "runs")
    return {
        p: p.stat().st_mtime_ns for place in places for p in place.rglob("*") if p.is_file() and p.suffix != ".lock"
    }


def clips(home: Path, name: str, said: list[str], seed: int, domains: str | list[str] = "mine") -> Path:
    """An AudioFolder of clips that stand for a user's real ones."""
    folder, pico = home / name, Pico(Store(home))
    folder.mkdir()
    for i, text in enumerate(said):
        audio.write(folder / f"{i}.wav", pico.speak(text, "es-ES", "es", seed + i)[0])
    rows = pd.DataFrame({"file_name": [f"{i}.wav" for i in range(len(said))], "transcription": said, "domain": domains})
    rows.to_csv(folder / "metadata.csv", index=False)
    return folder


def test_from_texts_to_a_folder_that_a_pipeline_opens_and_a_second_call_makes_nothing(tiny, home, capsys):
    found = call(tiny, "model")
    said = capsys.readouterr().out
    assert re.search(r"estimate: 5 clips to speak, about \d+ minutes? without a GPU.*, \d+ MB of disk", said)
    assert said.index("estimate") < said.index("clips by pico"), "before it starts"
    assert {p.name for p in found.path.iterdir()} >= {"README.md", "report.md", "lineage.json", "texts_dropped.csv"}
    assert (found.path / "texts_dropped.csv").read_text().splitlines()[1:] == [
        "3,empty,", "5,markup,<b>la vaca</b>", "8,duplicate after normalisation,El perro ladra.",
    ]  # fmt: skip
    card = (found.path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlanguage: es\n") and "speech\nof 5 texts" in card and "pico-es-ES (5 clips)" in card
    assert not found.go and "no-go: no vector was asked for" in card and found.line() in said
    assert found.wer is None and found.synthetic is not None and set(found.synthetic.n_utterances) == {2}
    assert list(found.synthetic.context) == ["30 s", "clip", "30 s"] and "On 2 of the synthetic clips" in card
    lineage = checkpoints.read_lineage(found.path)
    assert lineage and (lineage.speech, lineage.domains, lineage.corpus) == ("pico", ("animales",), "texts-es")
    clip = next((home / "data" / "synthetic").rglob("*.wav"))
    heard = pipeline("automatic-speech-recognition", model=str(found.path))(
        str(clip), generate_kwargs={"max_new_tokens": 5}
    )
    assert isinstance(heard["text"], str)
    before, model = artifacts(home), (found.path / "model.safetensors").read_bytes()
    given = "--texts animales.txt --language es --tts pico --vector none --threads 1 --out model --overwrite"
    with pytest.raises(SystemExit) as raised:
        cli.main(["adapt", *given.split(), "--backbone", str(tiny)])
    assert not raised.value.code and capsys.readouterr().out.endswith(found.line() + "\n")
    assert artifacts(home) == before and (found.path / "model.safetensors").read_bytes() == model
    assert not list(home.rglob("*.partial"))


def test_a_call_that_was_stopped_goes_on_to_the_same_model(tiny, home, monkeypatch):
    whole = call(tiny, "whole", domain="otro")
    shutil.rmtree(home / "runs")
    before = artifacts(home)

    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training.Progress, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            call(tiny, "again", domain="otro")
    assert not (home / "again").exists() and artifacts(home).items() >= before.items()
    again = call(tiny, "again", domain="otro")
    assert artifacts(home).items() >= before.items(), "what was spoken is not spoken again"
    assert (again.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


def test_the_algebra_to_the_bit(tiny, home):
    tau = vector_of(tiny, home / "tau")
    base = load_state(call(tiny, "syn_target").path)
    plain = load_state(call(tiny, "zero", vector=tau, lam=0.0).path)
    assert all(torch.equal(base[key], plain[key]) for key in base), "lam 0 is syn_target"
    vector, half = checkpoints.load_vector(tau)[0].tensors, call(tiny, "half", vector=tau)
    assert half.lam == 0.5 and "our default, because no lam was recorded" in half.lam_how and not half.go
    moved, name = load_state(half.path), "model.encoder.conv1.weight"
    assert torch.allclose(moved[name], base[name] + 0.5 * vector[name], atol=1e-6)
    pretrained = load_state(tiny)
    one = load_state(call(tiny, "one", vector=tau, keep=1.0).path)
    assert all(torch.equal(pretrained[key], one[key]) for key in one), "keep 1 is pretrained"
    kept = call(tiny, "kept", vector=tau, keep=0.25)
    mixed = load_state(kept.path)
    assert torch.allclose(mixed[name], 0.75 * moved[name] + 0.25 * pretrained[name], atol=1e-6)
    settings = tiny / "generation_config.json"
    before = settings.read_text()
    try:
        settings.write_text(json.dumps(json.loads(before) | {"max_length": 77}))
        assert (
            json.loads((call(tiny, "again", vector=tau, keep=0.25).path / settings.name).read_text())["max_length"]
            == 77
        )
    finally:
        settings.write_text(before)
    card = (kept.path / "README.md").read_text(encoding="utf-8")
    assert "| vector | of voices-es, domains comida, ropa, TTS pico |" in card and "weights | 0.25," in card
    lineage = checkpoints.read_lineage(kept.path)
    assert lineage and lineage.parent == checkpoints.weights_hash(tiny) and lineage.domains == ("animales",)


def test_a_sign_that_would_break_a_table_is_no_part_of_a_transcript(tiny, tmp_path):
    """Byte-level tokens hold such signs. This model says nothing but the end of a line."""
    folder = shutil.copytree(tiny, tmp_path / "babbling")
    asr = open_backbone(folder, "es", BackbonePart(name="tiny", precision="float32"))
    (token,) = asr.tokenizer("\r", add_special_tokens=False).input_ids
    state, along = load_state(folder), torch.ones(16)
    last, embedding = "model.decoder.layer_norm", state["model.decoder.embed_tokens.weight"] * 0
    embedding[token] = along
    state |= {f"{last}.weight": along * 0, f"{last}.bias": along, "model.decoder.embed_tokens.weight": embedding}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    clip = asr.of_wave(np.zeros(16_000, np.float32))
    (heard,) = asr.hear(asr.load(folder), [clip], 1)
    assert heard.tokens > 1 and heard.text == ""


def test_clips_without_transcripts_choose_lam(tiny, home, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "LAM_GRID", [0.0, 0.5, 1.0])
    tau, folder = vector_of(tiny, home / "tau"), home / "said"
    folder.mkdir()
    pico = Pico(Store(home))
    for i, text in enumerate(SAID):
        audio.write(folder / f"{i}.wav", pico.speak(text, "es-ES", "es", i)[0])
    audio.write(folder / "silent.wav", np.zeros(16_000, np.float32))
    found = call(tiny, "model", vector=tau, unlabelled=folder)
    assert f"surest of the {len(SAID) + 1} clips of --unlabelled" in found.lam_how
    asr = open_backbone(tiny, "es", BackbonePart(name=str(tiny)))
    vector, syn = checkpoints.load_vector(tau)[0], call(tiny, "syn_target").path
    waves, entropy = [asr.features(folder / f"{i}.wav") for i in range(len(SAID))], {}
    for lam in recipe.LAM_GRID:
        checkpoints.apply(syn, tau, lam, home / f"moved{lam}")
        heard = asr.hear(asr.load(home / f"moved{lam}"), waves, 16)
        entropy[lam] = sum(one.entropy for one in heard) / sum(one.tokens for one in heard)
    assert vector.norm() > 0 and found.lam == min(entropy, key=lambda lam: (round(entropy[lam], 4), lam))
    devel = clips(home, "proof", SAID, 9)
    shutil.copyfile(devel / "0.wav", folder / "also.wav")
    # In the folder of --devel, but not in its metadata.csv: it proves nothing.
    shutil.copyfile(folder / "1.wav", devel / "unlisted.wav")
    both = call(tiny, "proved", vector=tau, unlabelled=folder, devel=devel)
    assert "; 1 of them prove it too, which may flatter it" in both.lam_how
    (folder / "also.wav").unlink()
    assert "--unlabelled" in (found.path / "README.md").read_text(encoding="utf-8")
    before = artifacts(home)
    call(tiny, "model", vector=tau, unlabelled=folder, overwrite=True)
    assert artifacts(home) == before, "a second call hears nothing"
    call(tiny, "alone", unlabelled=folder, vector="auto")
    assert "--unlabelled is not used, for there is no vector to scale" in capsys.readouterr().out
    silent = home / "silent"
    silent.mkdir()
    shutil.copyfile(folder / "silent.wav", silent / "a.wav")
    for more, message in (
        ({"unlabelled": silent}, "none of the 1 clips has a sound"),
        ({"unlabelled": home / "nowhere"}, "no clip or folder .*nowhere"),
        ({"unlabelled": folder, "lam": 0.5}, "--unlabelled chooses lam, so --lam 0.5 cannot be had too"),
        ({"unlabelled": folder, "vector": "none"}, "--unlabelled needs a vector"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            call(tiny, "bad", **({"vector": tau} | more))
        assert len(str(raised.value).splitlines()) == 1 and not (home / "bad").exists()


def test_real_clips_prove_it_choose_lam_and_train_a_rival(tiny, home, monkeypatch):
    monkeypatch.setattr(recipe, "LAM_GRID", [0.0, 0.5, 1.0])
    tau = vector_of(tiny, home / "tau")
    devel, real = clips(home, "devel", SAID, 7), clips(home, "mine", SAID[1:], 70)
    found = call(tiny, "model", vector=tau, lam="devel", devel=devel, real=real)
    assert found.lam in recipe.LAM_GRID and "the very clips of --devel" in found.lam_how
    assert found.wer is not None and found.changes is not None
    assert list(zip(found.wer.model, found.wer.context, strict=True)) == [
        ("pretrained", "30 s"), ("syn_target", "clip"), ("syn_target", "30 s"), ("adapted", "clip"), ("adapted", "30 s"),
        ("joint", "clip"), ("joint", "30 s"),
    ]  # fmt: skip
    assert set(found.wer.n_utterances) == {3} and set(found.wer.n_words) == {8}
    assert list(zip(found.changes.model, found.changes.baseline, strict=True)) == list(proof.COMPARED)
    rows = pd.read_csv(found.path / "devel.csv", keep_default_na=False)
    assert len(rows) == 7 * 3 and (rows.errors == rows.substitutions + rows.deletions + rows.insertions).all()
    card = (found.path / "README.md").read_text(encoding="utf-8")
    assert "3 clips, 8 words; 1 of the clips say a text that was trained on" in card and "the very clips" in card
    report = (found.path / "report.md").read_text(encoding="utf-8")
    assert "| joint | adapted |" in report and "- gained " in report and "2 real ones" in report
    joint = checkpoints.read_lineage(found.path / "joint")
    assert joint and joint.speech == "real+pico"
    before = artifacts(home)
    call(tiny, "model", vector=tau, lam="devel", devel=devel, real=real, overwrite=True)
    assert artifacts(home) == before
    with pytest.raises(UserError, match=r"the clip 0.wav of --devel is 0.wav of --real too"):
        call(tiny, "other", devel=devel, real=devel)


def test_a_domain_of_devel_whose_texts_all_stand_in_another_is_refused(tiny, home):
    devel = clips(home, "devel", [SAID[0], SAID[0], SAID[1]], 7, ["ajeno", "animales", "ajeno"])
    with pytest.raises(UserError, match=r"--devel: of 1 clips of animales none can be scored, see .*dropped.csv"):
        call(tiny, "model", devel=devel)
    assert not (home / "model").exists()


def test_real_clips_in_another_language_are_told(tiny, home, capsys):
    said = ["what would you like to do with this one", "they are not what he was looking for"]
    english = clips(home, "english", said, 7)
    with pytest.raises(UserError, match="of --real too"):
        call(tiny, "other", devel=english, real=english)
    assert capsys.readouterr().out.count("look like 'en', not 'es': is it right?") == 2


def test_a_plain_vector_of_other_weights_or_another_shape_is_refused(tiny, home):
    parent = checkpoints.weights_hash(tiny)
    other = vector_of(tiny, home / "other", parent="0" * 64)
    with pytest.raises(UserError, match="is of other pretrained weights .000000000000. than the backbone"):
        vectorpick.pick_vectors(str(other), tiny, parent, "es", ["pico"], "animales")
    short = checkpoints.load_vector(other)[0]
    short.tensors.pop("model.encoder.conv1.weight")
    checkpoints.save_vector(home / "short", short, Lineage(kind="vector", architecture="w"))
    with pytest.raises(
        UserError, match="short does not fit the backbone: 'model.encoder.conv1.weight' is in the backbone"
    ):
        vectorpick.pick_vectors(str(home / "short"), tiny, parent, "es", ["pico"], "animales")


def test_words_gained_and_lost_are_those_of_the_reference():
    rows = pd.DataFrame({"utterance": ["a", "b"], "reference": ["el perro ladra", "sol"]})
    gained, lost = proof.words_between(
        rows.assign(hypothesis=["el gato ladra", "sol"]), rows.assign(hypothesis=["perro ladra", ""])
    )
    assert dict(gained) == {"perro": 1} and dict(lost) == {"el": 1, "sol": 1}


def test_go_and_no_go():
    known = Lineage(kind="vector", architecture="w")
    made = [PlainVector(Path("tau"), known, 0.6, "guessing", (-20.0, 5.0), (-40.0, -5.0))]
    unsure = [PlainVector(Path("tau"), known, 0.6, "", (-20.0, -2.0), (-40.0, 1.0))]
    assert verdict("auto", made, 0.6, 0.0, None)[0]
    go, reason = verdict("auto", made, 0.9, 0.0, None)
    assert "this one is not; a voice that it has not heard may gain nothing from tau: prove it" in reason
    go, reason = verdict("auto", unsure, 0.6, 0.0, None)
    assert not go and "-40.0 to +1.0 % against pretrained" in reason and "not surely better" in reason
    silent = [PlainVector(Path("tau"), known)]
    go, reason = verdict("auto", silent, 0.5, 0.0, None)
    assert not go and "does not say how adapted compares with pretrained" in reason
    go, reason = verdict("auto", [], 0.0, 0.0, None)
    assert not go and "no vector was found" in reason and "\n" not in reason
    columns = {"model": "adapted", "baseline": "pretrained", "p": 0.01, "gained": 3, "lost": 1}
    assert "with --keep 1 this is pretrained" in verdict("auto", made, 0.6, 1.0, None)[1]
    for lam in (0.0, -1.0, 2.0):
        go, reason = verdict("auto", made, lam, 0.0, None)
        assert not go and f"lam {lam:g} is outside of what was measured" in reason
    harm = [PlainVector(Path("tau"), known, 0.6, "", (2.0, 9.0), (-40.0, -5.0))]
    go, reason = verdict("auto", harm, 0.6, 0.0, None)
    assert not go and "tau made it worse there, call with --vector none" in reason
    go, reason = verdict("auto", made, 0.6, 0.0, None, before=4.0)
    assert not go and "pretrained makes 4.0 % errors on the synthetic speech" in reason
    better = pd.DataFrame([columns | {"relative_change": -30.0, "ci_low": -45.0, "ci_high": -10.0}])
    assert verdict("auto", unsure, 0.6, 0.0, better)[0]
    go, reason = verdict("auto", made, 0.6, 0.0, better.assign(ci_high=2.0))
    assert not go and "[-45.0, +2.0]" in reason and "not surely better" in reason
    go, reason = verdict("auto", made, 0.6, 0.0, better.assign(p=0.25))
    assert not go and "so few clips prove nothing (p 0.25)" in reason
    go, reason = verdict("auto", made, 0.6, 0.0, better.assign(ci_high=2.0), before=3.0)
    assert not go and "pretrained is already good on your real clips (WER 3.0 %)" in reason
    go, reason = verdict(
        "auto", made, 0.6, 0.0, better.assign(relative_change=20.0, ci_low=5.0, ci_high=40.0), before=3.0
    )
    assert not go and "it is surely worse, keep pretrained" in reason
    worse = columns | {"baseline": "syn_target", "relative_change": 20.0, "ci_low": 5.0, "ci_high": 40.0}
    joint = columns | {
        "model": "joint",
        "baseline": "adapted",
        "relative_change": -9.0,
        "ci_low": -15.0,
        "ci_high": -2.0,
    }
    go, reason = verdict("auto", made, 0.6, 0.0, pd.concat([better, pd.DataFrame([worse, joint])]))
    assert go and "tau makes it worse: call with --vector none" in reason and "joint/ is surely better still" in reason
    both = [*made, PlainVector(Path("tau"), known, 0.9, "guessing", (-9.0, -1.0), (-30.0, -9.0))]
    assert vectorpick.choose_lam("auto", made) == Scaling(0.6, "recorded with the vector (chosen by guessing)")
    assert vectorpick.choose_lam("auto", both).lam == 0.75 and "mean of 0.6" in vectorpick.choose_lam("auto", both).how
    go, reason = verdict("auto", both, 0.75, 0.0, None)
    assert (
        go
        and "where each of the vectors alone was made, on clips of its own corpus, WER changed by -40.0 to -5.0 %"
        in reason
    )
    assert vectorpick.choose_lam("0.2", made).lam == 0.2 and vectorpick.choose_lam("auto", []).lam == 0.0


GOOD = {
    "--texts": "animales.txt",
    "--language": "es",
    "--backbone": "{tiny}",
    "--tts": "pico",
    "--out": "out",
    "--vector": "none",
}
BAD = {
    "no file": ({"--texts": "nope.txt"}, "no file nope.txt"),
    "one text": ({"--texts": "one.txt"}, "one.txt has 1 usable text of 1: at least 2 are needed"),
    "unknown TTS": ({"--tts": "bark2"}, "unknown TTS 'bark2': use one of"),
    "TTS twice": ({"--tts": "pico,pico"}, "--tts pico,pico: name one or more TTS, each once"),
    "a language the TTS lacks": ({"--language": "ru"}, "TTS 'pico' does not speak 'ru'"),
    "unknown backbone": ({"--backbone": "nowhere"}, "no backbone 'nowhere': use base or tiny.en"),
    "no vector": ({"--vector": "nope"}, "no task vector at nope"),
    "lam": ({"--lam": "much"}, "lam 'much' is no finite number"),
    "lam below 0": ({"--lam": "-0.5", "--vector": "auto"}, "--lam -0.5: expected 0 or more"),
    "lam of no devel": ({"--lam": "devel", "--vector": "auto"}, "--lam devel needs --devel"),
    "keep": ({"--keep": "1.5"}, "--keep 1.5: expected a share from 0"),
    "takes": ({"--takes": "0"}, "--takes 0: expected 1 or more"),
    "threads": ({"--threads": "100000"}, "--threads 100000: expected 256 at most"),
    "no UTF-8": ({"--texts": "\udce9.txt"}, "is not UTF-8: rename the file"),
    "a long name": ({"--out": "x" * 240}, "has 240 bytes: name an output of 200 at most"),
    "domain": ({"--domain": "a/b"}, "domain 'a/b': expected letters"),
    "devel": ({"--devel": "nope"}, "--devel: no folder nope"),
    "devel without metadata": ({"--devel": "taken"}, "has no metadata.csv"),
    "out exists": ({"--out": "taken"}, "exists already"),
    "out is nowhere to write": ({"--out": "/proc/out"}, "cannot write /proc/out: /proc is no folder that you may write to"),
    "out is below a file": ({"--out": "one.txt/out"}, "is no folder that you may write to"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2_and_makes_nothing(case, tiny, home, capsys):
    more, message = BAD[case]
    (home / "one.txt").write_text("el perro\n")
    (home / "taken").mkdir()
    (home / "taken" / "file").write_text("mine")
    given = [part.format(tiny=tiny) for pair in (GOOD | more).items() for part in pair]
    with pytest.raises(SystemExit) as raised:
        cli.main(["adapt", *given])
    err = capsys.readouterr().err
    assert raised.value.code == 2 and message in err and err.startswith("error: ") and len(err.splitlines()) == 1, err
    assert not (home / "out").exists() and not [p for p in artifacts(home) if "models" in p.parts]


def test_more_texts_than_a_minute_can_speak_ask_first(tiny, home, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "MANY_TEXTS", 4)
    with pytest.raises(UserError, match="5 texts take long .*: call with --yes to go on"):
        call(tiny, "model")
    assert "estimate: 5 clips" in capsys.readouterr().out and not (home / "data" / "synthetic").exists()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    with pytest.raises(UserError, match="stopped before 5 texts were spoken"):
        call(tiny, "model")
    assert call(tiny, "model", yes=True).clips == 5


def test_an_estimate_grows_with_texts_takes_and_tts(tiny):
    few = recipe.estimate(1000, 20, ["pico"], 1, tiny, 2, 0, 0)
    many = recipe.estimate(100_000, 2000, ["pico", "kokoro"], 2, tiny, 2, 10, 10)
    assert (few.clips, many.clips) == (20, 8000) and 1 <= few.minutes < many.minutes and few.megabytes < many.megabytes
    assert np.isfinite(many.minutes)
