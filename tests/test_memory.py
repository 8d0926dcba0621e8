"""A GPU's memory does not suffice: one line that names a setting which exists, and nothing that is finished is lost."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from syn2real_utils import adapt, batchnorm, cli, errors, machine, stages, standalone, stopping
from syn2real_utils.backbones.base import open_backbone
from syn2real_utils.errors import GpuMemoryError, UserError
from syn2real_utils.profile import BackbonePart, TtsPart, load_profile
from syn2real_utils.store import Store
from syn2real_utils.tts import base
from tests import made_ctc, made_tts

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 1 GiB"
ROWS = pd.DataFrame({"utterance": ["a", "b", "c"]})


def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError(FULL)


@pytest.fixture(scope="module")
def asr(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    made = open_backbone(
        made_ctc.snapshot(folder / "tiny", "rotary"), "en", BackbonePart(name="x", precision="float32")
    )
    made.clip = made_ctc.tone(folder / "a.wav", 0.5, 300)
    return made


def one_line(match: str, function, *arguments: object) -> str:
    with pytest.raises(UserError, match=match) as said:
        function(*arguments)
    assert "\n" not in str(said.value)
    return str(said.value)


def test_a_tts_that_does_not_fit_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "device", full)
    part = TtsPart(name="bark", model=str(made_tts.bark(tmp_path / "bark")))
    one_line("TTS 'bark': the GPU's memory does not suffice: use a GPU", base.load_engine, part, Store(tmp_path))


def test_transcribing_names_the_size_that_counts(asr, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "backbone", lambda _: asr)
    monkeypatch.setattr(asr, "transcribe", full)
    rows = ROWS.assign(path=asr.clip)
    profile = load_profile("quickstart", {"evaluation.batch_size": 32})
    for whole, size in ((False, 32), (True, stages.FULL_BATCH)):  # padded to 30 s, fewer clips are heard at once
        one_line(
            rf"transcripts of 3 clips: the GPU's .* lower evaluation.batch_size below {size} \(it is 32\); finished models",
            stages._transcribe, profile, None, rows, None, (0.0,), whole, False, tmp_path / "t.csv",
        )  # fmt: skip
    smallest = load_profile("quickstart", {"evaluation.batch_size": 1})
    said = one_line(
        "transcripts of 3 clips",
        stages._transcribe,
        smallest,
        None,
        rows,
        None,
        (0.0,),
        False,
        False,
        tmp_path / "t.csv",
    )
    assert "lower" not in said and machine.LARGER in said


def test_early_stopping_and_batchnorm_name_their_own_setting(asr, monkeypatch):
    judge = stopping.Devel(asr, ROWS.assign(path=asr.clip), 16)
    monkeypatch.setattr(asr, "transcribe", full)
    one_line("the devel part: .* lower evaluation.batch_size below 16", judge, asr.load())
    profile = load_profile("quickstart", {"backbone.batchnorm": "re-estimate", "training.batch_size": 8})
    monkeypatch.setattr(batchnorm, "speech", lambda *_: ROWS.assign(path=asr.clip))
    monkeypatch.setattr(asr, "stacked", full)
    settle = batchnorm.settler(profile, None, asr)
    one_line("BatchNorm statistics: .* lower training.batch_size below 8", settle, asr.load())


def test_commands_without_a_profile_name_no_setting_of_one(tmp_path, monkeypatch, capsys):
    def no_memory(_: object) -> None:
        raise GpuMemoryError("lower training.batch_size", "fine-tune on pico mine")

    monkeypatch.setattr(adapt, "_make", no_memory)
    (tmp_path / "texts.txt").write_text("un perro\nun gato\n")
    said = one_line(
        "fine-tune on pico mine: the GPU's memory does not suffice: take a smaller backbone", _adapt, tmp_path
    )
    assert "training." not in said and "what is finished is kept" in said
    monkeypatch.setattr(standalone, "evaluate", full)
    with pytest.raises(SystemExit) as raised:
        cli.main(["evaluate", "base", str(tmp_path), "-o", str(tmp_path / "rows.csv")])
    err = capsys.readouterr().err
    assert (
        raised.value.code == 2 and err.startswith("error: the GPU's memory does not suffice") and err.count("\n") == 1
    )


def _adapt(folder) -> None:
    adapt.adapt(folder / "texts.txt", "es", "base", ["pico"], folder / "out", vector="none")


def test_other_faults_of_torch_stay_faults():
    with pytest.raises(RuntimeError, match="sizes differ"), machine.enough_memory("a"):
        raise RuntimeError("sizes differ")
    for said in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"):
        with pytest.raises(GpuMemoryError), machine.enough_memory("a"):
            raise RuntimeError(said)


def test_a_kernel_tells_every_kind_of_the_users_errors():
    """notebook.py knows them by name, from errors.py: one that is made elsewhere would be shown as a fault of ours."""
    package = Path(errors.__file__).parent
    made = {path.name for path in package.rglob("*.py") if "(UserError):" in path.read_text(encoding="utf-8")}
    assert made == {"errors.py"}
