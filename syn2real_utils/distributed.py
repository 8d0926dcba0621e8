"""One fine-tune in several processes, one for each GPU (on a machine without any, on its cores), through accelerate.

`finetune` writes the job into the model's folder and lets torch's launcher start this module in each process; there
transformers.Trainer finds the others through accelerate. Every update sees the same clips whatever the number of
processes, so it is no part of a model's key; sums are rounded in another order.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from syn2real_utils import machine, signals
from syn2real_utils.backbones.base import Backbone, Example, open_backbone
from syn2real_utils.backbones.clips import Clips, Examples, as_bytes
from syn2real_utils.errors import UserError
from syn2real_utils.profile import BackbonePart, TrainingPart
from syn2real_utils.progress import say
from syn2real_utils.stopping import Devel, Judge
from syn2real_utils.store import write_text_atomic
from syn2real_utils.training import fit, less_memory

CLIPS, JOB, REFUSED = "clips.f32", "job.json", "refused.txt"


def finetune(
    backbone: Backbone,
    examples: Sequence[Example],
    part: TrainingPart,
    seed: int,
    threads: int,
    what: str,
    into: Path,
    start: Path | None = None,
    judge: Judge | None = None,
) -> None:
    """`training.finetune` in `part.processes` processes of `threads` threads each.

    Raises:
        UserError: the machine has fewer GPUs, or what a process refuses.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < part.processes:
        raise UserError(f"training.processes is {part.processes}, this machine has {gpus} GPU: lower it to {gpus}")
    job = into / "job"
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir(parents=True)
    try:
        settings = {"part": part.model_dump(), "seed": seed, "threads": threads, "what": what}
        settings |= {"start": str(start) if start else None, "devel": _devel(judge)}
        _write(job, backbone, examples, settings)
        say(f"{what}: {part.processes} processes")
        launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={part.processes}")
        command = [sys.executable, *launcher, "-m", __name__, str(job)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, preexec_fn=signals.end_with_parent)
        if (job / REFUSED).is_file():
            raise UserError((job / REFUSED).read_text(encoding="utf-8"))
        if done.returncode:
            raise RuntimeError(f"{what}: {part.processes} processes failed:\n{done.stderr[-4000:]}")
    finally:
        shutil.rmtree(job, ignore_errors=True)


def main(job: Path) -> None:
    """One of the processes."""
    signals.end_with_parent()
    settings, part = _read(job)
    backbone = open_backbone(Path(settings["folder"]), settings["language"], BackbonePart(**settings["backbone"]))
    clips = Clips.opened(job / CLIPS, settings["shapes"])
    examples = Examples(clips, [torch.tensor(labels, dtype=torch.long) for labels in settings["labels"]])
    try:
        with machine.enough_memory(settings["what"], less_memory(part)):
            start, devel = Path(settings["start"]) if settings["start"] else None, settings["devel"]
            how = settings["seed"], settings["threads"], settings["what"]
            judge = Devel(backbone, pd.DataFrame(devel["rows"]), devel["batch_size"]) if devel else None
            fit(backbone, examples, part, *how, job.parent, start=start, judge=judge)
    except UserError as error:
        write_text_atomic(job / REFUSED, str(error))
        raise SystemExit(2) from error


def _write(job: Path, backbone: Backbone, examples: Sequence[Example], settings: dict[str, Any]) -> None:
    settings |= {"shapes": [], "labels": []}
    with open(job / CLIPS, "wb") as clips:
        for example in examples:
            clips.write(as_bytes(example.features))
            settings["shapes"].append(example.features.shape)
            settings["labels"].append(example.labels.tolist())
    settings |= {"folder": str(backbone.folder), "language": backbone.language, "backbone": backbone.part.model_dump()}
    write_text_atomic(job / JOB, json.dumps(settings))


def _devel(judge: Judge | None) -> dict[str, Any] | None:
    """What makes the judge again in another process."""
    if judge is None:
        return None
    assert isinstance(judge, Devel)
    columns = ["utterance", "text_id", "fold", "duration", "transcription"]
    rows = judge.rows[columns].to_dict("list") | {"path": [str(path) for path in judge.rows.path]}
    return {"rows": rows, "batch_size": judge.batch_size}


def _read(job: Path) -> tuple[dict[str, Any], TrainingPart]:
    settings = json.loads((job / JOB).read_text(encoding="utf-8"))
    return settings, TrainingPart(**settings["part"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
