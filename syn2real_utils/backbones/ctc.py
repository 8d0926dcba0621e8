"""CTC models of transformers that take raw waves: Wav2Vec2-Conformer, Wav2Vec2, HuBERT and their like.

What padding does to a clip is kept out: a clip is heard the same alone and in a batch, so WER does not depend on batch_size.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCTC, Wav2Vec2FeatureExtractor
from transformers.utils import logging as transformers_logging

from syn2real_utils import audio, machine, pickles
from syn2real_utils.backbones.base import IGNORED, Batch, Example, Heard, check_finite, read_clip
from syn2real_utils.backbones.clips import lengths, lengths_of
from syn2real_utils.backbones.letters import Letters
from syn2real_utils.errors import UserError, names
from syn2real_utils.lineage import read_lineage
from syn2real_utils.profile import BackbonePart, TrainingPart
from syn2real_utils.progress import Progress

SHORTEST = 0.1  # seconds; the feature encoder needs 25 ms for its first frame
UNUSED = {"masked_spec_embed"}  # where no frame is masked: some folders leave it out


class CTC:
    """Waves, letters, batches and greedy decoding of a CTC model."""

    tells_sureness = False

    def __init__(self, folder: Path, language: str, part: BackbonePart):
        """Read vocabulary and settings from a `save_pretrained` folder.

        Raises:
            UserError: the vocabulary is not that of the model, or the model takes another sample rate.
        """
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        machine.keep_memory()
        self.folder, self.language, self.part = folder, language, part
        self.precision = machine.precision(part.precision)
        config = AutoConfig.from_pretrained(folder)
        self.extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
        if self.extractor.sampling_rate != audio.SAMPLE_RATE:
            raise UserError(f"{folder.name} takes {self.extractor.sampling_rate} Hz: expected {audio.SAMPLE_RATE}")
        self.letters = Letters(folder, config.pad_token_id)
        # Group norm sums over time: such models were trained on zeros behind a clip and know no mask (transformers' documentation).
        self.masks = config.feat_extract_norm == "layer"

    @staticmethod
    def own_language(folder: Path) -> str | None:
        """The language of the corpus that the model was fine-tuned on; English where that is not known: hearing needs none."""
        lineage = read_lineage(folder)
        return (lineage.corpus if lineage and lineage.corpus else "").rpartition("-")[2] or "en"

    def load(self, folder: Path | None = None) -> Any:
        """The model of a folder (this backbone's own if none is given) in float32, ready to decode.

        Raises:
            UserError: the weights are not those of config.json: a head that was not trained hears nothing; or they are not finite.
        """
        folder = folder or self.folder
        with pickles.opening(folder):
            model, found = AutoModelForCTC.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        if lacking := sorted(key for key in found["missing_keys"] if key.rpartition(".")[2] not in UNUSED):
            raise UserError(f"{folder} is no whole CTC model: its weights lack {names(lacking, 3)}")
        check_finite(model, folder)
        return model.to(machine.device()).eval()

    def features(self, path: Path | str, full: bool = False) -> torch.Tensor:
        """The wave of a clip, scaled as the model was trained: float32 (samples,). `full` changes nothing.

        Raises:
            UserError: the clip is unreadable or longer than 30 s.
        """
        return self.of_wave(read_clip(path, self.folder.name), full)

    def of_wave(self, wave: np.ndarray, full: bool = False) -> torch.Tensor:
        """A wave, scaled as the model was trained: float32 (samples,)."""
        shortest = round(SHORTEST * audio.SAMPLE_RATE)
        wave = np.pad(wave, (0, max(0, shortest - len(wave))))
        scaled = self.extractor(wave, sampling_rate=audio.SAMPLE_RATE, padding=False, return_tensors="pt")
        return scaled.input_values[0]

    def check(self, texts: Sequence[str]) -> None:
        """Raise UserError where the vocabulary lacks letters of these texts; say which accents are left off."""
        self.letters.check(texts, self.language)

    def labels(self, text: str) -> torch.Tensor:
        """Letters of `text` as tokens: int64 (letters,)."""
        return torch.tensor(self.letters.encode(text, self.language), dtype=torch.long)

    def stacked(self, clips: Sequence[torch.Tensor]) -> Batch:
        """input_values (batch, samples) with zeros behind the shorter; attention_mask alike where the model takes one."""
        batch = {"input_values": nn.utils.rnn.pad_sequence(list(clips), batch_first=True)}
        if self.masks:
            ones = [torch.ones(len(clip), dtype=torch.long) for clip in clips]
            batch["attention_mask"] = nn.utils.rnn.pad_sequence(ones, batch_first=True)
        return batch

    def collate(self, examples: Sequence[Example]) -> Batch:
        """`stacked` with labels (batch, letters) padded with `IGNORED`."""
        labels = nn.utils.rnn.pad_sequence([e.labels for e in examples], batch_first=True, padding_value=IGNORED)
        return self.stacked([e.features for e in examples]) | {"labels": labels}

    @contextmanager
    def hearing(self, model: Any, batch: Batch) -> Iterator[Batch]:
        """Keep what lies behind the shorter clips out of a Conformer's convolutions, which else carry it into their last frames."""
        if "attention_mask" not in batch or bool(batch["attention_mask"].all()):
            yield batch
            return
        samples = batch["attention_mask"].sum(-1)
        convolutions = [m for name, m in model.named_modules() if name.endswith("conv_module.depthwise_conv")]
        frames = model._get_feat_extract_output_lengths(samples, add_adapter=False) if convolutions else samples

        def silence(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            inside = torch.arange(args[0].shape[-1], device=args[0].device) < frames[:, None].to(args[0].device)
            return (args[0] * inside[:, None], *args[1:])

        hooks = [module.register_forward_pre_hook(silence) for module in convolutions]
        try:
            yield batch
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def learning(self, model: Any, part: TrainingPart) -> Iterator[None]:
        """Freeze the feature encoder; a mean loss that passes over clips too short for their text; no layer is dropped."""
        model.train()
        model.freeze_feature_encoder()
        wanted = {
            "ctc_loss_reduction": "mean",
            "ctc_zero_infinity": True,
            "layerdrop": 0.0,  # as in transformers' own script for CTC: a dropped layer has no gradient
            "apply_spec_augment": part.mask_time_prob > 0 or part.mask_feature_prob > 0,
            "mask_time_prob": part.mask_time_prob,
            "mask_feature_prob": part.mask_feature_prob,
        }
        before = {key: getattr(model.config, key) for key in wanted}
        model.config.update(wanted)
        try:
            yield
        finally:
            model.config.update(before)

    def hear(
        self, model: Any, clips: Sequence[torch.Tensor], batch_size: int, drafts: Sequence[str] | None = None
    ) -> list[Heard]:
        """Refused: probabilities of frames, most of them blank, are not those of a decoder's tokens."""
        raise UserError("confidence and entropy are known of Whisper only: leave them out of evaluation.selectors")

    def transcribe(
        self, model: Any, clips: Sequence[torch.Tensor], batch_size: int, drafts: Sequence[str] | None = None
    ) -> list[str]:
        """Greedy transcripts of waves, in their order; clips of like length share a batch. One pass says all: drafts save nothing."""
        texts = [""] * len(clips)
        batches = self._batches(lengths(clips), batch_size)
        with Progress("transcribe", len(batches)) as progress:
            for batch in batches:
                for i, frames in zip(batch, self._greedy(model, [clips[i] for i in batch]), strict=True):
                    texts[i] = self.letters.decode(frames)
                progress.step()
        return texts

    @torch.inference_mode()
    def loss(self, model: Any, examples: Sequence[Example], batch_size: int) -> tuple[float, int]:
        """Minus the logarithm of the probability of the right letters over all alignments: summed nats, and how many letters."""
        wanted = {"ctc_loss_reduction": "sum", "ctc_zero_infinity": True}
        before = {key: getattr(model.config, key) for key in wanted}
        model.config.update(wanted)
        nats, tokens = 0.0, 0
        for batch in self._batches(lengths_of(examples), batch_size):
            inputs = {name: t.to(model.device) for name, t in self.collate([examples[i] for i in batch]).items()}
            with self.hearing(model, inputs) as heard:
                nats += float(model(**heard).loss)
            tokens += int((inputs["labels"] != IGNORED).sum())
        model.config.update(before)
        return nats, tokens

    def _batches(self, samples: Sequence[int], size: int) -> list[list[int]]:
        """Places of clips that are heard together, the longest first; only equally long ones where there is no mask."""
        order = sorted(range(len(samples)), key=lambda i: -samples[i])
        groups = [order] if self.masks else [list(g) for _, g in itertools.groupby(order, lambda i: samples[i])]
        return [group[at : at + size] for group in groups for at in range(0, len(group), size)]

    @torch.inference_mode()
    def _greedy(self, model: Any, clips: Sequence[torch.Tensor]) -> list[list[int]]:
        """The best token of each frame of each clip."""
        batch = {name: tensor.to(model.device) for name, tensor in self.stacked(clips).items()}
        with (
            self.hearing(model, batch) as heard,
            torch.autocast(model.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            best = model(**heard).logits.float().argmax(-1)
        lengths = model._get_feat_extract_output_lengths(torch.tensor([len(clip) for clip in clips])).tolist()
        return [row[:length] for row, length in zip(best.tolist(), lengths, strict=True)]
