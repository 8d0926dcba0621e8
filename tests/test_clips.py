"""Features beyond a bound lie in a file: the same models and transcripts, whatever lies where."""

import os

import pytest
import torch

from syn2real_utils import batchnorm, training
from syn2real_utils.backbones import clips as module
from syn2real_utils.backbones.base import open_backbone
from syn2real_utils.backbones.clips import Clips, Examples, as_bytes, lengths
from syn2real_utils.checkpoints import load_state
from syn2real_utils.profile import BackbonePart, TrainingPart
from tests import made_ctc

FEATURES = [torch.randn(3, 4 + i, generator=torch.Generator().manual_seed(i)) for i in range(6)]
BYTES = sum(tensor.nbytes for tensor in FEATURES)
WORDS = ["a dog", "bird", "a cat", "two", "old", "red"]
TRAIN = TrainingPart(epochs=2, batch_size=2, learning_rate=1e-3)


@pytest.mark.parametrize("kept", [0, FEATURES[0].nbytes, FEATURES[0].nbytes + 1, BYTES - 1, BYTES])
def test_what_is_read_is_what_came_wherever_it_lies(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    clips = Clips(iter(FEATURES), kept)
    assert len(clips) == 6 and lengths(clips) == lengths(FEATURES) == [4, 5, 6, 7, 8, 9]
    for _ in range(2):
        for i in (3, 0, 5, 1, 2, 4):
            assert torch.equal(clips[i], FEATURES[i])
    assert torch.equal(clips[-1], FEATURES[5]) and [c.shape for c in clips] == [f.shape for f in FEATURES]
    with pytest.raises(IndexError):
        clips[6]
    assert sum(tensor.nbytes for tensor in clips._kept) <= kept
    assert (clips._file is None) == (kept >= BYTES) and not list(tmp_path.iterdir()), "the file has no name"


def test_a_file_is_opened_again_and_one_cut_short_is_noticed(tmp_path):
    (tmp_path / "f").write_bytes(b"".join(map(as_bytes, FEATURES)))
    clips = Clips.opened(tmp_path / "f", [list(tensor.shape) for tensor in FEATURES])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(clips, FEATURES, strict=True))
    os.truncate(tmp_path / "f", BYTES - 1)
    with pytest.raises(OSError, match="clip 5 are cut short"):
        clips[5]


@pytest.fixture(scope="module")
def asr(tmp_path_factory):
    folder = made_ctc.snapshot(tmp_path_factory.mktemp("ctc") / "rotary", "rotary", hidden_dropout=0.1)
    return open_backbone(folder, "en", BackbonePart(name=str(folder)))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [made_ctc.tone(folder / f"{i}.wav", 0.4 + 0.13 * i, 200 + 40 * i) for i in range(len(WORDS))]


def test_a_model_is_the_same_to_the_bit_wherever_its_clips_lie(asr, paths, tmp_path, monkeypatch):
    found = []
    for name, kept in (("memory", module.KEPT), ("file", 0)):
        examples = Examples(Clips(map(asr.features, paths), kept), [asr.labels(word) for word in WORDS])
        assert (examples.clips._file is None) == (name == "memory")
        torch.manual_seed(0)
        training.finetune(asr, examples, TRAIN, 0, 1, name, tmp_path / name)
        found.append(load_state(tmp_path / name))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
    assert asr.loss(asr.load(), examples, 2) == asr.loss(asr.load(), list(examples), 2)


def test_transcripts_and_statistics_are_the_same_wherever_the_clips_lie(asr, paths):
    plain, filed = [asr.features(path) for path in paths], Clips(map(asr.features, paths), 0)
    model = asr.load()
    assert asr.transcribe(model, filed, 4) == asr.transcribe(model, plain, 4)
    states = []
    for clips in (plain, filed):
        model = asr.load()
        batchnorm.re_estimate(asr, model, clips, 2)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
