"""Fine-tuning against the stock recipe: Seq2SeqTrainer, every clip padded to 30 s, float32 on a CPU."""

import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

from syn2real_utils.backbones.whisper import Example, Whisper
from syn2real_utils.bench import material
from syn2real_utils.bench.base import Goal, Measured, Side, check_equal
from syn2real_utils.profile import TrainingPart
from syn2real_utils.progress import say
from syn2real_utils.store import sha256
from syn2real_utils.tensorfiles import WEIGHTS
from syn2real_utils.training import finetune, save

BATCH = 8
EPOCHS = 4.0  # steps enough that what the first ones pay for, memory and shapes, is no large share
SEED = 0
GOAL_CPU, GOAL_GPU, GOAL_WER = 30.0, 8.0, 1.0


def measure() -> Measured:
    """Fine-tune on the same clips, batches and steps both ways, and score both models on domains that neither saw."""
    torch.set_num_threads(material.profile().threads)
    rows, test, asr = material.source_rows(), material.unseen_rows(), material.backbone()
    rows = rows.head(len(rows) // BATCH * BATCH)
    part = material.profile().training.model_copy(update={"batch_size": BATCH, "epochs": EPOCHS})
    steps = round(len(rows) // BATCH * EPOCHS)
    with tempfile.TemporaryDirectory(prefix="syn2real-") as folder:
        first, again = Path(folder) / "ours", Path(folder) / "again"
        ours = _side("ours", lambda into, clock: _ours(asr, rows, part, into, clock), first, steps)
        stock = _side(
            "Seq2SeqTrainer at 30 s",
            lambda into, clock: _stock(asr, rows, part, into, clock),
            Path(folder) / "stock",
            steps,
        )
        # ours takes seconds, the other minutes, of a machine that is now slow, now fast: a turn before and one after it
        later = _side("ours again", lambda into, clock: _ours(asr, rows, part, into, clock), again, steps)
        if not torch.cuda.is_available():  # a GPU sums in no fixed order
            check_equal("the weights of both turns", sha256(first / WEIGHTS), sha256(again / WEIGHTS))
        ours = replace(ours, seconds=(ours.seconds + later.seconds) / 2, repeats=[ours.seconds, later.seconds])
        found = {
            "ours": _wer(asr, Path(folder) / "ours", test, full=False),
            "ours at 30 s": _wer(asr, Path(folder) / "ours", test, full=True),
            "stock at 30 s": _wer(asr, Path(folder) / "stock", test, full=True),
        }
    ratio = stock.seconds / ours.seconds
    wanted = GOAL_GPU if torch.cuda.is_available() else GOAL_CPU
    apart = abs(found["ours"] - found["stock at 30 s"])
    return Measured(
        unit="clip and training step",
        ours=replace(ours, more={**ours.more, "wer": found["ours"], "wer at 30 s": found["ours at 30 s"]}),
        peers=[Side(stock.name, stock.seconds, more={**stock.more, "wer": found["stock at 30 s"]})],
        goals=[
            Goal(f"at least {wanted:g} x the stock recipe", round(ratio, 2), ratio >= wanted),
            Goal(f"WER within {GOAL_WER:g} point of the stock recipe's", round(apart, 2), apart <= GOAL_WER),
        ],
        work={
            "clips": len(rows), "steps": steps, "batch": BATCH, "precision of ours": asr.precision,
            "test clips": len(test), "seconds of speech": round(float(rows.duration.sum()), 1),
        },
    )  # fmt: skip


class _Clock(TrainerCallback):
    """When training began and ended, and how far it got."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_train_end(self, args, state, control, **kwargs):
        self.seconds = time.perf_counter() - self.start
        self.done = state.global_step


def _side(name: str, work: Callable[[Path, _Clock], None], into: Path, steps: int) -> Side:
    into.mkdir()
    say(f"{name}: {steps} steps of {BATCH} clips")
    clock, start = _Clock(), time.perf_counter()
    work(into, clock)
    whole = time.perf_counter() - start
    check_equal("steps", steps, clock.done)  # of epochs our trainer knows one: its batches are drawn before it begins
    more = {"features, loading and saving": whole - clock.seconds, "steps": clock.done}
    side = Side(name, clock.seconds / steps / BATCH, more=more)
    say(f"  {side.seconds:.3f} s for a clip and step")
    gc.collect()
    return side


def _ours(asr: Whisper, rows: pd.DataFrame, part: TrainingPart, into: Path, clock: _Clock) -> None:
    clips = [Example(asr.features(p), asr.labels(t)) for p, t in zip(rows.path, rows.transcription, strict=True)]
    finetune(asr, clips, part, SEED, torch.get_num_threads(), "ours", into, [clock])


def _stock(asr: Whisper, rows: pd.DataFrame, part: TrainingPart, into: Path, clock: _Clock) -> None:
    """As the tutorials have it: features of 30 s, labels padded in the collator, Seq2SeqTrainer's own loop."""
    clips = [
        {"input_features": asr.features(path, full=True), "labels": asr.labels(text)}
        for path, text in zip(rows.path, rows.transcription, strict=True)
    ]
    model, work = asr.load(), into / "work"
    gpu = torch.cuda.is_available()
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(work), per_device_train_batch_size=BATCH, num_train_epochs=part.epochs, seed=SEED,
        learning_rate=part.learning_rate, warmup_steps=part.warmup_ratio, weight_decay=part.weight_decay,
        fp16=gpu, use_cpu=not gpu, save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=gpu,
    )  # fmt: skip
    trainer = Seq2SeqTrainer(model=model, args=arguments, train_dataset=clips, data_collator=_pad, callbacks=[clock])
    trainer.train()
    shutil.rmtree(work, ignore_errors=True)
    save(asr, model, into)


def _pad(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    labels = torch.nn.utils.rnn.pad_sequence([item["labels"] for item in items], batch_first=True, padding_value=-100)
    return {"input_features": torch.stack([item["input_features"] for item in items]), "labels": labels}


def _wer(asr: Whisper, folder: Path, rows: pd.DataFrame, full: bool) -> float:
    texts = asr.transcribe(
        asr.load(folder), [asr.features(path, full=full) for path in rows.path], 32 if not full else 8
    )
    return material.wer(rows, texts)
