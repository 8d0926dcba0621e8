"""Decoding against transformers.pipeline and faster-whisper, with the same weights, on clips under 5 s.

whisper.cpp hears them too: how fast it is is no goal, that it hears what the others hear is one.
"""

import tempfile
from pathlib import Path

import pandas as pd
import torch

from syn2real_utils import exports
from syn2real_utils.bench import material
from syn2real_utils.bench.base import Goal, Measured, Side, check_equal, on_the_processor, timed
from syn2real_utils.bench.runtimes import transcribe_with
from syn2real_utils.progress import say

BATCH = 32
GATE = 1.0  # points of WER
GOALS = {"transformers": 10.0, "faster-whisper": 2.0, "faster-whisper-int8": 2.0}
# runtime: the format it opens, and the type of the weights there
FORMS = {
    "transformers": None,
    "faster-whisper": ("ctranslate2", "float32"),
    "faster-whisper-int8": ("ctranslate2", "int8"),
    "whisper.cpp": ("ggml", "float16"),
}


def measure() -> Measured:
    """Transcribe the same clips with the same weights: ours with the context cut to the clip, the others as they are."""
    on_the_processor("decode")
    torch.set_num_threads(material.profile().threads)
    asr, folder, rows = material.backbone(), material.real_source(), material.unseen_rows()
    model = asr.load(folder)

    def ours() -> list[str]:
        return asr.transcribe(model, [asr.features(path) for path in rows.path], BATCH)

    side, texts = timed("ours", ours, len(rows))
    mine = Side("ours", side.seconds, side.repeats, {"wer": material.wer(rows, texts), "precision": asr.precision})
    peers, gaps = [], {}
    with tempfile.TemporaryDirectory(prefix="syn2real-") as work:
        for name in FORMS:
            peer, theirs = _peer(name, _form(name, folder, Path(work)), rows)
            check_equal("clips", len(texts), len(theirs))
            peers.append(peer)
            gaps[name] = material.context_gap(rows, texts, theirs)
    work_done = {
        "clips": len(rows), "seconds of speech": round(float(rows.duration.sum()), 1), "batch of ours": BATCH,
        "WER of each less ours, with its interval": gaps,
    }  # fmt: skip
    goals = [*_fast(mine, peers), *_alike(gaps)]
    return Measured("clip, from the wave to the text (ours: from the file)", mine, peers, goals, work_done)


def _peer(name: str, model: Path, rows: pd.DataFrame) -> tuple[Side, list[str]]:
    say(f"  {name}: {len(rows)} clips")
    heard = transcribe_with(name, model, list(rows.path), material.profile().corpus.language, warm=True)
    return Side(name, heard.seconds / len(rows), more={"wer": material.wer(rows, heard.texts)}), heard.texts


def _fast(mine: Side, peers: list[Side]) -> list[Goal]:
    ratios = {peer.name: round(peer.seconds / mine.seconds, 2) for peer in peers}
    return [
        Goal(f"at least {wanted:g} x {name}", ratios[name], ratios[name] >= wanted) for name, wanted in GOALS.items()
    ]


def _alike(gaps: dict[str, dict[str, float]]) -> list[Goal]:
    """The accuracy gate: the model works at 30 s too, wherever it is opened."""
    high = gaps["transformers"]["ci_high"]
    worse = "WER not surely worse than the pipeline's: its WER less ours, upper end of the interval, at least 0"
    within = [
        Goal(f"WER within {GATE:g} point of {name}'s", gap["difference"], abs(gap["difference"]) <= GATE)
        for name, gap in gaps.items()
    ]
    return [Goal(worse, high, high >= 0), *within]


def _form(name: str, folder: Path, work: Path) -> Path:
    """The model in the form that a runtime opens."""
    if (form := FORMS[name]) is None:
        return folder
    exports.export(folder, form[0], work / name, quantization=form[1])
    return work / name
