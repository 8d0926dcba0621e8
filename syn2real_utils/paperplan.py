"""What a profile of protocol `paper` costs: an estimate that needs neither the corpus nor a GPU, its assumptions named.

SLURP's texts and recordings per domain and split stand in corpora/slurp_counts.csv (counts alone): `validation` and `test` are
counted in the release; `train` is its total of 11,514 texts and 50,628 recordings, shared out as those two parts are.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from syn2real_utils import extras, machine, needs, plan
from syn2real_utils.errors import UserError, names
from syn2real_utils.profile import Profile, TrainingPart

COUNTS = Path(__file__).parent / "corpora" / "slurp_counts.csv"
STOPS_AT = 3000  # steps after which early stopping is assumed to end a fine-tune
SECONDS = 3.0  # of a clip, the mean of SLURP
GB = {"real": 50e-6, "synthetic": SECONDS * 16_000 * 2 / 1e9}  # per clip: FLAC; 16 kHz, 16 bits


@dataclass(frozen=True)
class Speed:
    """Seconds per clip of one machine."""

    machine: str
    speak: dict[str, float]  # by TTS
    train: dict[str, float]  # by backbone, per step
    decode: dict[str, float]  # by backbone
    notebook: float = plan.NOTEBOOK


# Nothing here was measured: orders of magnitude of one GPU of 2023 in bf16, with the encoder's context cut to the clip.
GPU = Speed(
    "one data-centre GPU in bf16, not measured here",
    {"bark": 0.8, "speecht5": 0.05},
    {"tiny": 0.0012, "base": 0.002, "small": 0.005, "conformer": 0.02},
    {"tiny": 0.002, "base": 0.003, "small": 0.008, "conformer": 0.008},
)
CPU = Speed("two cores", plan.SPEAK, {"base": plan.TRAIN}, {"base": plan.DECODE})
CHECKPOINTS = (
    7  # times the weights: two of them while one is written, each with two moments of Adam, and the best so far
)
WEIGHTS_GB = {"tiny": 0.15, "base": 0.29, "small": 0.97, "conformer": 2.4}  # float32


@dataclass
class Estimate:
    """The whole work of a run that starts from nothing."""

    speed: Speed
    size: str  # of the backbone, as in `WEIGHTS_GB`
    jobs: int
    spoken: dict[str, int]  # clips by TTS
    models: int = 0
    moved: int = 0  # more folders as large as a model: `plan.moved_folders`
    steps: int = 0  # updates of all models, as early stopping is assumed to end them
    steps_at_most: int = 0
    trained: int = 0  # clips times steps, as assumed
    judged: int = 0  # clips that early stopping decodes, as assumed
    decoded: int = 0  # clips times models times lam
    counted: bool = True  # the corpus was there; else the counts of its release
    copied: int = 0  # real clips that are copied from a folder of the user's
    fetched: float = 0.0  # GB; what comes from the hub lies in its own cache too
    assumptions: list[str] = field(default_factory=list)

    def hours(self) -> dict[str, float]:
        """Hours by kind of work, and `all`."""
        speed = self.speed
        found = {
            "speak": sum(speed.speak.get(tts, 1.0) * n for tts, n in self.spoken.items()),
            "fine-tune": _of(speed.train, self.size) * self.trained,
            "early stopping": _of(speed.decode, self.size) * self.judged,
            "transcribe": _of(speed.decode, self.size) * self.decoded,
            "notebooks": speed.notebook * self.jobs,
        }
        return {name: seconds / 3600 for name, seconds in (found | {"all": sum(found.values())}).items()}

    def gigabytes(self) -> float:
        """Disk for models, vectors and adapted models, real and synthetic speech, and what is fetched."""
        speech = GB["real"] * self.copied + GB["synthetic"] * sum(self.spoken.values())
        return WEIGHTS_GB[self.size] * (self.models + self.moved) + speech + self.fetched

    def as_data(self) -> dict[str, object]:
        """For programs."""
        return {
            "estimate": True,
            "machine": self.speed.machine,
            "jobs": self.jobs,
            "spoken": self.spoken,
            "models": self.models,
            "vectors_and_adapted": self.moved,
            "gigabytes_fetched": round(self.fetched, 1),
            "steps": self.steps,
            "steps_at_most": self.steps_at_most,
            "transcripts": self.decoded,
            "hours": {name: round(hours, 1) for name, hours in self.hours().items()},
            "gigabytes": round(self.gigabytes()),
            "assumptions": self.assumptions,
        }

    def lines(self) -> list[str]:
        """For people."""
        hours, slower = self.hours(), machine.slower() if self.speed is CPU else ""
        parts = ", ".join(f"{name} {value:.1f}" for name, value in hours.items() if name != "all")
        spoken = ", ".join(f"{clips:,} by {tts}" for tts, clips in self.spoken.items())
        return [
            "estimate, from nothing (what is in the store already is not made again):",
            f"  clips to speak   {spoken}",
            f"  fine-tunes       {self.models:,} models, {self.steps:,} steps ({self.steps_at_most:,} at most)",
            f"  transcripts      {self.decoded:,}, and {self.judged:,} for early stopping",
            f"  hours            {hours['all']:.{int(hours['all'] < 10)}f} on {self.speed.machine} ({parts}){slower}",
            f"  disk             {self.gigabytes():.0f} GB: {self.models:,} models and {self.moved:,} folders of their size (vectors, "
            f"adapted models in the store and in the run), speech, and {self.fetched:.0f} GB that are fetched",
            *(f"  assumed: {line}" for line in self.assumptions),
        ]


def known(profile: Profile) -> bool:
    """Whether a profile can be estimated without its corpus."""
    return profile.corpus.name == "slurp"


def estimate(profile: Profile, jobs: int, rows: pd.DataFrame | None = None) -> Estimate:
    """Count the work of a profile of protocol `paper`.

    Args:
        profile: of the run.
        jobs: notebooks to execute.
        rows: the real rows of its corpus, with their split; None: the counts of SLURP's release.
    """
    counts = _release(profile) if rows is None else _counts(rows)
    domains = set(counts.domain) if profile.sources == "all" else set(profile.sources)
    if unknown := sorted({*profile.targets, *domains} - set(counts.domain)):
        raise UserError(f"unknown domain '{unknown[0]}': the corpus has {names(sorted(set(counts.domain)), 40)}")
    used = domains | set(profile.targets)
    takes: dict[str, int] = {part.name: part.takes for part in profile.tts}
    spoken = counts[counts.split == "train"] if known(profile) else counts  # the corpus' own parts, or made by hash
    texts = int(spoken[spoken.domain.isin(used)].texts.sum())
    gpu = any(tts in GPU.speak for tts in takes)
    size = next((size for size in ("tiny", "small", "conformer") if size in profile.backbone.name), "base")
    found = Estimate(GPU if gpu else CPU, size, jobs, {tts: texts * n for tts, n in takes.items()})
    found.counted = rows is not None
    found.copied = int(counts[counts.domain.isin(used)].clips.sum()) if profile.corpus.path else 0
    twice = [(need.megabytes or 0) * (1 + (need.source == needs.HUB)) for need in needs.of_profile(profile)]
    found.fetched = sum(twice) / 1000
    number, sources = _Numbers(counts), {target: tuple(sorted(domains - {target})) for target in profile.targets}
    found.moved = plan.moved_folders(profile, sources)
    for target in profile.targets:
        _add_target(found, profile, number, target, list(sources[target]), takes)
    for domain in sorted({domain for others in sources.values() for domain in others}):
        for clips in (number.real(domain), *(number.texts(domain) * n for n in takes.values())):
            _add_model(found, profile.training, clips, number.devel(domain))
    seeds = len(profile.seeds)
    for name in ("models", "steps", "steps_at_most", "trained", "judged", "decoded"):
        setattr(found, name, getattr(found, name) * seeds)
    found.assumptions = _assumptions(found, profile)
    return found


class _Numbers:
    """Lookups in the counts."""

    def __init__(self, counts: pd.DataFrame):
        self.of = counts.set_index(["domain", "split"])[["texts", "clips"]].to_dict("index")

    def real(self, *domains: str) -> int:
        return sum(self.of.get((d, "train"), {"clips": 0})["clips"] for d in domains)

    def texts(self, *domains: str) -> int:
        return sum(self.of.get((d, "train"), {"texts": 0})["texts"] for d in domains)

    def devel(self, domain: str) -> int:
        return sum(self.of.get((domain, s), {"clips": 0})["clips"] for s in ("validation", "devel"))

    def test(self, domain: str) -> int:
        return self.of.get((domain, "test"), {"clips": 0})["clips"]


def _add_target(
    found: Estimate, profile: Profile, number: _Numbers, target: str, sources: list[str], takes: dict[str, int]
) -> None:
    """Models of one target and their transcripts."""
    real, devel, grids = number.real(*sources), number.devel(target), profile.evaluation
    _add_model(found, profile.training, real, devel)
    for n in takes.values():
        spoken = number.texts(*sources) * n
        _add_model(found, profile.training, spoken, devel)
        _add_model(found, profile.training.first_stage(), real + spoken, devel)
        _add_model(found, profile.training, number.texts(target) * n, devel)
        found.decoded += 2 * devel * len(grids.selection_grid)
        found.decoded += number.test(target) * (1 + len(grids.lam_grid) + len(grids.selection_grid))
    found.decoded += 2 * number.test(target)


def _add_model(found: Estimate, part: TrainingPart, clips: int, devel: int) -> None:
    per_step = part.batch_size * part.gradient_accumulation
    most = max(1, min(math.ceil(clips * part.epochs / per_step), part.max_steps or 10**9))
    steps = min(most, STOPS_AT) if part.early_stopping else most
    found.models += 1
    found.steps_at_most += most
    found.steps += steps
    found.trained += min(steps * per_step, math.ceil(clips * part.epochs))
    found.judged += steps // part.early_stopping.steps * devel if part.early_stopping else 0


def _assumptions(found: Estimate, profile: Profile) -> list[str]:
    size, speed = found.size, found.speed
    speak = ", ".join(f"{tts} {speed.speak.get(tts, 1.0):g}" for tts in found.spoken)
    lines = [
        f"seconds per clip on {speed.machine}: {speak}; {size} {_of(speed.train, size):g} a clip and step, "
        f"{_of(speed.decode, size):g} to transcribe" + (", none of it measured here" if speed is GPU else "")
    ]
    if profile.training.early_stopping:
        lines.append(f"early stopping ends a fine-tune at {STOPS_AT:,} steps")
    if profile.training.save_steps:
        size_gb = CHECKPOINTS * WEIGHTS_GB[size]
        lines.append(f"while a model is trained, its checkpoints take {size_gb:.0f} GB more")
    if more := extras.row_names(profile):
        lines.append(f"not counted: {', '.join(more)}")
    if not found.counted:
        lines.append("SLURP's train part shared out over the domains as its devel and test parts are")
    return lines


def _of(speeds: dict[str, float], size: str) -> float:
    return speeds.get(size, speeds["base"] * WEIGHTS_GB[size] / WEIGHTS_GB["base"])


def _release(profile: Profile) -> pd.DataFrame:
    counts = pd.read_csv(COUNTS)
    if getattr(profile.corpus, "recordings", "all") == "headset":
        counts = counts.assign(clips=(counts.clips / 2).round().astype(int))  # about half of all
    return counts


def _counts(rows: pd.DataFrame) -> pd.DataFrame:
    groups = rows.groupby(["domain", "split"])
    return groups.agg(texts=("text_id", "nunique"), clips=("utterance", "size")).reset_index()
