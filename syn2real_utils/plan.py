"""What a profile costs before it is run: models, clips and transcripts to make, hours and gigabytes."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from syn2real_utils import extras, machine, speech
from syn2real_utils.counts import Counts, count
from syn2real_utils.profile import Profile

# Seconds on two cores of a server of 2024 with Whisper base, measured on clips of about 1.5 s; a GPU is many times faster.
SPEAK = {"kokoro": 0.35, "pico": 0.01}  # per clip
TRAIN = 0.055  # per clip and epoch
MODEL = 4.0  # to load and save a fine-tuned model
DECODE = 0.05  # per clip, with its stand-ins for silence
DECODE_FULL = 0.35  # per clip of 30 s
PAIR = 0.4  # to read a pair of models for a vector
NOTEBOOK = 8.0  # to start a notebook's kernel
WEIGHTS_GB = 0.29  # of Whisper base in float32
CLIP_GB = 1.5 * 16_000 * 2 / 1e9  # of a synthetic clip: 16 kHz, 16 bits
Sources = dict[str, tuple[str, ...]]  # target -> its source domains


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
    moved: int = 0  # more folders as large as a model: see `moved_folders`
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
        """Disk for models, vectors, adapted models and synthetic speech, with Whisper base."""
        return WEIGHTS_GB * (self.models + self.moved) + CLIP_GB * sum(self.spoken.values())

    def line(self) -> str:
        """The plan for people."""
        spoken = ", ".join(f"{clips} by {tts}" for tts, clips in self.spoken.items())
        decoded = self.decoded + self.decoded_full
        return (
            f"from nothing: {spoken}; {self.models} models from {self.trained:.0f} clips; {decoded} transcripts; about "
            f"{self.hours:.1f} hours on two cores{unmeasured(self.spoken)}{machine.slower()}, {self.gigabytes:.0f} GB of disk (Whisper base; what is in the store already is not made again)"
        )


def plan(profile: Profile, rows: pd.DataFrame) -> Plan:
    """Count the work of a profile on the real rows of its corpus."""
    domains = set(rows.domain) if profile.sources == "all" else set(profile.sources)
    sources = {target: tuple(sorted(domains - set(speech.group(profile, rows, target)))) for target in profile.targets}
    used, counts = sorted(domains | set(profile.targets)), count(profile, rows)
    found = Plan(
        spoken={part.name: int(counts.spoken[used].sum()) * part.takes for part in profile.tts},
        moved=moved_folders(profile, sources),
        notebooks=5 + 4 * len(profile.targets),
    )
    left_out = {target: speech.selection_domains(profile, rows, domains) for target, domains in sources.items()}
    _add_training(found, profile, counts, sources, left_out)
    _add_sweeps(found, profile, counts, sources, left_out)
    _add_studies(found, profile, counts, sources)
    models, trained, decoded = extras.work(profile, counts, sources, left_out)
    found.models, found.trained, found.decoded = found.models + models, found.trained + trained, found.decoded + decoded
    return found


def moved_folders(profile: Profile, sources: Sources) -> int:
    """Folders as large as a model that a run leaves beside its models, of its first seed.

    The pooled vector of each group of targets and TTS; `adapted` of each target and TTS, in the store and once more in
    runs/NAME/models. Other vectors are made in memory alone.
    """
    return len(profile.tts) * (len(set(sources.values())) + 2 * len(sources))


def _add_training(found: Plan, profile: Profile, counts: Counts, sources: Sources, left_out: Sources) -> None:
    """Pairs of the pooled sources of each group and of each source domain; the target models, and those that choose lam."""
    engines, takes, seeds, trained = len(profile.tts), _takes(profile), len(profile.seeds), 0.0
    pooled = set(sources.values())
    single = {(domain,) for domains in pooled for domain in domains}
    for domains in pooled | single:
        trained += counts.real[list(domains)].sum() + takes * counts.texts[list(domains)].sum()
    targets = {(target, fold) for target in sources for fold in range(counts.folds)}
    targets |= {(d, fold) for chosen in left_out.values() for d in chosen for fold in range(counts.selected)}
    targets -= {(domain, 0) for (domain,) in single if counts.alone(domain)}
    trained += sum(takes * counts.seen * counts.spoken[domain] for domain, _ in targets)
    found.models += seeds * (len(pooled | single) * (1 + engines) + engines * len(targets))
    found.trained += float(trained) * profile.training.epochs * seeds


def _add_sweeps(found: Plan, profile: Profile, counts: Counts, sources: Sources, left_out: Sources) -> None:
    """Every model on its target's clips, the choice of lam on the sources', and the exported models at 30 s.

    A target model at lam 0 is heard once, for all vectors and targets.
    """
    evaluation, engines, seeds = profile.evaluation, len(profile.tts), len(profile.seeds)
    moved, chosen, folds = len(evaluation.lam_grid) - 1, len(evaluation.selection_grid) - 1, counts.folds
    kinds = 1 + bool(evaluation.ensembles)  # of vectors: `adapted`, `ensemble`
    for target, domains in sources.items():
        clips = int(counts.scored[target])
        found.decoded += seeds * clips * (1 + engines * (2 + moved + (kinds - 1) * chosen))
        found.pairs += seeds * engines * (folds + (kinds - 1) * len(domains))
        found.decoded += round(engines * clips / folds)  # the exported models, first seed
        found.decoded_full += round((1 + engines / folds) * clips)  # `pretrained` has neither seed nor TTS
    for domains, left in {domains: list(left_out[target]) for target, domains in sources.items()}.items():
        found.decoded += round(seeds * kinds * engines * counts.selected / folds * counts.scored[left].sum() * chosen)
        found.pairs += seeds * kinds * engines * len(left) * (len(domains) - 1)
    alone = sorted({domain for left in left_out.values() for domain in left} - set(sources))
    found.decoded += round(seeds * engines * counts.selected / folds * counts.scored[alone].sum())


def _add_studies(found: Plan, profile: Profile, counts: Counts, sources: Sources) -> None:
    """Selectors, ensembles and source counts, where the profile asks for them."""
    evaluation, engines = profile.evaluation, len(profile.tts)
    seeds = min(evaluation.study_seeds, len(profile.seeds))
    ensembles = len(evaluation.ensembles) if len(evaluation.ensembles) > 1 else 0
    for target, domains in sources.items():
        if "synthetic-target-devel" in evaluation.selectors:
            heard = counts.spoken[target] * max(counts.folds - 1, 1) * _takes(profile) * (engines - 1)
            found.decoded += round(seeds * heard * len(evaluation.selection_grid))
        means = evaluation.source_orders * len([n for n in evaluation.source_counts if n < len(domains)])
        found.decoded += seeds * engines * int(counts.scored[target]) * (ensembles + means)
    for domains in set(sources.values()):
        read = evaluation.source_orders * sum(n for n in evaluation.source_counts if n < len(domains))
        found.pairs += seeds * engines * (2 * ensembles * len(domains) + read)


def _takes(profile: Profile) -> int:
    """Synthetic clips of each text, of all TTS."""
    return sum(part.takes for part in profile.tts)
