"""What a profile costs before it is run: models, clips and transcripts to make, hours and gigabytes."""

from dataclasses import dataclass

import pandas as pd

from syn2real_utils import extras
from syn2real_utils.profile import Profile

# Seconds on two cores of a server of 2024 with Whisper base, measured on clips of about 1.5 s; a GPU is many times faster.
SPEAK = {"kokoro": 0.6, "pico": 0.04}  # per clip
TRAIN = 0.13  # per clip and epoch
DECODE = 0.06  # per clip
NOTEBOOK = 8.0  # to start a notebook's kernel
WEIGHTS_GB = 0.29  # of Whisper base in float32


@dataclass(frozen=True)
class Plan:
    """The whole work of a run that starts from nothing but its corpus."""

    spoken: dict[str, int]  # clips per TTS
    models: int
    trained: float  # clips times epochs
    decoded: int  # clips times models times lam
    notebooks: int

    @property
    def hours(self) -> float:
        """Hours on two cores."""
        speak = sum(SPEAK.get(tts, 1.0) * clips for tts, clips in self.spoken.items())
        return (speak + TRAIN * self.trained + DECODE * self.decoded + NOTEBOOK * self.notebooks) / 3600

    @property
    def gigabytes(self) -> float:
        """Disk for models and vectors, with Whisper base."""
        return WEIGHTS_GB * self.models * 1.15

    def line(self) -> str:
        """The plan for people."""
        spoken = ", ".join(f"{clips} by {tts}" for tts, clips in self.spoken.items())
        return (
            f"from nothing: {spoken}; {self.models} models from {self.trained:.0f} clips; {self.decoded} transcripts; about "
            f"{self.hours:.1f} hours on two cores, {self.gigabytes:.0f} GB of disk (Whisper base; what is in the store already is not made again)"
        )


def plan(profile: Profile, rows: pd.DataFrame) -> Plan:
    """Count the work of a profile on the real rows of its corpus."""
    clips = rows.domain.value_counts()
    texts = rows.drop_duplicates("text_id").domain.value_counts()
    domains = set(rows.domain) if profile.sources == "all" else set(profile.sources)
    used = sorted(domains | set(profile.targets))
    evaluation, engines, seeds = profile.evaluation, len(profile.tts), len(profile.seeds)
    folds = 1 if evaluation.protocol == "catalogue" else evaluation.folds
    selected = min(evaluation.selection_folds, folds)
    seen = 1 if folds == 1 else (folds - 1) / folds  # share of a domain's texts that a fold's model is trained on
    models, trained, decoded = 0, 0.0, 0
    for target in profile.targets:
        others = [domain for domain in domains if domain != target]
        models += 1 + engines + engines * folds
        trained += clips[others].sum() + engines * (texts[others].sum() + folds * seen * texts[target])
        decoded += int(clips[target]) * (2 + engines * (1 + len(evaluation.lam_grid) + len(evaluation.selection_grid)))
        share = selected / folds
        decoded += round(2 * engines * share * clips[others].sum() * len(evaluation.selection_grid))
    for domain in domains:  # a pair for each, and models that choose lam
        models += 1 + engines * (1 + selected)
        trained += clips[domain] + engines * texts[domain] * (1 + selected * seen)
    more = extras.work(profile, rows)
    return Plan(
        {part.name: int(texts[used].sum()) * part.takes for part in profile.tts},
        models * seeds + more[0],
        float(trained) * profile.training.epochs * seeds + more[1],
        decoded * seeds + more[2],
        5 + 4 * len(profile.targets),
    )
