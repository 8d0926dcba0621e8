"""A profile: one experiment's whole configuration, read from YAML and checked before anything runs."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from syn2real_utils.backbones.sources import carried
from syn2real_utils.errors import UserError, likely, names

FOLDER = Path(__file__).parent / "profiles"
ARCTIC, SOURCE = "cmu-arctic", "source"  # whose x-vectors are the speakers of a TTS; anything else is a folder of clips
Count = Annotated[int, Field(gt=0)]
MOST_THREADS = 256  # with very many more OpenMP ends the process
Length = Annotated[float, Field(gt=0)]
Span = tuple[Length, Length]  # metres, from and to
Rival = Literal[
    "null-seeds", "null-shuffled", "null-random", "wise-ft", "weight-average", "joint", "two-stage", "specaugment", "noise", "rir",
]  # fmt: skip
Place = Literal[
    "encoder", "decoder", "attention", "feed-forward", "front-end", "embeddings", "norms", "rising", "falling", "front", "back",
]  # fmt: skip
Protocol = Literal["strict", "catalogue", "paper"]
Reproduced = Literal["table1", "table2", "table3", "fig4", "fig5", "ensemble"]


class Part(BaseModel):
    """A section of a profile; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    later: ClassVar[tuple[str, ...]] = ()  # fields that came after the first artifacts

    def key(self, *left_out: str) -> dict:
        """The values in a store's key. Later fields are no part of it at their defaults: what was made before stays valid."""
        default = [name for name in self.later if getattr(self, name) == type(self).model_fields[name].default]
        return self.model_dump(exclude={*default, *left_out})


class CorpusPart(Part):
    """Which real speech."""

    name: Literal["tuxpaint", "asterisk", "slurp", "folder"]
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

    later = ("batchnorm",)
    name: str  # package-carried (base, tiny.en), a local folder, or a hub name such as openai/whisper-small
    context_margin: float = Field(0.2, ge=0)  # seconds of silence kept behind a clip when the context is cut to it
    context_step: float = Field(0.4, gt=0)  # seconds; contexts are rounded up to a multiple of it
    # of the products; weights, their updates, sums and norms are float32 always
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the machine computes in it
    # statistics of a Conformer's BatchNorm in syn_target + lam * tau: of syn_target (released code), or anew on the synthetic
    # speech of the target; lam 0 is syn_target itself either way
    batchnorm: Literal["target", "re-estimate"] = "target"


class EarlyStoppingPart(Part):
    """The checkpoint of the lowest WER on real speech of the target's devel part is kept; only in protocol `paper`."""

    steps: Count  # updates between evaluations
    patience: Count  # evaluations without a lower WER after which a fine-tune ends


class MixedPart(Part):
    """Protocol `paper`: a first stage on real and synthetic source speech, from which the target model goes on."""

    factor: float = Field(0.1, gt=0)  # of the learning rate in the second stage; released code
    max_steps: Count | None = None  # of the first stage; None: as every fine-tune
    patience: Count | None = None  # of the first stage; None: as every fine-tune


class TrainingPart(Part):
    """How a model is fine-tuned."""

    later = (
        "gradient_accumulation",
        "mask_time_prob",
        "mask_feature_prob",
        "warmup_steps",
        "max_steps",
        "early_stopping",
    )
    epochs: float = Field(gt=0)
    batch_size: Count  # clips that are heard at once; an update sees batch_size * gradient_accumulation
    gradient_accumulation: Count = 1  # batches of one update: less memory than one batch of so many clips
    gradient_checkpointing: bool = (
        False  # compute activations twice: less memory, about a third more time, the same bytes
    )
    processes: Count = 1  # that share each update's batches, one for each GPU; must divide gradient_accumulation
    # SpecAugment, in stretches of 10 frames or features, as transformers draws them
    mask_time_prob: float = Field(0.0, ge=0, lt=1)  # share of a clip's frames that is masked, if stretches never met
    mask_feature_prob: float = Field(0.0, ge=0, lt=1)  # the same of its features (of Whisper: mel bins)
    learning_rate: float = Field(gt=0)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)  # share of a fine-tune's updates in which the learning rate rises
    warmup_steps: Count | None = None  # so many updates instead, however long a fine-tune is
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    save_steps: int = Field(
        0, ge=0
    )  # steps between checkpoints to resume from; 0: none, an interrupted fine-tune starts anew
    max_steps: Count | None = None  # updates; ends a fine-tune whose epochs would take more
    early_stopping: EarlyStoppingPart | None = None
    mixed: MixedPart = MixedPart()

    def first_stage(self) -> "TrainingPart":
        """How the model on mixed source speech is fine-tuned (protocol `paper`)."""
        stopping, own = self.early_stopping, self.mixed
        if stopping and own.patience:
            stopping = stopping.model_copy(update={"patience": own.patience})
        return self.model_copy(update={"max_steps": own.max_steps or self.max_steps, "early_stopping": stopping})

    @model_validator(mode="after")
    def _shares(self):
        if self.gradient_accumulation % self.processes:
            raise ValueError(
                f"gradient_accumulation {self.gradient_accumulation} must be a multiple of processes {self.processes}"
            )
        return self


Selector = Annotated[
    str,
    Field(pattern=r"^(leave-one-source-out|synthetic-target-devel|confidence|entropy|norm-matched|fixed-\d+(\.\d+)?)$"),
]
Ensemble = Literal["mean", "norm-weighted", "similarity-weighted", "ties", "dare", "seed-averaged"]


class AugmentationPart(Part):
    """How synthetic speech is augmented, for the rivals that train on it."""

    seed: int = 0
    snr_db: tuple[float, float] = (5.0, 20.0)  # our choice: from a loud street to a quiet room
    rt60_s: tuple[Length, Length] = (0.2, 0.6)  # seconds of echo; our choice: furnished rooms of homes
    room_m: tuple[Span, Span, Span] = ((3.0, 8.0), (3.0, 6.0), (2.4, 3.5))  # length, width, height; our choice: homes
    max_order: Count = 12  # reflections that are followed; our choice: later ones are faint, and take most of the time
    tail_s: float = Field(0.2, ge=0)  # of echo that is kept behind a clip
    mask_time_prob: float = Field(0.05, ge=0, lt=1)  # of SpecAugment; transformers: the default of WhisperConfig
    mask_feature_prob: float = Field(0.1, ge=0, lt=1)  # our choice: about one stretch of 10 mel bins in a clip

    def settings(self, how: str) -> dict:
        """What clips that are augmented `how` depend on."""
        own = {"noise": {"snr_db"}, "rir": {"rt60_s", "room_m", "max_order", "tail_s"}}[how]
        return self.model_dump(mode="json", include=own | {"seed"})


class EvaluationPart(Part):
    """How models are compared."""

    protocol: Protocol = "strict"
    folds: int = Field(2, ge=2)  # parts of the target's texts; each is scored by the model that did not see it
    lam_grid: list[float]  # of the target
    selection_grid: list[float]  # of the left-out source domains: the lam that can be chosen
    selection_folds: Count = 1  # of the folds of each left-out source domain, how many choose lam
    # the source domains that are left out in turn to choose lam: so many of the largest, or these; None: all
    selection_domains: Count | Annotated[list[str], Field(min_length=1)] | None = None
    selectors: list[Selector] = ["leave-one-source-out"]  # ways to choose lam that are compared; the first is used
    ensembles: list[Ensemble] = [
        "mean"
    ]  # ways to make one vector of several; the first is the model `ensemble`; none: no such model
    ties_density: float = Field(0.2, gt=0, le=1)  # TIES paper: the 20 % of largest magnitude stay
    dare_density: float = Field(0.1, gt=0, le=1)  # DARE paper: 90 % of a fine-tune's changes can be dropped
    source_counts: list[Count] = []  # how many source domains the mean is taken over, each a point of a curve
    source_orders: Count = 3  # seeded orders of the source domains, of whose first so many the mean is taken
    study_seeds: Count = (
        1  # how many of the seeds hear selectors, ensembles but the first, source counts, rivals, places
    )
    batch_size: Count = 32
    bootstrap_samples: int = Field(10_000, gt=0, le=1_000_000)  # more take too much memory
    confidence: float = Field(0.95, gt=0, le=0.99999)
    rivals: list[Rival] = []  # null vectors and other methods beside the task vector; rivals.py says what each is
    places: list[Place] = []  # parts of the vector that are added alone; directions.py says what each is
    transfer: bool = False  # add the vector of one TTS to the target model of another
    loss_plane: Annotated[int, Field(ge=0)] = 0  # points a side of the plane of the target's loss; 0: none

    def is_sure(self) -> bool:
        """Whether a selector asks how sure a model was."""
        return bool({"confidence", "entropy"} & set(self.selectors))

    @model_validator(mode="after")
    def _grid_rises_from_zero(self):
        from syn2real_utils.selection import DIGITS  # pandas takes a second to import

        for name in ("lam_grid", "selection_grid"):
            grid = getattr(self, name)
            if not grid or grid[0] != 0 or sorted(set(grid)) != grid:
                raise ValueError(f"{name} must rise from 0 without repeats")
            if finer := [lam for lam in grid if round(lam, DIGITS) != lam]:
                raise ValueError(f"{name} has {finer[0]}: at most {DIGITS} digits of a lam are kept")
        if not set(self.selection_grid) <= set(self.lam_grid):
            raise ValueError("selection_grid must be part of lam_grid")
        if self.selection_folds > self.folds:
            raise ValueError("selection_folds must not exceed folds")
        return self

    @model_validator(mode="after")
    def _studies_start_from_the_default(self):
        for name, first in (("selectors", "leave-one-source-out"), ("ensembles", "mean"), ("source_counts", None)):
            values = getattr(self, name)
            if first and values[:1] != [first] and (values or name == "selectors"):
                raise ValueError(f"{name} must start with {first}, which every table holds")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must name each of its values once, not {names(values)}")
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

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    description: str
    corpus: CorpusPart
    targets: Annotated[list[str], Field(min_length=1)]
    sources: list[str] | Literal["all"] = "all"  # a target is never among its own sources
    # no domain of a target's group is a source of it, so that the targets of a group share their source models: domains by
    # the group's name, or into how many groups of about as many words the targets are divided; None: each is its own
    groups: Count | dict[str, Annotated[list[str], Field(min_length=1)]] | None = None
    tts: Annotated[list[TtsPart], Field(min_length=1)]
    backbone: BackbonePart
    training: TrainingPart
    evaluation: EvaluationPart
    augmentation: AugmentationPart = AugmentationPart()
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)] = [0]
    threads: int = Field(
        2, gt=0, le=MOST_THREADS
    )  # of one model; results are the same bytes only for the same number of threads
    resources: ResourcesPart = ResourcesPart()  # of jobs on a cluster
    reproduces: Reproduced | None = None  # what of the paper a run is set beside; see papertables.py

    @model_validator(mode="after")
    def _each_once(self):
        if self.name in ("artifacts", "notebooks"):
            raise ValueError(f"name {self.name}: runs/{self.name} holds something else; choose another name")
        sources = [] if self.sources == "all" else self.sources
        named: dict[str, list] = {
            "targets": self.targets,
            "sources": sources,
            "seeds": self.seeds,
            "tts": [p.name for p in self.tts],
            "evaluation.rivals": self.evaluation.rivals,
            "evaluation.places": self.evaluation.places,
        }
        for key, values in named.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{key} must name each of its values once, not {names(values)}")
        for part in self.tts:
            if part.round_trip and _same_asr(part.round_trip.asr, self.backbone.name):
                raise ValueError(
                    f"tts.round_trip.asr must be another ASR than the one under test, {self.backbone.name}"
                )
        if isinstance(self.groups, dict):
            grouped = [domain for group in self.groups.values() for domain in group]
            if len(set(grouped)) < len(grouped):
                raise ValueError(f"groups must name each domain once, not {names(grouped)}")
        if isinstance(self.groups, int) and self.groups > len(self.targets):
            raise ValueError(f"groups must be at most {len(self.targets)}, as there are targets, not {self.groups}")
        if "synthetic-target-devel" in self.evaluation.selectors and len(self.tts) < 2:
            raise ValueError("the selector synthetic-target-devel needs a second TTS, which the model did not hear")
        if "seed-averaged" in self.evaluation.ensembles and len(self.seeds) < 2:
            raise ValueError("the ensemble seed-averaged needs several seeds")
        if self.reproduces == "ensemble" and not self.evaluation.ensembles:
            raise ValueError("reproduces ensemble needs one: give evaluation.ensembles, or leave reproduces out")
        if self.evaluation.protocol == "paper" and self.evaluation.rivals:
            raise ValueError("evaluation.rivals are compared in protocol strict and catalogue: leave them out of paper")
        if self.evaluation.protocol == "paper" and "norm-matched" in self.evaluation.selectors:
            raise ValueError(
                "the selector norm-matched hears source domains, which protocol paper does not: leave it out"
            )
        if self.evaluation.rivals and self.backbone.batchnorm != "target":
            raise ValueError("rivals are compared with backbone.batchnorm target: their models hear other speech")
        if self.evaluation.transfer and len(self.tts) < 2:
            raise ValueError("evaluation.transfer goes from one TTS to another: give `tts` two of them at least")
        if "all" in self.targets:
            raise ValueError("targets must not hold 'all', which stands for all of them in the tables")
        if self.training.early_stopping and self.evaluation.protocol != "paper":
            raise ValueError(
                "training.early_stopping looks at real speech of the target: leave it out, or set evaluation.protocol to paper"
            )
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
        name: a profile of the package (`quickstart`) or the path of a YAML file; its key `extends` names another whose
            values hold where it has none.
        overrides: dotted key -> value, e.g. {"training.epochs": 1}.

    Raises:
        UserError: no such profile, no YAML, or an unknown, missing or ill-typed key.
    """
    values = _read(name)
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    try:
        return _rooted(Profile.model_validate(values))
    except ValidationError as error:
        raise UserError(f"profile {name}: {_explain(error)}") from error


class _Loader(yaml.SafeLoader):
    """As `yaml.safe_load`, which keeps the last of two equal keys and drops the first without a word: here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        found = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in found:
                raise yaml.MarkedYAMLError(problem=f"key '{key.value}' stands twice", problem_mark=key.start_mark)
            found.add(key.value)
        return super().construct_mapping(node, deep)


def _read(name: str | Path, above: tuple[str, ...] = ()) -> dict:
    """Values of a profile's YAML; what it `extends` is read first, and its own keys replace those."""
    path = FOLDER / f"{name}.yaml"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        asked = f"profile {above[-1]} extends '{name}', which is no profile" if above else f"no profile '{name}'"
        raise UserError(f"{asked}: use one of {likely(str(name), profile_names())}, or the path of a YAML file")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}, can't be read as YAML: {problem or str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no profile: expected keys such as name, corpus, tts")
    if (base := values.pop("extends", None)) is None:
        return values
    beside = path.parent / str(base)  # a path is meant from the file that names it
    found = str(beside if beside.is_file() else base)
    if Path(found).resolve() in {Path(other).resolve() for other in (*above, str(name))}:
        raise UserError(f"profile {name} extends itself: {' -> '.join((*above, str(name), found))}")
    return _merged(_read(found, (*above, str(name))), values)


def _merged(base: dict, own: dict) -> dict:
    """`own` over `base`; sections are merged, anything else is replaced."""
    both = {k: _merged(base[k], v) for k, v in own.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return base | own | both


def parse_overrides(pairs: list[str]) -> dict[str, object]:
    """`["training.epochs=1"]` -> `{"training.epochs": 1}`; values are read as YAML."""
    result: dict[str, object] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise UserError(f"--set '{pair}': expected key=value, e.g. training.epochs=1")
        try:
            found = yaml.load(value, Loader=_Loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
            said = getattr(error, "problem", None) or type(error).__name__
            raise UserError(f"--set '{pair[:200]}': the value is no YAML ({said})") from error
        if key in result:
            raise UserError(f"--set {key}=... is given more than once: choose one value")
        result[key] = found
    return result


def _rooted(profile: Profile) -> Profile:
    """The profile with absolute paths: notebooks work in another folder than the command line."""
    corpus, backbone, tts = profile.corpus, profile.backbone, profile.tts
    if corpus.path is not None:
        corpus = corpus.model_copy(update={"path": str(Path(corpus.path).expanduser().resolve())})
    backbone = backbone.model_copy(update={"name": rooted_backbone(backbone.name)})
    tts = [part.model_copy(update=_rooted_paths(part)) for part in tts]
    return profile.model_copy(update={"corpus": corpus, "backbone": backbone, "tts": tts})


def _rooted_paths(part: TtsPart) -> dict[str, object]:
    found: dict[str, object] = {key: rooted(p) for key, p in (("model", part.model), ("speakers", part.speakers)) if p}
    if part.round_trip:
        found["round_trip"] = part.round_trip.model_copy(update={"asr": rooted_backbone(part.round_trip.asr)})
    return found


def rooted_backbone(name: str) -> str:
    """As `rooted`; a backbone that packages carry is meant whatever lies here."""
    return name if carried(name) else rooted(name)


def rooted(name: str) -> str:
    """The whole path where a name means a folder; any other name as it is."""
    folder = Path(name).expanduser()
    is_folder = ("/" in name and folder.is_dir()) or (folder / "config.json").is_file()
    return str(folder.resolve()) if name.startswith((".", "~", "/")) or is_folder else name


def _same_asr(one: str, other: str) -> bool:
    return one.removeprefix("openai/whisper-") == other.removeprefix("openai/whisper-")


def _set(values: dict, dotted: str, value: object) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        if isinstance(values.get(parent), list):
            raise UserError(f"--set {dotted}: '{parent}' is a list: give it whole, such as {parent}=[...]")
        if not isinstance(section := values.get(parent), dict | None):
            raise UserError(f"--set {dotted}: '{parent}' is a value and no section")
        values[parent] = dict(section or {})  # a copy: what YAML's aliases stand for is one object
        values = values[parent]
    values[last] = value


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key '{where}': use one of {likely(str(first['loc'][-1]), _keys_beside(first['loc']))}"
    if first["type"] == "missing":
        return f"key '{where}' is missing"
    if not where:
        return first["msg"].removeprefix("Value error, ")
    found = "" if isinstance(first["input"], dict) else f" (found {first['input']!r})"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}{found}"


def _keys_beside(location: tuple) -> list[str]:
    parts = {
        "corpus": CorpusPart,
        "tts": TtsPart,
        "backbone": BackbonePart,
        "training": TrainingPart,
        "evaluation": EvaluationPart,
        "augmentation": AugmentationPart,
        "resources": ResourcesPart if len(location) == 2 else JobPart,
        "training.early_stopping": EarlyStoppingPart,
        "training.mixed": MixedPart,
    }
    if "round_trip" in location[:-1]:
        return list(RoundTripPart.model_fields)
    places = [".".join(map(str, location[:n])) for n in (2, 1) if len(location) > n]
    owner = next((parts[place] for place in places if place in parts), Profile)
    return list(owner.model_fields)  # type: ignore[attr-defined]
