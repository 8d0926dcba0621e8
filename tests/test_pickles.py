"""No pickle is read, but those that are published at a pinned commit, once: they become safetensors that say the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from syn2real_utils import audio, hubnames, pickles
from syn2real_utils.backbones import sources
from syn2real_utils.backbones.ctc import CTC
from syn2real_utils.errors import UserError
from syn2real_utils.profile import BackbonePart, TtsPart
from syn2real_utils.store import Store
from syn2real_utils.tts import base, snapshots, speakers
from tests import made_ctc, made_tts
from tests.hub_standin import Repository
from tests.test_hub import there  # noqa: F401

FOLDERS = {"bark": ("",), "speecht5": ("", "speecht5_hifigan")}  # with weights
CONFORMER = "facebook/wav2vec2-conformer-rope-large-960h-ft"
VOICES = {"bark": "en_speaker_0", "speecht5": "slt"}


class Code:
    """What a pickle that runs code looks like."""

    def __reduce__(self):
        return (print, ("code ran",))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    made_tts.encoder(folder / "encoder")
    return {"bark": made_tts.bark(folder / "bark"), "speecht5": made_tts.speecht5(folder / "speecht5")} | {
        "encoder": folder / "encoder"
    }


def published(folder: Path) -> None:
    """Turn safetensors into the pickle that is published: old names of weight norms, tied tensors in one memory, old buffers."""
    state = load_file(folder / "model.safetensors")
    for key in list(state):
        for new, old in (
            ("parametrizations.weight.original0", "weight_g"),
            ("parametrizations.weight.original1", "weight_v"),
        ):
            if key.endswith(new):
                state[key.replace(new, old)] = state.pop(key)
    for number in range(8):  # of Bark: each embedding is the head before it
        head, embedding = (
            f"fine_acoustics.lm_heads.{number}.weight",
            f"fine_acoustics.input_embeds_layers.{number + 1}.weight",
        )
        if head in state or embedding in state:
            state[head] = state[embedding] = state.get(head, state.get(embedding))
    if "semantic.position_embeds_layer.weight" in state:
        state["semantic.position_ids"] = torch.arange(4)[None]  # a buffer of before, which no model asks for
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def pickled(models: dict[str, Path], name: str, into: Path) -> Path:
    shutil.copytree(models[name], into)
    for inside in FOLDERS[name]:
        published(into / inside)
    return into


def put(hub, name: str, folder: Path) -> None:
    """A folder as a repository of the stand-in, at its pinned commit, or at `main`."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.repositories[name] = Repository(False, {hubnames.pinned(name) or "1" * 40: files})


def said(name: str, part: TtsPart, store: Store) -> np.ndarray:
    return base.load_engine(part, store).speak("hello there", VOICES[name], "en", 3)[0]


def test_a_published_bark_becomes_safetensors_once_and_says_the_same(models, there, tmp_path, capsys):  # noqa: F811
    put(there, snapshots.BARK, pickled(models, "bark", tmp_path / "bark"))
    store = Store(tmp_path)
    ours = said("bark", TtsPart(name="bark"), store)
    assert len(ours) and np.array_equal(ours, said("bark", TtsPart(name="bark", model=str(models["bark"])), store))
    (kept,) = [path for path in (tmp_path / "data/tts").iterdir() if path.is_dir()]
    assert (kept / "model.safetensors").is_file() and not list(kept.rglob("*.bin"))
    asked = len(there.requests)
    assert np.array_equal(ours, said("bark", TtsPart(name="bark"), store)) and len(there.requests) == asked
    assert capsys.readouterr().out.count("making model.safetensors of pytorch_model.bin") == 1


def test_a_published_speecht5_and_its_vocoder_say_the_same(models, there, tmp_path, monkeypatch):  # noqa: F811
    folder = pickled(models, "speecht5", tmp_path / "speecht5")
    shutil.move(folder / "speecht5_hifigan", tmp_path / "vocoder")
    put(there, snapshots.VOCODER, tmp_path / "vocoder")
    put(there, snapshots.SPEECHT5, folder)
    put(there, snapshots.ARCTIC, folder / "cmu-arctic-xvectors")
    monkeypatch.setattr(speakers, "ARCTIC_SPEAKERS", made_tts.SPEAKERS)
    store, own = Store(tmp_path), str(models["speecht5"])
    ours = said("speecht5", TtsPart(name="speecht5"), store)
    assert len(ours) and np.array_equal(ours, said("speecht5", TtsPart(name="speecht5", model=own), store))


def test_a_published_encoder_gives_the_same_x_vectors(models, there, tmp_path):  # noqa: F811
    (tmp_path / "pickled").mkdir()
    state = load_file(models["encoder"] / "embedding_model.safetensors")
    torch.save(state, tmp_path / "pickled/embedding_model.ckpt")
    torch.save({"weight": Code()}, tmp_path / "pickled/classifier.ckpt")  # published beside it; nobody needs it
    put(there, snapshots.XVECTOR, tmp_path / "pickled")
    shutil.copytree(models["encoder"], tmp_path / "here" / "spkrec-xvect-voxceleb")
    wave = np.random.default_rng(0).normal(0, 0.1, audio.SAMPLE_RATE * 2).astype(np.float32)
    ours, theirs = (speakers.Encoder(Store(tmp_path), model)(wave) for model in (None, str(tmp_path / "here")))
    assert np.array_equal(ours, theirs)


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        wave = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 8000)).astype(np.float32))
        return CTC(folder, "en", BackbonePart(name="x", precision="float32")).load()(wave).logits


def test_a_backbone_that_is_published_as_a_pickle_hears_the_same(there, tmp_path):  # noqa: F811
    safe = made_ctc.snapshot(tmp_path / "safe", "rotary")
    pickled = shutil.copytree(safe, tmp_path / "pickled")
    published(pickled)
    put(there, CONFORMER, pickled)
    store = Store(tmp_path)
    found = sources.resolve(CONFORMER, store)
    assert torch.equal(logits(found), logits(safe)) and not list(found.rglob("*.bin"))
    asked = len(there.requests)
    assert sources.resolve(CONFORMER, store) == found and len(there.requests) == asked
    there.repositories[CONFORMER].commits["1" * 40] = there.repositories[CONFORMER].commits[hubnames.pinned(CONFORMER)]
    with pytest.raises(UserError, match=r"does not pin its commit 1{40}, so its pickles are not read: use base or"):
        sources.resolve(f"{CONFORMER}@{'1' * 40}", store)
    with pytest.raises(UserError, match=r"has its weights only in pytorch_model.bin, pickles, .*torch.load\('pytorch"):
        sources.resolve(str(pickled), store)


def test_no_pickle_is_fetched_where_safetensors_are_beside_it(there, tmp_path):  # noqa: F811
    folder = made_ctc.snapshot(tmp_path / "both", "rotary")
    torch.save({"weight": Code()}, folder / "pytorch_model.bin")
    put(there, CONFORMER, folder)
    assert torch.equal(logits(sources.resolve(CONFORMER, Store(tmp_path))), logits(folder))
    assert not any("pytorch_model.bin" in request for request in there.requests)


def test_code_in_a_published_pickle_is_not_run(models, there, tmp_path, capsys):  # noqa: F811
    folder = pickled(models, "bark", tmp_path / "bark")
    for content in ({"weight": Code()}, {"weight": "no tensor"}):
        torch.save(content, folder / "pytorch_model.bin")
        put(there, snapshots.BARK, folder)
        with pytest.raises(UserError, match="cannot open the model in .*: fetch it again"):
            pickles.unpickle(folder / "pytorch_model.bin", tmp_path / "safe.safetensors")
    with pytest.raises(UserError, match="cannot open the model in .*: fetch it again"):
        base.load_engine(TtsPart(name="bark"), Store(tmp_path))
    assert "code ran" not in capsys.readouterr().out and not list(tmp_path.rglob("done.json"))


def test_a_name_that_is_not_pinned_is_read_from_safetensors_alone(models, there, tmp_path):  # noqa: F811
    put(there, "me/pickled", pickled(models, "bark", tmp_path / "bark"))
    put(there, "me/safe", models["bark"])
    with pytest.raises(
        UserError, match=r"me/pickled has no safetensors, and hubnames.py does not pin its commit 1{40}"
    ):
        base.load_engine(TtsPart(name="bark", model="me/pickled"), Store(tmp_path))
    assert not any("pytorch_model.bin" in request for request in there.requests), "it is not even fetched"
    ours, theirs = (
        said("bark", TtsPart(name="bark", model=m), Store(tmp_path)) for m in ("me/safe", str(models["bark"]))
    )
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["bark", "speecht5"])
def test_a_folder_with_pickles_alone_is_refused_with_what_to_do(name, models, tmp_path, monkeypatch):
    folder = pickled(models, name, tmp_path / name)
    part = TtsPart(name=name, model=str(folder))
    for inside in FOLDERS[name]:
        with pytest.raises(UserError) as refused:
            base.load_engine(part, Store(tmp_path))
        line = str(refused.value)
        assert "\n" not in line and f"{folder / inside} has its weights only in pytorch_model.bin, pickles" in line
        program = line.split("python -c ")[1].strip('"')
        monkeypatch.chdir(folder / inside)
        exec(program, {})
    ours, theirs = (said(name, TtsPart(name=name, model=str(m)), Store(tmp_path)) for m in (folder, models[name]))
    assert np.array_equal(ours, theirs)


def test_a_folder_with_the_encoder_as_pickle_is_refused(tmp_path):
    folder = tmp_path / "spkrec-xvect-voxceleb"
    folder.mkdir()
    for name in ("classifier.ckpt", "embedding_model.ckpt"):
        torch.save({"weight": Code()}, folder / name)
    with pytest.raises(
        UserError, match=r"only in embedding_model.ckpt, classifier.ckpt, .*torch.load\('embedding_model.ckpt'"
    ):
        speakers.Encoder(Store(tmp_path), str(tmp_path))


def test_every_pickle_that_may_be_read_is_pinned():
    for name in (snapshots.BARK, snapshots.SPEECHT5, snapshots.VOCODER, snapshots.XVECTOR, CONFORMER):
        assert len(hubnames.pinned(name) or "") == 40
    here = Path(pickles.__file__).parent
    reading = [
        path.name for path in here.rglob("*.py") for _ in range(path.read_text(encoding="utf-8").count("torch.load("))
    ]
    assert set(reading) == {"pickles.py"}, json.dumps(reading)
