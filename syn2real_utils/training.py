"""Fine-tune a backbone with transformers.Trainer; clips of like length share a batch."""

import contextlib
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from syn2real_utils import checkpoints, machine
from syn2real_utils.backbones.base import Backbone, Example
from syn2real_utils.backbones.clips import lengths_of
from syn2real_utils.errors import UserError
from syn2real_utils.profile import TrainingPart
from syn2real_utils.progress import Progress
from syn2real_utils.stopping import EarlyStopping, Judge
from syn2real_utils.tensorfiles import INDEX

POOL = 8  # batches whose clips are sorted by length together


def plan_batches(
    lengths: Sequence[int], batch_size: int, epochs: float, seed: int, multiple: int = 1, most: int | None = None
) -> list[list[int]]:
    """The batches of a whole fine-tune as lists of indices; a pure function of its arguments.

    Each epoch shuffles the clips, sorts them by length within pools of `POOL` batches, and shuffles the batches.
    A fraction of an epoch ends it early, and so do `most` updates. The number of batches is rounded up to a `multiple`: each
    update has as many.
    """
    dice = random.Random(seed)
    plan: list[list[int]] = []
    per_epoch = -(-len(lengths) // batch_size)
    wanted = min(-(-max(1, round(per_epoch * epochs)) // multiple), most or sys.maxsize) * multiple
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
    backbone: Backbone,
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

    Raises:
        UserError: the loss or its gradient is not finite, or the GPU's memory does not suffice; checkpoints stay.
    """
    if part.processes > 1:
        from syn2real_utils import distributed  # which calls `fit` in each process

        distributed.finetune(backbone, examples, part, seed, threads, what, into, start, judge)
    else:
        shutil.rmtree(into / "job", ignore_errors=True)  # of a killed call with several processes
        with machine.enough_memory(what, less_memory(part)):
            fit(backbone, examples, part, seed, threads, what, into, callbacks, start, judge)
    machine.give_back_memory()  # without a collection two models and their optimisers meet in memory


def less_memory(part: TrainingPart) -> str:
    """Which settings let a fine-tune do with less memory, and what becomes of the models that are finished."""
    ways = []
    if not part.gradient_checkpointing:
        ways.append("set training.gradient_checkpointing (finished models stay)")
    if part.batch_size > 1:
        ways.append(
            f"lower training.batch_size (now {part.batch_size}) and raise training.gradient_accumulation (now "
            f"{part.gradient_accumulation}) by the same factor (all models are made anew)"
        )
    return ", or ".join(ways) or machine.LARGER


def fit(
    backbone: Backbone,
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
    """`finetune` in this process, which may be one of several."""
    torch.set_num_threads(threads)
    plan = plan_batches(
        lengths_of(examples), part.batch_size, part.epochs, seed, part.gradient_accumulation, part.max_steps
    )
    work, model = into / "checkpoints", backbone.load(start)
    stopping = [EarlyStopping(part.early_stopping, judge, work)] if part.early_stopping and judge else []
    with backbone.learning(model, part):
        trainer = _Trainer(
            model=model,
            args=_arguments(part, backbone.precision == "bfloat16", seed, work),
            train_dataset=plan,  # one item is one whole batch
            data_collator=lambda items: backbone.collate([examples[i] for i in items[0]]),
            callbacks=[_Report(what, len(plan) // part.gradient_accumulation), *stopping, *callbacks],
        )
        trainer.backbone, trainer.what = backbone, what
        trainer.model_accepts_loss_kwargs = False  # the loss is the mean over a batch; updates take the mean of theirs
        trainer.remove_callback(PrinterCallback)  # ours tells the progress
        with _same_bytes():
            trainer.train(resume_from_checkpoint=_last_checkpoint(work))
    if trainer.is_world_process_zero():
        for best in stopping:
            best.restore(model, into)
        save(backbone, model, into)
        shutil.rmtree(work, ignore_errors=True)


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


def save(backbone: Backbone, model: Any, into: Path) -> None:
    """Save a model as a folder that `transformers.pipeline` opens; of a killed call nothing stays beside it."""
    for half in into.glob(".tmp*"):  # safetensors writes into such a file, and renames it
        half.unlink()
    model.save_pretrained(into)
    checkpoints.copy_settings(backbone.folder, into, but=("config.json", INDEX))


class _Trainer(Trainer):
    """A Trainer whose model hears each batch as its backbone lets it, and which stops where numbers are not finite."""

    backbone: Backbone
    what: str
    counted: Callable[[], None]

    def training_step(self, model, inputs, *args, **kwargs):
        inputs, inner = self._prepare_inputs(inputs), self.accelerator.unwrap_model(model)
        # around the backward pass too, which may compute activations again
        with self.backbone.hearing(inner, inputs) as heard, _counted_once(inner) as self.counted:
            loss = super().training_step(model, heard, *args, **kwargs)
        return self._finite(loss, "loss")

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.counted()
        return loss

    def _clip_grad_norm(self, model):
        return self._finite(super()._clip_grad_norm(model), "gradient")

    def _finite(self, value, name: str):
        if bool(torch.isfinite(torch.as_tensor(value)).all()):
            return value
        kept = get_last_checkpoint(self.args.output_dir) if Path(self.args.output_dir).is_dir() else None
        tail = f"; {Path(kept).name} is kept" if kept else ""
        raise UserError(
            f"{self.what}: the {name} of step {self.state.global_step + 1} is not finite: lower training.learning_rate "
            f"(now {self.args.learning_rate:g}), or look for broken clips{tail}"
        )


@contextlib.contextmanager
def _counted_once(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Yields what is called after a forward pass: BatchNorm counts none of the batches that are computed again behind it."""
    norms: list[Any] = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    counts: list[torch.Tensor] = []

    def counted() -> None:
        counts.extend(norm.num_batches_tracked.clone() for norm in norms)
        for norm in norms:
            norm.momentum = 0.0

    try:
        yield counted
    finally:
        for norm, momentum, count in zip(norms, before, counts, strict=False):  # no counts: the forward pass failed
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


class _Report(TrainerCallback):
    """Progress of a fine-tune."""

    def __init__(self, what: str, steps: int):
        self.progress = Progress(what, steps)

    def on_step_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.progress.step()

    def on_train_end(self, args, state, control, **kwargs):
        self.progress.__exit__()


def _arguments(part: TrainingPart, bfloat16: bool, seed: int, work: Path) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=1,  # an item of the data set is a whole batch
        gradient_accumulation_steps=part.gradient_accumulation // part.processes,
        activation_checkpointing=part.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if part.gradient_checkpointing else None,
        ddp_find_unused_parameters=True,  # a CTC model has parameters that only masking uses
        num_train_epochs=1,  # the plan holds all epochs
        train_sampling_strategy="sequential",
        learning_rate=part.learning_rate,
        warmup_steps=part.warmup_steps or part.warmup_ratio,  # updates; below 1: a share of them
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
    arguments._n_gpu = min(arguments.n_gpu, 1)  # Trainer else splits each batch over all GPUs that the process sees
    return arguments
