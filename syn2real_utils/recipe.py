"""How a user's model is fine-tuned, and what that costs: every default of `syn2real adapt` with its reason."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syn2real_utils import checkpoints, machine, plan
from syn2real_utils.backbones import sources
from syn2real_utils.profile import TrainingPart

EPOCHS = (
    3  # our choice: as in our first measurements on whole domains; what is said twice more is learnt, not yet by heart
)
BATCH = 8  # our choice: as there; the released code has 16 for thousands of clips
FEW_CLIPS, SMALL_BATCH = 200, 4  # our choice, as in the quickstart: so few clips need smaller batches for steps enough
LEARNING_RATES = {384: 3e-5, 512: 2e-5}  # width of the model -> released code, Whisper tiny and base
LEARNING_RATE_CTC = 3e-5  # released code, Wav2Vec2-Conformer
LEARNING_RATE = 1e-5  # released code, Whisper small; our choice for what is larger
WEIGHT_DECAY = 0.1  # released code, Whisper tiny and base; the decay pulls little in so few steps
WARMUP = 0.1  # our choice: the released code warms up for 500 steps, more than most domains have
SAVE_STEPS = 200  # our choice: a fine-tune that is stopped loses a few minutes at most
# Paper, figure of WER over lambda; only for --lam devel and --unlabelled
LAM_GRID = [round(0.1 * step, 1) for step in range(11)]

MANY_TEXTS = 10_000  # above it, hours or days: the user is asked

# Seconds of one core of a server of 2024, for each second of speech: measured on 72 clips of 4 s, and for each MB of weights
LETTERS_A_SECOND = 15.0  # Pico has 18, Kokoro and people about 13
SPEAK = {"kokoro": 0.8, "pico": 0.012}
TRAIN = 0.083 / 4.5 / 151  # and epoch; a clip is heard with 0.6 s more than it has
DECODE = 0.05 / 4.5 / 151
DECODE_FULL = 0.32 / 151  # for each clip, padded to 30 s
MOST_THREADS = 8  # more make one model hardly faster
WAV = 0.032  # MB a second


def training(backbone: Path, clips: int) -> TrainingPart:
    """How a backbone is fine-tuned on so many clips."""
    return TrainingPart(
        epochs=EPOCHS,
        batch_size=BATCH if clips >= FEW_CLIPS else SMALL_BATCH,
        learning_rate=learning_rate(backbone),
        warmup_ratio=WARMUP,
        weight_decay=WEIGHT_DECAY,
        save_steps=SAVE_STEPS,
    )


def learning_rate(backbone: Path) -> float:
    """That of the released code for a model of this size."""
    if sources.kind(backbone) == sources.CTC:
        return LEARNING_RATE_CTC
    width = json.loads((backbone / "config.json").read_text(encoding="utf-8")).get("d_model", 0)
    return LEARNING_RATES.get(width, LEARNING_RATE)


@dataclass(frozen=True)
class Estimate:
    """What an adaptation costs when nothing of it is in the store."""

    clips: int
    minutes: float
    megabytes: float
    more: str = ""  # that the minutes do not count

    def line(self) -> str:
        """For people."""
        minutes = max(round(self.minutes), 1)
        time = f"{minutes} minute{'s' * (minutes > 1)}" if minutes < 120 else f"{self.minutes / 60:.0f} hours"
        disk = f"{self.megabytes:.0f} MB" if self.megabytes < 10_000 else f"{self.megabytes / 1000:.0f} GB"
        return f"estimate: {self.clips} clips to speak, about {time} without a GPU{machine.slower()}{self.more}, {disk} of disk; what is in the store is not made again"


def estimate(
    letters: int,
    texts: int,
    tts: Sequence[str],
    takes: int,
    backbone: Path,
    threads: int,
    joint: int,
    scored: int,
    kept: bool = False,
    swept: float = 0.0,
) -> Estimate:
    """Count the work.

    Args:
        letters: of all texts, as they are spoken.
        texts: how many there are.
        tts: engines.
        takes: clips of each text and engine.
        backbone: folder of the pretrained weights.
        threads: of this machine.
        joint: real clips that a second model is trained on, too.
        scored: real clips that are scored.
        kept: whether a share of the pretrained weights is taken back.
        swept: seconds of real clips, at each lam, that choose lam without labels.
    """
    speech = takes * (letters / LETTERS_A_SECOND + 0.6 * texts)  # seconds that one engine says
    weights = sum(4 * t.numel() for t in checkpoints.load_state(backbone).values()) / 1e6
    models = 2 if joint else 1
    seconds = sum(SPEAK[name] * speech for name in tts if name in SPEAK)
    seconds += EPOCHS * weights * TRAIN * (models * speech * len(tts) + 4.5 * joint)
    seconds += scored * weights * (2 + models) * (DECODE_FULL + 4.5 * DECODE)
    seconds += swept * weights * DECODE
    minutes = 1 + seconds / (0.9 * min(threads, MOST_THREADS)) / 60  # a minute to start and to write
    folders = 1 + 2 * models + 3 * (len(tts) > 1) + 3 * kept  # in the store and at --out
    megabytes = weights * folders + WAV * speech * len(tts)
    return Estimate(texts * takes * len(tts), minutes, megabytes, plan.unmeasured(tts))
