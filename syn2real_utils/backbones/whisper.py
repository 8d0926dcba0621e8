"""Whisper with the encoder's context cut to the clip: about 30 times less work than 30 s of padding for short clips.

Whisper always hears 30 s. Here the log-mel frames are those of the clip, rounded up to a few lengths, and a few positions
stand for the silence behind it (context.py). Models are put back as they were, and what is saved is an ordinary Whisper.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE
from transformers.utils import logging as transformers_logging

from syn2real_utils import audio, machine, pickles
from syn2real_utils.backbones.base import IGNORED, LONGEST, Batch, Example, Heard, check_finite, read_clip
from syn2real_utils.backbones.clips import lengths, lengths_of
from syn2real_utils.backbones.context import hear, positions, short_context, stack
from syn2real_utils.backbones.ctranslate2 import MULTILINGUAL_VOCABULARY
from syn2real_utils.backbones.decoding import Rules, greedy
from syn2real_utils.backbones.products import products_in
from syn2real_utils.backbones.projection import labelled_only, rows_added
from syn2real_utils.errors import UserError, names
from syn2real_utils.lineage import read_lineage
from syn2real_utils.parameters import TIED
from syn2real_utils.profile import BackbonePart, TrainingPart
from syn2real_utils.progress import Progress

FRAMES_PER_SECOND = 100  # log-mel frames of 10 ms
FULL_CONTEXT = LONGEST  # seconds
TOKENS_PER_SECOND, TOKENS_AT_LEAST = 8, 8  # of a transcript; fast speech has 25 letters a second, about 8 tokens
LABEL_STEP = 8  # lengths of labels are rounded up: fewer shapes, each of which costs time when it first comes
CONTROL = re.compile(r"[\x00-\x1f]")  # in a transcript they part words at most, and would break the rows of a table
ALIKE = 0.7  # a batch has no clip whose context is shorter than this part of the longest: what pads it costs time at every token


class Whisper:
    """What is needed beside the weights: log-mel features, tokens, contexts, batches and greedy decoding."""

    tells_sureness = True

    def __init__(self, folder: Path, language: str, part: BackbonePart):
        """Read tokenizer and settings from a `save_pretrained` folder.

        Raises:
            UserError: the model does not know the language.
        """
        transformers_logging.set_verbosity_error()  # advice on long-form decoding, once per batch
        transformers_logging.disable_progress_bar()
        machine.keep_memory()
        self.folder, self.language, self.part = folder, language, part
        self.precision = machine.precision(part.precision)
        with pickles.opening(folder):
            self.tokenizer = WhisperTokenizerFast.from_pretrained(folder)
            self.extractor = WhisperFeatureExtractor.from_pretrained(folder)
            self.settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
            self.prompt = self._prompt()
            never, never_first = (
                [int(token) for token in self.settings.get(name) or []]
                for name in ("suppress_tokens", "begin_suppress_tokens")
            )
            self.rules = Rules(self.prompt, self.tokenizer.eos_token_id, never, never_first)

    def load(self, folder: Path | None = None) -> WhisperForConditionalGeneration:
        """The model of a folder (this backbone's own if none is given) in float32, ready to decode.

        Raises:
            UserError: the weights are damaged, not those of config.json, or not finite.
        """
        folder = folder or self.folder
        with pickles.opening(folder):
            model, found = WhisperForConditionalGeneration.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        if lacking := sorted(set(found["missing_keys"]) - set(TIED)):
            raise UserError(
                f"{folder} is no whole Whisper: its weights lack {names(lacking, 3)}; fetch or make it again"
            )
        if beyond := sorted(found["unexpected_keys"]):
            raise UserError(
                f"{folder} has weights that its config.json knows nothing of: {names(beyond, 3)}; fetch or make it again"
            )
        check_finite(model, folder)
        return model.to(machine.device()).eval()

    def context(self, seconds: float) -> float:
        """Seconds of context for a clip: margin added, rounded up to a step, 30 s at most."""
        step = self.part.context_step
        return min(FULL_CONTEXT, math.ceil((seconds + self.part.context_margin) / step - 1e-9) * step)

    @staticmethod
    def own_language(folder: Path) -> str | None:
        """The language that a model says it is for: in lineage.json, or in its settings for generating text."""
        file = folder / "generation_config.json"
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
            multilingual, said = settings.get("is_multilingual", False), str(settings.get("language") or "")
        except (ValueError, AttributeError) as error:
            raise UserError(f"{file} is damaged: expected JSON as save_pretrained writes it") from error
        if not multilingual:
            return "en"
        lineage = read_lineage(folder)
        of_corpus = (lineage.corpus if lineage and lineage.corpus else "").rpartition("-")[2]  # e.g. tuxpaint-es
        own = said.strip("<|>").lower()  # es, spanish or <|es|>
        return next((code for code in (of_corpus, TO_LANGUAGE_CODE.get(own, own)) if code in LANGUAGES), None)

    def features(self, path: Path | str, full: bool = False) -> torch.Tensor:
        """Log-mel of a clip, silence up to its context (30 s if `full`): float32 (mel bins, frames).

        Raises:
            UserError: the clip is unreadable or longer than 30 s.
        """
        return self.of_wave(read_clip(path, "Whisper"), full)

    def of_wave(self, wave: np.ndarray, full: bool = False) -> torch.Tensor:
        """Log-mel of a wave of at most 30 s, silence up to its context (30 s if `full`): float32 (mel bins, frames)."""
        context = FULL_CONTEXT if full else self.context(len(wave) / audio.SAMPLE_RATE)
        padded = np.zeros(round(context * audio.SAMPLE_RATE), dtype=np.float32)
        padded[: len(wave)] = wave[: len(padded)]
        mel = self.extractor(
            padded, sampling_rate=audio.SAMPLE_RATE, padding=False, truncation=False, return_tensors="pt"
        )
        return mel.input_features[0]

    def check(self, texts: Sequence[str]) -> None:
        """Raise UserError where a text is longer than the decoder can write; else its tokens write any."""
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        most = config.get("max_target_positions", 448) // LABEL_STEP * LABEL_STEP
        for text in texts:
            # a token is a byte or more: most texts need not even be tokenised
            if len(text.encode()) >= most - len(self.prompt) and (tokens := len(self.labels(text))) > most:
                raise UserError(
                    f"the text '{text[:40]}...' takes {tokens} tokens, Whisper writes {most} at most: leave it out or divide it"
                )

    def labels(self, text: str) -> torch.Tensor:
        """Tokens that the decoder learns to say for `text`: int64 (tokens,)."""
        tokens = self.tokenizer(" " + text.strip(), add_special_tokens=False).input_ids
        return torch.tensor([*self.prompt[1:], *tokens, self.tokenizer.eos_token_id])

    def stacked(self, clips: Sequence[torch.Tensor]) -> Batch:
        """input_features (batch, mel bins, frames), frames of silence behind the shorter."""
        return {"input_features": stack(clips)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        """A batch: input_features (batch, mel bins, frames), labels (batch, tokens) padded with `IGNORED`."""
        labels = nn.utils.rnn.pad_sequence([e.labels for e in examples], batch_first=True, padding_value=IGNORED)
        labels = nn.functional.pad(labels, (0, -labels.shape[1] % LABEL_STEP), value=IGNORED)
        return self.stacked([e.features for e in examples]) | {"labels": labels}

    @contextmanager
    def hearing(self, model: WhisperForConditionalGeneration, batch: Batch) -> Iterator[Batch]:
        """Cut the encoder's context to the batch's."""
        with short_context(model, batch["input_features"]) as heard:
            yield batch | {"input_features": heard}

    @contextmanager
    def learning(self, model: WhisperForConditionalGeneration, part: TrainingPart) -> Iterator[None]:
        """Everything is trained, under SpecAugment where the part asks for it; the decoder keeps no cache."""
        model.train()
        wanted = {
            "use_cache": False,
            "apply_spec_augment": part.mask_time_prob > 0 or part.mask_feature_prob > 0,
            "mask_time_prob": part.mask_time_prob,
            "mask_feature_prob": part.mask_feature_prob,
        }
        before = {key: getattr(model.config, key) for key in wanted} | {"use_cache": True}
        model.config.update(wanted)
        embedding = model.get_decoder().embed_tokens
        tied = embedding.weight is model.proj_out.weight
        # several processes exchange gradients before ours would be added
        added = rows_added(embedding) if tied and part.processes == 1 else nullcontext()
        try:
            with labelled_only(model), added:
                yield
        finally:
            model.config.update(before)

    def transcribe(
        self,
        model: WhisperForConditionalGeneration,
        clips: Sequence[torch.Tensor],
        batch_size: int,
        drafts: Sequence[str] | None = None,
    ) -> list[str]:
        """Greedy transcripts of log-mel features, in their order; each clip is heard with its own context."""
        return [heard.text for heard in self.hear(model, clips, batch_size, drafts, sure=False)]

    @torch.inference_mode()
    def hear(
        self,
        model: WhisperForConditionalGeneration,
        clips: Sequence[torch.Tensor],
        batch_size: int,
        drafts: Sequence[str] | None = None,
        sure: bool = True,
    ) -> list[Heard]:
        """`transcribe`, with how sure the model was (nan unless `sure`, which costs a little)."""
        guesses = [self._guess(draft) for _, draft in zip(clips, drafts or [""] * len(clips), strict=True)]
        found: dict[int, Heard] = {}
        frames = lengths(clips)
        batches = _batches(frames, batch_size)
        with products_in(model, self.precision), Progress("transcribe", len(batches)) as progress:
            head = model.proj_out.weight.to(getattr(torch, self.precision))
            for batch in batches:
                encoded = hear(model, [clips[i] for i in batch])
                most = [_most(frames[i]) for i in batch]
                said = greedy(model, head, encoded, self.rules, most, [guesses[i] for i in batch], sure)
                for i, one in zip(batch, said, strict=True):
                    n, logprob, entropy = one.sureness.tolist() if sure else (0, math.nan, math.nan)
                    text = self.tokenizer.decode(one.tokens, skip_special_tokens=True)
                    found[i] = Heard(CONTROL.sub(" ", text).strip(), int(n), logprob, entropy)
                progress.step()
        return [found[i] for i in range(len(clips))]

    @torch.inference_mode()
    def loss(
        self, model: WhisperForConditionalGeneration, examples: Sequence[Example], batch_size: int
    ) -> tuple[float, int]:
        """Cross entropy of text and end of text, the right tokens before each given: summed nats, and how many tokens.

        The prompt costs nothing: decoding does not choose it.
        """
        frames = lengths_of(examples)
        order = sorted(range(len(examples)), key=lambda i: -frames[i])
        nats, tokens = 0.0, 0
        for at in range(0, len(order), batch_size):
            together = self.collate([examples[i] for i in order[at : at + batch_size]])
            batch = {name: t.to(model.device) for name, t in together.items()}
            with (
                self.hearing(model, batch) as heard,
                torch.autocast(model.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"),
            ):
                logits = model(**heard).logits
            start = len(self.prompt) - 1
            wanted = batch["labels"][:, start:].flatten()
            lost = nn.functional.cross_entropy(
                logits[:, start:].flatten(0, 1).float(), wanted, ignore_index=IGNORED, reduction="sum"
            )
            nats, tokens = nats + float(lost), tokens + int((wanted != IGNORED).sum())
        return nats, tokens

    def _guess(self, draft: str) -> list[int]:
        """Tokens of a text as the decoder would say them after the prompt, without the end of text; none of an empty one."""
        return self.labels(draft)[len(self.prompt) - 1 : -1].tolist() if draft else []

    def _prompt(self) -> list[int]:
        """Start of transcript [, language, task], no timestamps: pinned, never guessed from the audio."""
        start = self.tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
        languages = self.settings.get("lang_to_id") or {}
        middle = []
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        many = self.settings.get("is_multilingual", config["vocab_size"] >= MULTILINGUAL_VOCABULARY)
        if many and not (languages and self.settings.get("task_to_id")):
            raise UserError(
                f"generation_config.json of {self.folder.name} does not say which languages it knows (is_multilingual, "
                "lang_to_id, task_to_id): take that file from the Whisper that it was fine-tuned from"
            )
        if many:
            if f"<|{self.language}|>" not in languages:
                raise UserError(
                    f"{self.folder.name} does not know the language '{self.language}': it knows {names(k.strip('<|>') for k in languages)}"
                )
            middle = [languages[f"<|{self.language}|>"], self.settings["task_to_id"]["transcribe"]]
        elif self.language != "en":
            raise UserError(
                f"{self.folder.name} knows only English, not '{self.language}': use a multilingual backbone such as base"
            )
        return [start, *middle, self.tokenizer.convert_tokens_to_ids("<|notimestamps|>")]


def _most(frames: int) -> int:
    """Tokens that the transcript of a clip of so many log-mel frames has at most."""
    return TOKENS_AT_LEAST + round(frames / FRAMES_PER_SECOND * TOKENS_PER_SECOND)


def _batches(frames: Sequence[int], size: int) -> list[list[int]]:
    """Places of clips of so many log-mel frames that are heard together, the longest first: about equally many, of like context."""
    order = sorted(range(len(frames)), key=lambda i: -frames[i])
    groups: list[list[int]] = []
    for i in order:
        if not groups or positions(frames[i]) < ALIKE * positions(frames[groups[-1][0]]):
            groups.append([])
        groups[-1].append(i)
    return [part.tolist() for group in groups for part in np.array_split(group, math.ceil(len(group) / size))]
