"""A sweep over lam in one process against the stock way: for each lam load, merge, save, load again, pipeline."""

import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

from syn2real_utils import checkpoints, results, stages
from syn2real_utils.backbones.whisper import Whisper
from syn2real_utils.bench import material
from syn2real_utils.bench.base import Goal, Measured, Side, check_equal, on_the_processor
from syn2real_utils.bench.runtimes import transcribe_with
from syn2real_utils.evaluation import sweep
from syn2real_utils.progress import say
from syn2real_utils.tensorfiles import WEIGHTS
from syn2real_utils.training import save
from syn2real_utils.vectors import TaskVector

CLIPS, BATCH = 48, 32
GOAL = 30.0
GATE = 1.0  # points of WER
CHECKED = (0.1, 0.5, 1.0)  # the lam at which both sides' weights are compared
TOLERANCE = 1e-6  # of a weight, of one below 1 absolute; both add in float32, whose last bit at 20 is 2e-6


def measure() -> Measured:
    """The 11 lam of the quickstart on the same clips, from the checkpoints on disk to the transcripts."""
    profile, asr = material.profile(), material.backbone()
    on_the_processor("lam-sweep")
    torch.set_num_threads(profile.threads)
    target, tts, seed = profile.targets[0], profile.tts[-1].name, profile.seeds[0]
    base = stages.syn_target(profile, tts, target, seed, stages.folds(profile)[0]).path
    ((real, syn),) = stages.vector_models(profile, results.spec(profile, target, tts, seed))
    rows, lams = material.unseen_rows(CLIPS), profile.evaluation.lam_grid
    paths = [Path(path) for path in rows.path]
    texts, took = _ours(asr, base, real.path, syn.path, lams, paths)
    theirs, peer_took = _stock(asr, base, real.path, syn.path, lams, paths)
    check_equal("transcripts", [len(texts[lam]) for lam in lams], [len(theirs[lam]) for lam in lams])
    for lam in CHECKED:
        _check_weights(base, real.path, syn.path, lam)
    wer = {lam: (material.wer(rows, texts[lam]), material.wer(rows, theirs[lam])) for lam in lams}
    mine, yours = ({"wer": {lam: pair[side] for lam, pair in wer.items()}} for side in (0, 1))
    ours = Side("ours", took / len(lams), more=mine)
    stock = Side("load, merge, save, load, pipeline", peer_took / len(lams), more=yours)
    ratio, apart = stock.seconds / ours.seconds, max(abs(one - other) for one, other in wer.values())
    work = {"lam": lams, "clips": len(rows), "parameters": sum(t.numel() for t in load_file(base / WEIGHTS).values())}
    goals = [
        Goal(f"at least {GOAL:g} x", round(ratio, 2), ratio >= GOAL),
        Goal(f"WER at each lam within {GATE:g} point of the pipeline's", round(apart, 2), apart <= GATE),
    ]
    return Measured("lam", ours, [stock], goals, work)


def _ours(
    asr: Whisper, base: Path, real: Path, syn: Path, lams: list[float], clips: list[Path]
) -> tuple[dict[float, list[str]], float]:
    start = time.perf_counter()
    tau = TaskVector.between(checkpoints.load_state(syn), checkpoints.load_state(real))
    texts = sweep(asr, asr.load(base), tau, lams, [asr.features(clip) for clip in clips], BATCH)
    return texts, time.perf_counter() - start


def _stock(
    asr: Whisper, base: Path, real: Path, syn: Path, lams: list[float], clips: list[Path]
) -> tuple[dict[float, list[str]], float]:
    texts, start = {}, time.perf_counter()
    one, other = load_file(syn / WEIGHTS), load_file(real / WEIGHTS)
    tau = {key: value - one[key] for key, value in other.items()}
    for lam in lams:
        with tempfile.TemporaryDirectory(prefix="syn2real-") as folder:
            save(asr, _merge(base, tau, lam), Path(folder))
            texts[lam] = transcribe_with("transformers", Path(folder), clips, asr.language).texts
        say(f"  load, merge, save, load, pipeline: lam {lam:g}, {time.perf_counter() - start:.0f} s")
    return texts, time.perf_counter() - start


def _merge(base: Path, tau: dict[str, torch.Tensor], lam: float) -> WhisperForConditionalGeneration:
    model = WhisperForConditionalGeneration.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key in tau:  # tied keys stand in the file once
                tensor.add_(tau[key], alpha=lam)
    return model


def _check_weights(base: Path, real: Path, syn: Path, lam: float) -> None:
    """Both sides' weights at one lam, to within float32's rounding."""
    one, other = load_file(syn / WEIGHTS), load_file(real / WEIGHTS)
    theirs = _merge(base, {key: value - one[key] for key, value in other.items()}, lam).state_dict()
    ours = TaskVector.between(one, other).apply(load_file(base / WEIGHTS), lam)
    check_equal(
        f"weights at lam {lam:g}", max(_apart(value, theirs[key]) for key, value in ours.items()) <= TOLERANCE, True
    )


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two tensors of one shape, of weights above 1 as a part of them."""
    return float(((one - other).abs() / other.abs().clamp(min=1)).max())
