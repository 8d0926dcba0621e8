"""A profile: one experiment's whole configuration, read from YAML and checked before anything runs."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from syn2real_utils.errors import UserError, names

FOLDER = Path(__file__).parent / "profiles"
Count = Annotated[int, Field(gt=0)]
Protocol = Literal["strict", "catalogue"]


class Part(BaseModel):
    """A section of a profile; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CorpusPart(Part):
    """Which real speech."""

    name: Literal["tuxpaint", "slurp", "folder"]
    language: str  # ISO 639-1, e.g. "es"
    path: str | None = None  # folder of the user's AudioFolder, or of the corpus as its authors release it
    source: Literal["official", "hub"] = (
        "official"  # of slurp without a path: its authors' release, or the hub's copy of it
    )
    recordings: Literal["all", "headset"] = "all"  # of slurp: both microphones, or the close one alone
    merge: dict[str, list[str]] = {}  # new domain: the corpus' own folders that go into it
    # per domain, chosen by hash; a mapping caps the domains that it names; None: all
    max_utterances: Count | dict[str, Count] | None = None

    @model_validator(mode="after")
    def _of_slurp(self):
        if self.name != "slurp" and (self.source, self.recordings) != ("official", "all"):
            raise ValueError(f"source and recordings are of the corpus slurp, not of {self.name}")
        return self

    def most(self, domain: str) -> int | None:
        """How many utterances of a domain are kept at most; None: all."""
        cap = self.max_utterances
        return cap.get(domain) if isinstance(cap, dict) else cap


class RoundTripPart(Part):
    """An ASR that listens to synthetic clips; those that it does not understand are flagged."""

    asr: str  # any Whisper as `backbone.name` takes it, but not the one under test
    max_cer: float = Field(ge=0)  # of the normalised transcript against the text; a clip above it is flagged


class TtsPart(Part):
    """Which synthetic speech."""

    name: Literal["kokoro", "pico", "bark", "speecht5"]
    voices: list[str] | None = None  # None: all that the engine has for the language
    takes: Count = 1  # renderings per text
    seed: int = 0  # of the schedule of voices, speeds and pitches
    model: str | None = None  # of bark and speecht5: hub name or local folder; None: the published one
    # of speecht5: cmu-arctic (also None; released code), source (those of the source domains' real clips), or a folder of clips
    speakers: str | None = None
    # of bark and speecht5: texts spoken at once; lower it when the memory is too small, the clips are the same up to rounding
    batch_size: Count = 16
    round_trip: RoundTripPart | None = None

    @model_validator(mode="after")
    def _fields_of_this_engine(self):
        for field, engines in {"model": ("bark", "speecht5"), "speakers": ("speecht5",)}.items():
            if getattr(self, field) is not None and self.name not in engines:
                raise ValueError(f"{field} is for {names(engines)}, not for {self.name}")
        return self

    def identity(self) -> dict[str, object]:
        """What the clips depend on; a field that came later is left out where it is unset, so that no key changes."""
        values = self.model_dump(mode="json", exclude={"batch_size"})
        return {key: value for key, value in values.items() if value is not None or key == "voices"}


class BackbonePart(Part):
    """Which ASR model is `pretrained`."""

    name: str  # package-carried (base, tiny.en), a local folder, or a hub name such as openai/whisper-small
    context_margin: float = Field(0.2, ge=0)  # seconds of silence kept behind a clip when the context is cut to it
    context_step: float = Field(0.4, gt=0)  # seconds; contexts are rounded up to a multiple of it
    # of the products; weights, their updates, sums and norms are float32 always
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the machine computes in it


class TrainingPart(Part):
    """How a model is fine-tuned."""

    epochs: float = Field(gt=0)
    batch_size: Count
    learning_rate: float = Field(gt=0)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    save_steps: int = Field(
        0, ge=0
    )  # steps between checkpoints to resume from; 0: none, an interrupted fine-tune starts anew


class EvaluationPart(Part):
    """How models are compared."""

    protocol: Protocol = "strict"
    folds: int = Field(2, ge=2)  # parts of the target's texts; each is scored by the model that did not see it
    lam_grid: list[float]  # of the target
    selection_grid: list[float]  # of the left-out source domains: the lam that can be chosen
    selection_folds: Count = 1  # of the folds of each left-out source domain, how many choose lam
    batch_size: Count = 32
    bootstrap_samples: Count = 2000
    confidence: float = Field(0.95, gt=0, lt=1)

    @model_validator(mode="after")
    def _grid_rises_from_zero(self):
        for name in ("lam_grid", "selection_grid"):
            grid = getattr(self, name)
            if not grid or grid[0] != 0 or sorted(set(grid)) != grid:
                raise ValueError(f"{name} must rise from 0 without repeats")
        if not set(self.selection_grid) <= set(self.lam_grid):
            raise ValueError("selection_grid must be part of lam_grid")
        if self.selection_folds > self.folds:
            raise ValueError("selection_folds must not exceed folds")
        return self


class JobPart(Part):
    """What a job asks a cluster for; its CPUs are the profile's `threads`, on which the results depend."""

    memory_gb: float | None = Field(None, gt=0)
    minutes: Count | None = None  # None: what the partition allows
    gpus: Annotated[int, Field(ge=0)] | None = None
    partition: str | None = None
    account: str | None = None
    more: dict[
        str, int | str
    ] = {}  # any other resource that Snakemake's plug-in knows, e.g. qos, constraint, slurm_extra


class ResourcesPart(Part):
    """What jobs ask a cluster for. A run on one machine, and what is made, have nothing of it."""

    every: JobPart = JobPart()  # every job
    notebooks: dict[str, JobPart] = {}  # notebook, or "report": what it asks for instead
    retries: int = Field(2, ge=0)  # times that a job is started again that failed, or whose node was lost

    def job(self, name: str) -> JobPart:
        """What the job of one notebook asks for."""
        own = self.notebooks.get(name, JobPart())
        values = own.model_dump(exclude_none=True) | {"more": self.every.more | own.more}
        return self.every.model_copy(update=values)


class Profile(Part):
    """One experiment."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    description: str
    corpus: CorpusPart
    targets: Annotated[list[str], Field(min_length=1)]
    sources: list[str] | Literal["all"] = "all"  # a target is never among its own sources
    tts: Annotated[list[TtsPart], Field(min_length=1)]
    backbone: BackbonePart
    training: TrainingPart
    evaluation: EvaluationPart
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    threads: Count = 2  # of one model; results are the same bytes only for the same number of threads
    resources: ResourcesPart = ResourcesPart()  # of jobs on a cluster

    @model_validator(mode="after")
    def _each_once(self):
        sources = [] if self.sources == "all" else self.sources
        named: dict[str, list] = {
            "targets": self.targets,
            "sources": sources,
            "seeds": self.seeds,
            "tts": [p.name for p in self.tts],
        }
        for key, values in named.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{key} must name each of its values once, not {names(values)}")
        for part in self.tts:
            if part.round_trip and _same_asr(part.round_trip.asr, self.backbone.name):
                raise ValueError(
                    f"tts.round_trip.asr must be another ASR than the one under test, {self.backbone.name}"
                )
        if "all" in self.targets:
            raise ValueError("targets must not hold 'all', which stands for all of them in the tables")
        return self

    def tts_part(self, name: str) -> TtsPart:
        """The settings of one TTS engine of this profile."""
        for part in self.tts:
            if part.name == name:
                return part
        raise UserError(f"profile {self.name} has no TTS '{name}': it has {names(p.name for p in self.tts)}")

    def check_target(self, target: str) -> str:
        """Return `target` if it is one of the profile's targets."""
        if target not in self.targets:
            raise UserError(f"profile {self.name} has no target domain '{target}': it has {names(self.targets)}")
        return target

    def to_yaml(self) -> str:
        """The resolved profile as YAML that `load_profile` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def load_profile(name: str | Path, overrides: dict[str, object] | None = None) -> Profile:
    """Read and check a profile.

    Args:
        name: a profile of the package (`quickstart`) or the path of a YAML file.
        overrides: dotted key -> value, e.g. {"training.epochs": 1}.

    Raises:
        UserError: no such profile, no YAML, or an unknown, missing or ill-typed key.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        raise UserError(f"no profile '{name}': use one of {names(profile_names())}, or the path of a YAML file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no profile: expected keys such as name, corpus, tts")
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    try:
        return _rooted(Profile.model_validate(values))
    except ValidationError as error:
        raise UserError(f"profile {name}: {_explain(error)}") from error


def parse_overrides(pairs: list[str]) -> dict[str, object]:
    """`["training.epochs=1"]` -> `{"training.epochs": 1}`; values are read as YAML."""
    result = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise UserError(f"--set '{pair}': expected key=value, e.g. training.epochs=1")
        try:
            result[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set '{pair}': the value is no YAML") from error
    return result


def _rooted(profile: Profile) -> Profile:
    """The profile with absolute paths: notebooks work in another folder than the command line."""
    corpus, backbone, tts = profile.corpus, profile.backbone, profile.tts
    if corpus.path is not None:
        corpus = corpus.model_copy(update={"path": str(Path(corpus.path).expanduser().resolve())})
    if backbone.name.startswith((".", "~", "/")):
        backbone = backbone.model_copy(update={"name": str(Path(backbone.name).expanduser().resolve())})
    tts = [part.model_copy(update=_rooted_paths(part)) for part in tts]
    return profile.model_copy(update={"corpus": corpus, "backbone": backbone, "tts": tts})


def _rooted_paths(part: TtsPart) -> dict[str, str]:
    paths = {"model": part.model, "speakers": part.speakers}
    return {key: str(Path(p).expanduser().resolve()) for key, p in paths.items() if p and p.startswith((".", "~", "/"))}


def _same_asr(one: str, other: str) -> bool:
    return one.removeprefix("openai/whisper-") == other.removeprefix("openai/whisper-")


def _set(values: dict, dotted: str, value: object) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            raise UserError(f"--set {dotted}: the profile has no section '{parent}'")
        values = values[parent]
    values[last] = value


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key '{where}': use one of {names(_keys_beside(first['loc']))}"
    if first["type"] == "missing":
        return f"key '{where}' is missing"
    if not where:
        return first["msg"].removeprefix("Value error, ")
    return f"{where}: {first['msg'].removeprefix('Value error, ')} (found {first['input']!r})"


def _keys_beside(location: tuple) -> list[str]:
    parts = {
        "corpus": CorpusPart,
        "tts": TtsPart,
        "backbone": BackbonePart,
        "training": TrainingPart,
        "evaluation": EvaluationPart,
        "resources": ResourcesPart if len(location) == 2 else JobPart,
    }
    owner = Profile if len(location) == 1 else parts.get(str(location[0]), Profile)
    return list(owner.model_fields)  # type: ignore[attr-defined]
