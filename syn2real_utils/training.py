"""Fine-tune a backbone with transformers.Trainer; clips of like length share a batch."""

import contextlib
import json
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    WhisperForConditionalGeneration,
)
from transformers.trainer_utils import get_last_checkpoint

from syn2real_utils import machine
from syn2real_utils.backbones.context import short_context
from syn2real_utils.backbones.whisper import Example, Whisper
from syn2real_utils.profile import TrainingPart
from syn2real_utils.progress import Progress
from syn2real_utils.stopping import EarlyStopping, Judge

POOL = 8  # batches whose clips are sorted by length together


def plan_batches(
    lengths: Sequence[int], batch_size: int, epochs: float, seed: int, most: int | None = None
) -> list[list[int]]:
    """The batches of a whole fine-tune as lists of indices; a pure function of its arguments.

    Each epoch shuffles the clips, sorts them by length within pools of `POOL` batches, and shuffles the batches.
    A fraction of an epoch ends it early, and so do `most` batches.
    """
    dice = random.Random(seed)
    plan: list[list[int]] = []
    per_epoch = -(-len(lengths) // batch_size)
    wanted = min(max(1, round(per_epoch * epochs)), most or sys.maxsize)
    while len(plan) < wanted:
        order = list(range(len(lengths)))
        dice.shuffle(order)
        pool = batch_size * POOL
        pooled = [
            i for at in range(0, len(order), pool) for i in sorted(order[at : at + pool], key=lambda i: lengths[i])
        ]
        batches = [pooled[at : at + batch_size] for at in range(0, len(pooled), batch_size)]
        dice.shuffle(batches)
        plan += batches
    return plan[:wanted]


def finetune(
    backbone: Whisper,
    examples: Sequence[Example],
    part: TrainingPart,
    seed: int,
    threads: int,
    what: str,
    into: Path,
    callbacks: Sequence[TrainerCallback] = (),
    start: Path | None = None,
    judge: Judge | None = None,
) -> None:
    """Fine-tune `pretrained` on `examples` and save it, with tokenizer and settings, into the folder `into`.

    Goes on from the last of its own checkpoints when a killed call left one there (`part.save_steps`).

    Args:
        backbone: features, tokens and the pretrained weights.
        examples: the clips.
        part: how.
        seed: of the order of the clips.
        threads: of the model; the bytes depend on it.
        what: for the progress.
        into: folder to fill.
        callbacks: more of the Trainer's.
        start: model to begin with; None: `pretrained`.
        judge: WER of a model, by which `part.early_stopping` keeps the best.
    """
    torch.set_num_threads(threads)
    plan = plan_batches([e.features.shape[-1] for e in examples], part.batch_size, part.epochs, seed, part.max_steps)
    work = into / "checkpoints"
    stopping = [EarlyStopping(part.early_stopping, judge, work)] if part.early_stopping and judge else []
    model = backbone.load(start)
    model.train()
    model.config.use_cache = False
    trainer = _CutContextTrainer(
        model=model,
        args=_arguments(part, backbone.precision == "bfloat16", seed, work),
        train_dataset=[[examples[i] for i in batch] for batch in plan],  # one item is one whole batch
        data_collator=lambda items: backbone.collate(*items),
        callbacks=[_Report(what, len(plan)), *stopping, *callbacks],
    )
    trainer.remove_callback(PrinterCallback)  # ours tells the progress
    with _same_bytes():
        trainer.train(resume_from_checkpoint=_last_checkpoint(work))
    for best in stopping:
        best.restore(model, into)
    shutil.rmtree(work, ignore_errors=True)
    model.config.use_cache = True
    save(backbone, model, into)
    del trainer, model  # they refer to each other: without a collection two models and their optimisers meet in memory
    machine.give_back_memory()


@contextlib.contextmanager
def _same_bytes() -> Iterator[None]:
    """Sum in a fixed order: on two threads the gradient of the embeddings else differed in its last bits from call to call."""
    before, settings = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic
    filled = settings.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)  # a GPU has no such form of every operation
    settings.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # takes time, and shows only faults of ours
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def _last_checkpoint(work: Path) -> str | None:
    """The last whole checkpoint of a killed call; one that was cut short is deleted."""
    for folder in work.glob("checkpoint-*"):
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))  # what Trainer writes last
        except (OSError, ValueError):
            shutil.rmtree(folder)
    return get_last_checkpoint(str(work)) if work.is_dir() else None


def save(backbone: Whisper, model: WhisperForConditionalGeneration, into: Path) -> None:
    """Save a model as a folder that `transformers.pipeline` opens."""
    model.save_pretrained(into)
    for file in backbone.folder.glob("*.json"):
        if file.name not in ("config.json", "done.json", "lineage.json"):
            shutil.copyfile(file, into / file.name)


class _CutContextTrainer(Trainer):
    """A Trainer whose encoder context is that of the batch."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        with short_context(self.accelerator.unwrap_model(model), inputs["input_features"]) as heard:
            return super().compute_loss(model, inputs | {"input_features": heard}, *args, **kwargs)


class _Report(TrainerCallback):
    """Progress of a fine-tune."""

    def __init__(self, what: str, steps: int):
        self.progress = Progress(what, steps)

    def on_step_end(self, args, state, control, **kwargs):
        self.progress.step()

    def on_train_end(self, args, state, control, **kwargs):
        self.progress.__exit__()


def _arguments(part: TrainingPart, bfloat16: bool, seed: int, work: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=1,  # an item of the data set is a whole batch
        num_train_epochs=1,  # the plan holds all epochs
        train_sampling_strategy="sequential",
        learning_rate=part.learning_rate,
        warmup_steps=part.warmup_ratio,  # below 1: a share of the steps
        weight_decay=part.weight_decay,
        max_grad_norm=part.max_grad_norm,
        bf16=bfloat16,
        optim="adamw_torch_fused",
        seed=seed,
        save_strategy="steps" if part.save_steps else "no",
        save_steps=part.save_steps or 500,
        save_total_limit=1,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )
