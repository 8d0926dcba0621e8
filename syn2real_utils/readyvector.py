"""One ready vector: a folder with vector.safetensors and what must be known to use it.

A published folder holds vector.safetensors, vector.json (`About`), a card README.md and the sha256 of the first two. A run
holds the same knowledge in its profile, its tables and its artifacts: see readyruns.py.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from syn2real_utils import __version__, checkpoints, checksums, tensorfiles
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import Lineage
from syn2real_utils.store import DONE, Artifact
from syn2real_utils.tensorfiles import VECTOR
from syn2real_utils.vectors import TaskVector

ABOUT = "vector.json"


class Data(BaseModel):
    """Weights, recordings or a TTS engine that a vector is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    licence: str
    noncommercial: bool = False


class About(BaseModel):
    """vector.json: what a vector is, how it was made and what it gave where it was measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["task vector"] = "task vector"
    form: Literal["full", "lora"] = "full"
    rank: int | None = None  # of low rank
    kept: dict[str, float] | None = None  # of low rank: share of |tau|^2 of each module
    architecture: str
    parent: str  # `checkpoints.weights_hash` of the pretrained model
    base_model: str
    language: str
    corpus: str
    tts: str
    domains: tuple[str, ...]  # the source domains
    seed: int
    lam: float  # chosen
    lam_how: str  # as in tables/lam.csv: without a label of the target
    target: str  # of the run, whose speech it has not heard
    measured_on: tuple[
        str, ...
    ] = ()  # targets of the run that the change was measured on, over all seeds; (): `target` alone
    protocol: str
    relative_change: float | None = None  # of WER in percent, adapted against syn_target; None: undefined
    change_low: float | None = None  # its interval
    change_high: float | None = None
    confidence: float  # of the interval, e.g. 0.95
    wer_syn_target: float
    wer_adapted: float
    # adapted against pretrained on the same clips; None: undefined, or published before this was noted
    wer_pretrained: float | None = None
    gain: float | None = None  # relative change of WER in percent
    gain_low: float | None = None  # its interval
    gain_high: float | None = None
    data: tuple[Data, ...]
    noncommercial: bool
    profile: str
    commit: str
    machine: str
    code_version: str = __version__


@dataclass(frozen=True)
class ReadyVector:
    """A task vector that lies ready, with what must be known to use it."""

    path: Path  # its folder
    lineage: Lineage
    about: About
    repository: str | None = None  # where it was fetched from the hub

    @property
    def name(self) -> str:
        """What to call it: its folder, or its repository with the commit."""
        return f"{self.repository} ({self.path.name[:12]})" if self.repository else self.path.name

    @property
    def language(self) -> str:
        """ISO 639-1."""
        return self.about.language

    @property
    def tts(self) -> str:
        """The engine of its syn_source."""
        return self.about.tts

    @property
    def domains(self) -> tuple[str, ...]:
        """Its source domains."""
        return self.about.domains

    @property
    def lam(self) -> float:
        """The scaling factor that was chosen for it."""
        return self.about.lam

    @property
    def lam_how(self) -> str:
        """How lam was chosen, e.g. "leave-one-source-out"."""
        return self.about.lam_how

    @property
    def expected(self) -> tuple[float, float]:
        """Interval of the relative change of WER in percent (low, high) on the targets of its run; nan: undefined."""
        low, high = self.about.change_low, self.about.change_high
        return math.nan if low is None else low, math.nan if high is None else high

    @property
    def promised(self) -> tuple[float, float]:
        """As `expected`, but of adapted against pretrained."""
        low, high = self.about.gain_low, self.about.gain_high
        return math.nan if low is None else low, math.nan if high is None else high

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The domains whose real speech shows what to expect of it."""
        return self.about.measured_on or (self.about.target,)

    @property
    def noncommercial(self) -> bool:
        """Whether something that it is made of may not be used commercially."""
        return self.about.noncommercial

    @property
    def data(self) -> tuple[Data, ...]:
        """What it is made of."""
        return self.about.data

    def check_parent(self, parent: str) -> "ReadyVector":
        """Return this vector; UserError unless it was made for the pretrained weights `parent`."""
        if self.about.parent != parent:
            raise UserError(
                f"the vector {self.path} belongs to the pretrained weights {self.about.parent[:12]} "
                f"({self.about.base_model}), not to {parent[:12]}: use that backbone, or a vector of yours"
            )
        return self

    def load(self) -> TaskVector:
        """The vector, its files compared with their sha256 first.

        Raises:
            UserError: a file is missing, damaged, or no vector of this lineage.
        """
        if (self.path / DONE).is_file() and (bad := Artifact(self.path, "").damage(hashes=True)):
            raise UserError(f"{self.path / bad[0]} is damaged: delete {self.path} and run {self.about.profile} again")
        vector, lineage = checkpoints.load_vector(self.path)  # compares a published one
        if lineage != self.lineage:
            raise UserError(f"{self.path} was replaced while it was used: look for it again")
        return vector


def read(folder: Path) -> ReadyVector:
    """A published folder.

    Raises:
        UserError: it is none, or vector.json or the header of the vector is damaged.
    """
    folder = Path(folder)
    for name in (ABOUT, VECTOR, checksums.SUMS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: expected a folder as 'syn2real vector publish' makes it")
    checksums.check(folder, [ABOUT])
    try:
        about = About.model_validate_json((folder / ABOUT).read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / ABOUT} is not of this version, or damaged: {_first(error)}") from error
    lineage = lineage_of(folder / VECTOR)
    if (lineage.parent, lineage.tts) != (about.parent, about.tts):
        raise UserError(f"{folder}: {ABOUT} and {VECTOR} tell of different vectors: fetch or publish it again")
    return ReadyVector(folder, lineage, about)


def lineage_of(file: Path) -> Lineage:
    """Lineage in the header of a vector's file."""
    try:
        header = json.loads(tensorfiles.header_of(file)[8:])
        return Lineage.from_json(header["__metadata__"]["lineage"], file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no task vector, or damaged: fetch or make it again") from error


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the text'}: {first['msg']}"
    return str(error).splitlines()[0]
