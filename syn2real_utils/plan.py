"""What a profile costs before it is run: models, clips and transcripts to make, hours and gigabytes."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from syn2real_utils import extras, speech
from syn2real_utils.profile import Profile

# Seconds on two cores of a server of 2024 with Whisper base, measured on clips of about 1.5 s; a GPU is many times faster.
SPEAK = {"kokoro": 0.35, "pico": 0.01}  # per clip
TRAIN = 0.055  # per clip and epoch
MODEL = 4.0  # to load and save a fine-tuned model
DECODE = 0.03  # per clip
DECODE_FULL = 0.35  # per clip of 30 s
PAIR = 0.4  # to read a pair of models for a vector
NOTEBOOK = 8.0  # to start a notebook's kernel
WEIGHTS_GB = 0.29  # of Whisper base in float32


def unmeasured(tts: Iterable[str]) -> str:
    """What hours do not count, for people; "" where every TTS has a speed."""
    without = [name for name in tts if name not in SPEAK]
    return (
        f" and the time that {' and '.join(without)} speak{'s' * (len(without) == 1)}, not measured here"
        if without
        else ""
    )


@dataclass
class Plan:
    """The whole work of a run that starts from nothing but its corpus."""

    spoken: dict[str, int] = field(default_factory=dict)  # clips per TTS
    models: int = 0
    trained: float = 0.0  # clips times epochs
    decoded: int = 0  # clips times models times lam
    decoded_full: int = 0  # clips that are heard with 30 s of context
    pairs: int = 0  # pairs of models that are read for a vector
    notebooks: int = 0

    @property
    def hours(self) -> float:
        """Hours on two cores, without speaking by a TTS whose speed was not measured here."""
        seconds = sum(SPEAK[tts] * clips for tts, clips in self.spoken.items() if tts in SPEAK)
        seconds += TRAIN * self.trained + MODEL * self.models
        seconds += DECODE * self.decoded + DECODE_FULL * self.decoded_full + PAIR * self.pairs
        return (seconds + NOTEBOOK * self.notebooks) / 3600

    @property
    def gigabytes(self) -> float:
        """Disk for models and vectors, with Whisper base."""
        return WEIGHTS_GB * self.models * 1.15

    def line(self) -> str:
        """The plan for people."""
        spoken = ", ".join(f"{clips} by {tts}" for tts, clips in self.spoken.items())
        decoded = self.decoded + self.decoded_full
        return (
            f"from nothing: {spoken}; {self.models} models from {self.trained:.0f} clips; {decoded} transcripts; about "
            f"{self.hours:.1f} hours on two cores{unmeasured(self.spoken)}, {self.gigabytes:.0f} GB of disk (Whisper base; what is in the store already is not made again)"
        )


def plan(profile: Profile, rows: pd.DataFrame) -> Plan:
    """Count the work of a profile on the real rows of its corpus."""
    domains = set(rows.domain) if profile.sources == "all" else set(profile.sources)
    texts = rows.drop_duplicates("text_id").domain.value_counts()
    sources = {target: tuple(sorted(domains - set(speech.group(profile, rows, target)))) for target in profile.targets}
    used = sorted(domains | set(profile.targets))
    found = Plan(
        spoken={part.name: int(texts[used].sum()) * part.takes for part in profile.tts},
        notebooks=5 + 4 * len(profile.targets),
    )
    _add_training(found, profile, rows, sources)
    _add_sweeps(found, profile, rows, sources)
    _add_studies(found, profile, rows, sources)
    left_out = {target: speech.selection_domains(profile, rows, domains) for target, domains in sources.items()}
    models, trained, decoded = extras.work(profile, rows, sources, left_out)
    found.models, found.trained, found.decoded = found.models + models, found.trained + trained, found.decoded + decoded
    return found


def _add_training(found: Plan, profile: Profile, rows: pd.DataFrame, sources: dict[str, tuple[str, ...]]) -> None:
    """Pairs of the pooled sources of each group and of each source domain; the target models, and those that choose lam."""
    clips, texts = _counts(rows)
    folds, selected = _folds(profile)
    engines, seeds, trained = len(profile.tts), len(profile.seeds), 0.0
    pooled = set(sources.values())
    single = {(domain,) for domains in pooled for domain in domains}
    for domains in pooled | single:
        trained += clips[list(domains)].sum() + engines * texts[list(domains)].sum()
    targets = {(target, fold) for target in sources for fold in range(folds)}
    for domains in pooled:
        chosen = speech.selection_domains(profile, rows, domains)
        targets |= {(domain, fold) for domain in chosen for fold in range(selected)}
    if folds == 1:  # of known texts: then syn_source of the domain alone is the same model
        targets -= {(domain, 0) for (domain,) in single}
    seen = 1 if folds == 1 else (folds - 1) / folds  # share of a domain's texts that a fold's model is trained on
    trained += sum(engines * seen * texts[domain] for domain, _ in targets)
    found.models += seeds * (len(pooled | single) * (1 + engines) + engines * len(targets))
    found.trained += float(trained) * profile.training.epochs * seeds


def _add_sweeps(found: Plan, profile: Profile, rows: pd.DataFrame, sources: dict[str, tuple[str, ...]]) -> None:
    """Every model on its target's clips, the choice of lam on the sources', and the exported models at 30 s."""
    clips, _ = _counts(rows)
    folds, selected = _folds(profile)
    evaluation, engines, seeds = profile.evaluation, len(profile.tts), len(profile.seeds)
    own, chosen = len(evaluation.lam_grid), len(evaluation.selection_grid)
    for target, domains in sources.items():
        found.decoded += seeds * int(clips[target]) * (1 + engines * (1 + own + chosen))
        found.pairs += seeds * engines * (folds + len(domains))
        found.decoded += round(engines * clips[target] / folds)  # the exported models, first seed
        found.decoded_full += round((1 + engines / folds) * clips[target])  # `pretrained` has neither seed nor TTS
    for domains in set(sources.values()):
        left_out = list(speech.selection_domains(profile, rows, domains))
        found.decoded += round(seeds * 2 * engines * selected / folds * clips[left_out].sum() * chosen)
        found.pairs += seeds * 2 * engines * len(left_out) * (len(domains) - 1)


def _add_studies(found: Plan, profile: Profile, rows: pd.DataFrame, sources: dict[str, tuple[str, ...]]) -> None:
    """Selectors, ensembles and source counts, where the profile asks for them."""
    clips, texts = _counts(rows)
    folds, _ = _folds(profile)
    evaluation, engines = profile.evaluation, len(profile.tts)
    seeds = min(evaluation.study_seeds, len(profile.seeds))
    ensembles = len(evaluation.ensembles) if len(evaluation.ensembles) > 1 else 0
    for target, domains in sources.items():
        if "synthetic-target-devel" in evaluation.selectors:
            heard = texts[target] * max(folds - 1, 1) * sum(part.takes for part in profile.tts) * (engines - 1)
            found.decoded += round(seeds * heard * len(evaluation.selection_grid))
        means = evaluation.source_orders * len([n for n in evaluation.source_counts if n < len(domains)])
        found.decoded += seeds * engines * int(clips[target]) * (ensembles + means)
    for domains in set(sources.values()):
        read = evaluation.source_orders * sum(n for n in evaluation.source_counts if n < len(domains))
        found.pairs += seeds * engines * (2 * ensembles * len(domains) + read)


def _counts(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Clips and texts of each domain."""
    return rows.domain.value_counts(), rows.drop_duplicates("text_id").domain.value_counts()


def _folds(profile: Profile) -> tuple[int, int]:
    """How many parts of a target are scored in turn, and how many of them choose lam."""
    folds = 1 if profile.evaluation.protocol == "catalogue" else profile.evaluation.folds
    return folds, min(profile.evaluation.selection_folds, folds)
