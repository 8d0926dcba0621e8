"""Bark of Suno, through transformers: it draws what it says, so the same text sounds different each time. MIT; see data/README.md.

Texts of one voice are spoken together. Three models follow each other: semantic tokens, coarse codes, fine codes. The first two
take a batch; the third looks at whole clips and takes each alone, for beside a longer clip it would look at the padding.

A clip is drawn from its own seed: token by token the batch would otherwise share one stream of random numbers, and a clip
would depend on its neighbours.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import BarkModel, BarkProcessor, LogitsProcessor, LogitsProcessorList
from transformers.models.bark.generation_configuration_bark import (
    BarkCoarseGenerationConfig,
    BarkFineGenerationConfig,
    BarkSemanticGenerationConfig,
)

from syn2real_utils import machine, pickles
from syn2real_utils.errors import UserError
from syn2real_utils.profile import TtsPart
from syn2real_utils.store import Store
from syn2real_utils.tts import neural, snapshots
from syn2real_utils.tts.base import Saying

LANGUAGES = (
    "de",
    "en",
    "es",
    "fr",
    "hi",
    "it",
    "ja",
    "ko",
    "pl",
    "pt",
    "ru",
    "tr",
    "zh",
)  # that have published presets
SPEAKERS = 10  # presets of each language
MIN_EOS_P = 0.2  # Suno's code: the speech ends when the end is this likely; without it Bark babbles on
LONGEST_PIECE = 180  # characters, our choice: about 12 s, and the semantic model stops at 15 s
# Seconds per letter above which a clip holds babble. Our choice: twice what careful readers take; a sign of Chinese, Japanese
# or Korean is a syllable.
SLOW, SLOW_SYLLABLE = 0.15, 0.5
PATTERNS = (*snapshots.MODEL, "speaker_embeddings/v2/*.npy", "speaker_embeddings/v2/*.npz")


class Bark:
    """Bark with its published voices; float16 on a GPU, float32 elsewhere."""

    name: ClassVar[str] = "bark"
    voices: ClassVar[dict[str, tuple[str, ...]]] = {
        code: tuple(f"{code}_speaker_{number}" for number in range(SPEAKERS)) for code in LANGUAGES
    }
    one_voice: ClassVar[bool] = True  # a batch has one history
    longest: ClassVar[dict[str, float]] = dict.fromkeys(LANGUAGES, SLOW) | dict.fromkeys(
        ("ja", "ko", "zh"), SLOW_SYLLABLE
    )

    def __init__(self, store: Store, part: TtsPart | None = None):
        part = part or TtsPart(name="bark")
        self.batch_size = part.batch_size
        self._folder = snapshots.resolve(part.model or snapshots.BARK, "config.json", store, PATTERNS)
        self._device = machine.device()
        dtype = torch.float16 if self._device.type == "cuda" else torch.float32
        with pickles.opening(self._folder):
            self._processor = BarkProcessor.from_pretrained(self._folder, local_files_only=True)
            model = BarkModel.from_pretrained(self._folder, dtype=dtype, local_files_only=True, use_safetensors=True)
        self._model = model.to(self._device)
        self._model.eval()
        settings = self._model.generation_config
        self._semantic = BarkSemanticGenerationConfig(**settings.semantic_config | {"min_eos_p": MIN_EOS_P})
        self._coarse = BarkCoarseGenerationConfig(**settings.coarse_acoustics_config)
        self._fine = BarkFineGenerationConfig(**settings.fine_acoustics_config)
        self._codes = settings.codebook_size
        self._rate = int(settings.sample_rate)
        self._presets: dict[str, dict[str, torch.Tensor]] = {}

    def settings(self, seed: int) -> dict[str, Any]:
        """What the model's own configuration does not set."""
        return {"min_eos_p": MIN_EOS_P}

    def speak(self, spoken: str, voice: str, language: str, seed: int) -> tuple[np.ndarray, int]:
        """A wave, float32 (samples,), and its rate."""
        (wave,), rate = self.speak_batch([Saying(spoken, voice, seed)])
        return wave, rate

    @torch.inference_mode()
    def speak_batch(self, sayings: Sequence[Saying]) -> tuple[list[np.ndarray], int]:
        """The waves of texts of one voice, and their rate; long texts are said in pieces."""
        (voice,) = {saying.voice for saying in sayings}

        def speak(batch: list[tuple[int, int, str]]) -> list[np.ndarray]:
            seeds = [(sayings[i].seed, j) for i, j, _ in batch]
            with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
                return self._speak_pieces([text for _, _, text in batch], self._preset(voice), seeds)

        texts = [saying.spoken for saying in sayings]
        return neural.speak_pieces(texts, LONGEST_PIECE, self.batch_size, self._rate, speak), self._rate

    def _speak_pieces(
        self, texts: list[str], preset: dict[str, torch.Tensor], seeds: list[tuple[int, int]]
    ) -> list[np.ndarray]:
        length = self._semantic.max_input_semantic_length
        inputs = self._processor(texts, max_length=length, truncation=True).to(self._device)
        tokens = self._model.semantic.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            history_prompt=preset,
            semantic_generation_config=self._semantic,
            custom_generate=_drawing([(*seed, 0) for seed in seeds]),
        )
        codes, lengths = self._model.coarse_acoustics.generate(
            tokens,
            history_prompt=preset,
            semantic_generation_config=self._semantic,
            coarse_generation_config=self._coarse,
            codebook_size=self._codes,
            return_output_lengths=True,
            custom_generate=_drawing([(*seed, 1) for seed in seeds]),
        )
        rows = zip(codes, lengths.tolist(), seeds, strict=True)
        return [self._decode(row[None, :length], preset, seed) for row, length, seed in rows]

    def _decode(self, codes: torch.Tensor, preset: dict[str, torch.Tensor], seed: tuple[int, int]) -> np.ndarray:
        """The wave of one clip's coarse codes, (1, codebooks * frames)."""
        if not codes.shape[1]:
            return np.zeros(0, np.float32)
        torch.manual_seed(int(np.random.SeedSequence((*seed, 2)).generate_state(1)[0]))
        fine = self._model.fine_acoustics.generate(
            codes,
            history_prompt=preset,
            semantic_generation_config=self._semantic,
            coarse_generation_config=self._coarse,
            fine_generation_config=self._fine,
            codebook_size=self._codes,
        )
        return self._model.codec_decode(fine).float().cpu().numpy()[0]

    def _preset(self, voice: str) -> dict[str, torch.Tensor]:
        """A published speaker: the tokens and codes of a few seconds of its speech."""
        if voice not in self._presets:
            name = f"v2/{voice}"
            file = self._folder / "speaker_embeddings" / f"{name}.npz"
            try:
                known = name in self._processor.available_voice_presets
                made = self._processor("", voice_preset=name if known else str(file))["history_prompt"]
            except (OSError, ValueError) as error:
                raise UserError(f"the Bark folder {self._folder} has no preset {name}: expected {file}") from error
            self._presets[voice] = {key: value.to(self._device) for key, value in made.items()}
        return self._presets[voice]


class _Draw(LogitsProcessor):
    """Choose the next token of each row with the row's own next random number, where the distribution is at hand."""

    def __init__(self, seeds: Sequence[tuple[int, ...]]):
        self._dice = [np.random.default_rng(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, tokens) that leave one token in each row."""
        summed = torch.softmax(scores.float(), dim=-1).cumsum(-1)
        drawn = torch.tensor([[dice.random()] for dice in self._dice], dtype=summed.dtype, device=summed.device)
        chosen = torch.searchsorted(summed, drawn * summed[:, -1:], right=True).clamp(max=summed.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


def _drawing(seeds: Sequence[tuple[int, ...]]):
    """A way to decode for transformers' `generate`: its own sampling, with the draws of each row apart."""
    draw = _Draw(seeds)

    def decode(model, input_ids, logits_processor, stopping_criteria, generation_config, **rest):
        mine = [draw] if generation_config.do_sample else []
        processors = LogitsProcessorList([*logits_processor, *mine])
        return model._sample(input_ids, processors, stopping_criteria, generation_config, **rest)

    return decode
