"""What every ASR backbone can do, and the way to open one: by the model_type in its folder's config.json.

Stages, training, evaluation and transcription know no other interface, so an architecture is one file here.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from syn2real_utils import audio
from syn2real_utils.backbones import sources
from syn2real_utils.errors import UserError, names
from syn2real_utils.machine import Precision

if TYPE_CHECKING:
    from syn2real_utils.profile import BackbonePart, TrainingPart

LONGEST = 30.0  # seconds of a clip: all that Whisper hears, and much for attention whose memory grows with the square
IGNORED = -100  # label that the loss skips
Batch = dict[str, torch.Tensor]  # what a model's forward takes


def check_finite(model: torch.nn.Module, folder: Path) -> None:
    """Raise UserError where the weights of a folder are no numbers: such a model hears the same in every clip."""
    if odd := [
        key for key, tensor in [*model.named_parameters(), *model.named_buffers()] if not tensor.isfinite().all()
    ]:
        raise UserError(f"{folder} holds numbers that are not finite in {names(odd, 3)}: fetch or make it again")


@dataclass(frozen=True)
class Example:
    """One clip as the model sees it."""

    features: torch.Tensor  # its last dimension is time
    labels: torch.Tensor  # (tokens,)


@dataclass(frozen=True)
class Heard:
    """A transcript, and how sure the model was of it: of its tokens and the end of text, by natural logarithms."""

    text: str
    tokens: int
    logprob: float  # summed over the tokens
    entropy: float  # of what could have come in each token's place, summed


class Backbone(Protocol):
    """What is needed beside the weights: features, labels, batches, what a fine-tune may move, and greedy decoding."""

    tells_sureness: bool  # whether `hear` can say how sure the model was
    folder: Path  # of `pretrained`, with tokenizer and settings
    language: str
    part: "BackbonePart"
    precision: Precision

    def load(self, folder: Path | None = None) -> Any:
        """The model of a folder (this backbone's own if none is given) in float32, ready to decode."""

    def features(self, path: Path | str, full: bool = False) -> torch.Tensor:
        """What the model takes of a clip, time last; `full`: padded to 30 s where the architecture knows that."""

    def of_wave(self, wave: np.ndarray, full: bool = False) -> torch.Tensor:
        """`features` of samples at `audio.SAMPLE_RATE`."""

    def check(self, texts: Sequence[str]) -> None:
        """Raise UserError where the model cannot write these texts."""

    def labels(self, text: str) -> torch.Tensor:
        """Tokens that the model learns to write for `text`: int64 (tokens,)."""

    def stacked(self, clips: Sequence[torch.Tensor]) -> Batch:
        """Features of several clips as one batch."""

    def collate(self, examples: Sequence[Example]) -> Batch:
        """`stacked` with labels (batch, tokens), padded with `IGNORED`."""

    def hearing(self, model: Any, batch: Batch) -> AbstractContextManager[Batch]:
        """Let the model take this batch inside the block; yields what its forward takes then."""

    def learning(self, model: Any, part: "TrainingPart") -> AbstractContextManager[None]:
        """Let the model be fine-tuned inside the block: what is frozen, its loss. Its config is put back after it."""

    def transcribe(
        self, model: Any, clips: Sequence[torch.Tensor], batch_size: int, drafts: Sequence[str] | None = None
    ) -> list[str]:
        """Greedy transcripts of features, in their order; `drafts` that are nearly right may save time."""

    def hear(
        self, model: Any, clips: Sequence[torch.Tensor], batch_size: int, drafts: Sequence[str] | None = None
    ) -> list[Heard]:
        """`transcribe`, with how sure the model was.

        Raises:
            UserError: the architecture cannot say.
        """

    def loss(self, model: Any, examples: Sequence[Example], batch_size: int) -> tuple[float, int]:
        """What the right transcripts cost the model, each token given the right ones: summed nats, and how many tokens."""


def open_backbone(folder: Path, language: str, part: "BackbonePart") -> Backbone:
    """The backbone in a `save_pretrained` folder.

    Raises:
        UserError: no model that can be fine-tuned here, or it does not know the language.
    """
    return _kind_of(folder)(folder, language, part)


def own_language(folder: Path) -> str | None:
    """The language that a model says it is for: ISO 639-1; None: it knows several and names none."""
    return _kind_of(folder).own_language(folder)


def read_clip(path: Path | str, who: str) -> np.ndarray:
    """Samples of a clip at `audio.SAMPLE_RATE`; `who` hears it.

    Raises:
        UserError: the clip is unreadable or longer than `LONGEST`.
    """
    wave = audio.read(path)
    seconds = len(wave) / audio.SAMPLE_RATE
    if seconds > LONGEST:
        raise UserError(
            f"the clip {path} lasts {seconds:.0f} s: {who} hears {LONGEST:.0f} s at most, cut it into shorter clips"
        )
    return wave


def _kind_of(folder: Path) -> Any:
    if sources.kind(folder) == sources.WHISPER:
        from syn2real_utils.backbones.whisper import Whisper  # these import transformers, which takes seconds

        return Whisper
    from syn2real_utils.backbones.ctc import CTC

    return CTC
