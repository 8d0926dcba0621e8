"""Early stopping: the checkpoint with the lowest WER on real speech of the target's devel part (protocol `paper`)."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from syn2real_utils import machine
from syn2real_utils.backbones.base import Backbone
from syn2real_utils.backbones.clips import Clips
from syn2real_utils.errors import UserError
from syn2real_utils.evaluation import score
from syn2real_utils.profile import EarlyStoppingPart
from syn2real_utils.progress import say
from syn2real_utils.statistics import corpus_wer
from syn2real_utils.store import write_text_atomic

Judge = Callable[[torch.nn.Module], float]  # WER of a model in percent
HISTORY = "stopping.json"


class Devel:
    """A judge: WER on clips of the devel part, both sides normalised as in every score."""

    def __init__(self, backbone: Backbone, rows: pd.DataFrame, batch_size: int):
        self.backbone, self.rows, self.batch_size = backbone, rows, batch_size
        self._clips: Clips | None = None  # of several processes only the first needs them

    def __call__(self, model: torch.nn.Module) -> float:
        """In percent."""
        self._clips = self._clips or Clips.of(self.backbone, self.rows.path)
        with machine.enough_memory("the devel part", machine.lower("evaluation.batch_size", self.batch_size)):
            said = self.backbone.transcribe(model, self._clips, self.batch_size)
        return corpus_wer(score(self.rows, said, self.backbone.language))


class EarlyStopping(TrainerCallback):
    """Judges a model every so many steps and at the end, keeps the best, and ends a fine-tune that gets no better.

    Of several processes the first judges for all, so that they end together.
    """

    def __init__(self, part: EarlyStoppingPart, judge: Judge, work: Path):
        """Keep the best weights and what was judged in the folder `work`, where a fine-tune that is resumed finds them."""
        self.part, self.judge, self.work = part, judge, work
        self.history: list[tuple[int, float]] = []  # step, WER

    def on_train_begin(self, args, state, control, **kwargs):
        """Forget what was judged after the checkpoint that a killed call left: it is judged again."""
        file = self.work / HISTORY
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() and state.global_step else []
        self.history = [(step, wer) for step, wer in told if step <= state.global_step]
        if self.history and not self._weights().is_file():
            raise UserError(
                f"{self.work} lacks {self._weights().name}, its best weights so far: delete the folder and call again"
            )
        control.should_training_stop = self._is_over()  # it was, when the call was killed

    def on_save(self, args, state, control, **kwargs):
        """A checkpoint is there, from which a killed fine-tune goes on: what was the best before is needed no more."""
        if not self.history or not state.is_world_process_zero:
            return
        for file in self.work.glob("best-*.safetensors"):
            if file != self._weights():
                file.unlink()

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Judge the model when it is time."""
        step = state.global_step
        if step % self.part.steps and step < state.max_steps:
            return
        several = torch.distributed.is_initialized()
        first = not several or torch.distributed.get_rank() == 0
        model.eval()
        wer = self.judge(model) if first else 0.0
        model.train()
        if several:
            told = torch.tensor(wer, dtype=torch.float64, device=next(model.parameters()).device)
            torch.distributed.broadcast(told, 0)
            wer = told.item()
        if first:
            self._keep(step, wer, model)
        self.history.append((step, wer))
        if self._is_over():
            control.should_training_stop = True

    def _is_over(self) -> bool:
        """Whether nothing was better for as long as patience lasts."""
        rates = [rate for _, rate in self.history]
        return bool(rates) and len(rates) - 1 - rates.index(min(rates)) >= self.part.patience

    def _keep(self, step: int, wer: float, model: torch.nn.Module) -> None:
        if not self.history or wer < min(rate for _, rate in self.history):
            self.work.mkdir(parents=True, exist_ok=True)
            file = self._file(step)
            partial = file.with_suffix(".partial")
            save_file({name: t.detach().cpu().clone() for name, t in model.state_dict().items()}, partial)
            partial.replace(file)
        write_text_atomic(self.work / HISTORY, json.dumps([*self.history, (step, wer)]))

    def restore(self, model: torch.nn.Module, into: Path) -> None:
        """Give the model its best weights, and tell the folder `into` what was judged."""
        step, wer = self._best()
        say(f"  kept step {step} of {self.history[-1][0]}: WER {wer:.1f} on the real devel part")
        model.load_state_dict(load_file(self._weights()))
        told = {"step": step, "wer": wer, "history": self.history}
        write_text_atomic(into / HISTORY, json.dumps(told) + "\n")

    def _best(self) -> tuple[int, float]:
        return min(self.history, key=lambda judged: judged[1])

    def _weights(self) -> Path:
        """Of the best step."""
        return self._file(self._best()[0])

    def _file(self, step: int) -> Path:
        return self.work / f"best-{step}.safetensors"
