"""SpeechT5 of Microsoft with its HiFi-GAN, through transformers: English, any speaker by an x-vector. MIT; see data/README.md.

Its decoder drops units at random also when it speaks, which makes each rendering different. The random numbers of a clip come
from the clip's own seed, so a batch gives what one by one gives.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5Processor

from syn2real_utils import machine, pickles
from syn2real_utils.profile import TtsPart
from syn2real_utils.store import Store
from syn2real_utils.tts import neural, snapshots, speakers
from syn2real_utils.tts.base import Saying

RATE = 16_000  # Hz
LONGEST_PIECE = 550  # characters; the model has positions for 600
LONGEST_RATIO = 20  # frames for each character at most; transformers' own default
SLOW = 0.15  # seconds per letter, our choice: twice what careful readers take; above it the end was not found


class SpeechT5:
    """SpeechT5 in float32, which a GPU of any kind holds."""

    name: ClassVar[str] = "speecht5"
    voices: dict[str, tuple[str, ...]] = {"en": speakers.ARCTIC_SPEAKERS}  # noqa: RUF012
    one_voice: ClassVar[bool] = False
    longest: ClassVar[dict[str, float]] = {"en": SLOW}

    def __init__(self, store: Store, part: TtsPart | None = None):
        part = part or TtsPart(name="speecht5")
        self.batch_size = part.batch_size
        folder = snapshots.resolve(part.model or snapshots.SPEECHT5, "config.json", store)
        vocoder = snapshots.resolve(snapshots.VOCODER, "config.json", store, beside=part.model)
        self._xvectors = speakers.load(part, store)  # speaker: (clips, 512)
        self.voices = {"en": tuple(self._xvectors)}
        self._device = machine.device()
        load = {"local_files_only": True, "use_safetensors": True}
        with pickles.opening(folder):
            self._processor = SpeechT5Processor.from_pretrained(folder, normalize=True, local_files_only=True)
            self._model = SpeechT5ForTextToSpeech.from_pretrained(folder, **load).to(self._device)
        with pickles.opening(vocoder):
            self._vocoder = SpeechT5HifiGan.from_pretrained(vocoder, **load).to(self._device)
        self._model.eval()
        self._vocoder.eval()

    def settings(self, seed: int) -> dict[str, Any]:
        """Nothing but what the seed draws: one of the speaker's x-vectors, and which units are dropped."""
        return {"normalize": True}

    def speak(self, spoken: str, voice: str, language: str, seed: int) -> tuple[np.ndarray, int]:
        """A wave, float32 (samples,), and its rate."""
        (wave,), rate = self.speak_batch([Saying(spoken, voice, seed)])
        return wave, rate

    @torch.inference_mode()
    def speak_batch(self, sayings: Sequence[Saying]) -> tuple[list[np.ndarray], int]:
        """The waves of texts, and their rate; long texts are said in pieces."""

        def speak(batch: list[tuple[int, int, str]]) -> list[np.ndarray]:
            said = [(sayings[i], j) for i, j, _ in batch]
            return self._speak_pieces([text for _, _, text in batch], said)

        texts = [saying.spoken for saying in sayings]
        return neural.speak_pieces(texts, LONGEST_PIECE, self.batch_size, RATE, speak), RATE

    def _speak_pieces(self, texts: list[str], said: list[tuple[Saying, int]]) -> list[np.ndarray]:
        inputs = self._processor(text=texts, padding=True, return_tensors="pt").to(self._device)
        xvectors = [self._xvectors[saying.voice] for saying, _ in said]
        chosen = [table[saying.seed % len(table)] for table, (saying, _) in zip(xvectors, said, strict=True)]
        self._drop_by_seed([(saying.seed, piece) for saying, piece in said])
        spectrograms, lengths = self._model.generate_speech(
            inputs["input_ids"],
            speaker_embeddings=torch.tensor(np.stack(chosen), device=self._device),
            attention_mask=inputs["attention_mask"],
            maxlenratio=LONGEST_RATIO,
            return_output_lengths=True,
        )  # (texts, frames, mels) and the frames of each
        most = inputs["attention_mask"].sum(1) * LONGEST_RATIO // self._model.config.reduction_factor
        most = (
            most * self._model.config.reduction_factor
        )  # frames that a text may have alone; in a batch the longest counts
        # one by one: beside a longer clip the vocoder would hear padding behind the end of a shorter one
        rows = zip(spectrograms, lengths, most.tolist(), strict=True)
        return [self._vocoder(row[: min(length, cap)]).float().cpu().numpy() for row, length, cap in rows]

    def _drop_by_seed(self, seeds: Sequence[tuple[int, int]]) -> None:
        """Let each row of a batch drop the units that its own seed draws; the model's way is one draw for all rows."""
        states = np.random.SeedSequence
        dice = [torch.Generator(self._device).manual_seed(int(states(seed).generate_state(1)[0])) for seed in seeds]

        def dropout(hidden: torch.Tensor, p: float) -> torch.Tensor:  # (texts, frames, units)
            chances = [torch.rand(hidden.shape[1:], generator=one, device=hidden.device) for one in dice]
            return torch.where(torch.stack(chances) < 1 - p, hidden, 0.0) / (1 - p)

        self._model.speecht5.decoder.prenet._consistent_dropout = dropout
