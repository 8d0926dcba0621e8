"""Decoding against transformers.pipeline and faster-whisper, with the same weights, on clips under 5 s."""

import tempfile
from pathlib import Path

import torch

from syn2real_utils import exports
from syn2real_utils.bench import material
from syn2real_utils.bench.base import Goal, Measured, Side, check_equal, on_the_processor, timed
from syn2real_utils.bench.runtimes import transcribe_with

BATCH = 32
GATE = 1.0  # points of WER
GOALS = {"transformers": 10.0, "faster-whisper": 2.0, "faster-whisper-int8": 2.0}
QUANTIZATION = {"faster-whisper": "float32", "faster-whisper-int8": "int8"}


def measure() -> Measured:
    """Transcribe the same clips with the same weights: ours with the context cut to the clip, the others as they are."""
    on_the_processor("decode")
    torch.set_num_threads(material.profile().threads)
    asr, folder, rows = material.backbone(), material.real_source(), material.unseen_rows()
    model, language = asr.load(folder), material.profile().corpus.language

    def ours() -> list[str]:
        return asr.transcribe(model, [asr.features(path) for path in rows.path], BATCH)

    side, texts = timed("ours", ours, len(rows))
    mine = Side("ours", side.seconds, side.repeats, {"wer": material.wer(rows, texts), "precision": asr.precision})
    peers, heard_by = [], {}
    with tempfile.TemporaryDirectory(prefix="syn2real-") as work:
        for name in GOALS:
            heard = transcribe_with(name, _form(name, folder, Path(work)), list(rows.path), language, warm=True)
            check_equal("clips", len(texts), len(heard.texts))
            peers.append(Side(name, heard.seconds / len(rows), more={"wer": material.wer(rows, heard.texts)}))
            heard_by[name] = heard.texts
    goals = []
    for peer in peers:
        ratio, wanted = peer.seconds / mine.seconds, GOALS[peer.name]
        goals.append(Goal(f"at least {wanted:g} x {peer.name}", round(ratio, 2), ratio >= wanted))
    gap = material.context_gap(rows, texts, heard_by["transformers"])
    goals.append(
        Goal(
            "WER not surely worse than the pipeline's: its WER less ours, upper end of the interval, at least 0",
            gap["ci_high"],
            gap["ci_high"] >= 0,
        )
    )
    goals.append(
        Goal(f"WER within {GATE:g} point of the pipeline's", gap["difference"], abs(gap["difference"]) <= GATE)
    )
    work_done = {
        "clips": len(rows), "seconds of speech": round(float(rows.duration.sum()), 1), "batch of ours": BATCH,
        "WER of the pipeline less ours, with its interval": gap,
    }  # fmt: skip
    return Measured("clip, from the wave to the text (ours: from the file)", mine, peers, goals, work_done)


def _form(name: str, folder: Path, work: Path) -> Path:
    """The model in the form that a runtime opens."""
    if name not in QUANTIZATION:
        return folder
    exports.export(folder, "ctranslate2", work / name, quantization=QUANTIZATION[name])
    return work / name
