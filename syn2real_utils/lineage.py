"""Where a model or a task vector comes from, and whether two of them belong together."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from syn2real_utils import __version__
from syn2real_utils.errors import UserError
from syn2real_utils.store import write_text_atomic

Named = Sequence[tuple[Path | str, "Lineage"]]  # what an operation takes, each with the path to name in an error
LINEAGE = "lineage.json"
MADE_FROM = "made_from.json"  # beside an exported model: fingerprints of base and vector, and lam
REAL = "real"  # the speech that is of no TTS engine


class Lineage(BaseModel):
    """What is known of a model or a vector. None or empty: not known, or not one value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["model", "vector"]
    architecture: str  # as `architecture` gives it
    parent: str | None = None  # `checkpoints.weights_hash` of pretrained
    corpus: str | None = None
    speech: str | None = None  # that a model was trained on: "real" or the TTS engine
    tts: str | None = None  # of a vector: the engine of its syn_source
    domains: tuple[str, ...] = ()
    held_out: int | None = None  # fold whose texts were not trained on
    seed: int | None = None
    protocol: str | None = None
    operation: Literal["subtract", "mean", "apply"] | None = None
    lam: float | None = None  # of an adapted model
    licences: tuple[str, ...] = ()  # of what it is made of, each as origins.py says it
    parts: tuple["Lineage", ...] = ()  # what the operation took: (real, syn), the vectors, or (base, vector)
    code_version: str = __version__

    def to_json(self) -> str:
        """JSON, one field a line, without those that are not known."""
        return self.model_dump_json(exclude_none=True, indent=1)

    @classmethod
    def from_json(cls, text: str, where: Path) -> "Lineage":
        """Read `to_json`; UserError names `where` it stood."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the text"
            raise UserError(f"the lineage in {where} is damaged: {field}: {first['msg']}") from error


def write_lineage(folder: Path | str, lineage: Lineage) -> None:
    """Write lineage.json beside a model."""
    write_text_atomic(Path(folder) / LINEAGE, lineage.to_json())


def read_lineage(folder: Path | str) -> Lineage | None:
    """The lineage.json beside a model; None where there is none."""
    file = Path(folder) / LINEAGE
    return Lineage.from_json(file.read_text(encoding="utf-8", errors="replace"), file) if file.is_file() else None


def architecture(folder: Path | str) -> str:
    """Kind of a model by its config.json, e.g. "whisper/WhisperForConditionalGeneration"."""
    if not Path(folder).is_dir():
        raise UserError(f"no model at {folder}: expected a folder as save_pretrained writes it")
    if (Path(folder) / "adapter_config.json").is_file() and not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder} holds an adapter, no model: merge it into its base model with peft first")
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        return "/".join([config["model_type"], *(config.get("architectures") or [])])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is no model: it has no config.json with a model_type") from error


def origin(folder: Path | str) -> Lineage:
    """Lineage of a model; of one without lineage.json, its architecture."""
    found, seen = read_lineage(folder), architecture(folder)
    if found and (found.kind, found.architecture) != ("model", seen):
        said = f"{found.kind} {found.architecture}"
        raise UserError(f"{folder}: {LINEAGE} tells of a {said}, config.json of a model {seen}: one of them is wrong")
    return found or Lineage(kind="model", architecture=seen)


def check_relatives(origins: Named) -> str | None:
    """Return the parent as far as it is known; UserError unless all have one architecture and one parent."""
    (first, one), *others = origins
    for path, other in others:
        if one.architecture != other.architecture:
            raise UserError(f"{first} is {one.architecture} but {path} is {other.architecture}: use one architecture")
    known = [(path, lineage.parent) for path, lineage in origins if lineage.parent]
    for path, parent in known[1:]:
        if parent != known[0][1]:
            which = f"{known[0][0]} and {path} come from different pretrained models"
            raise UserError(
                f"{which} ({known[0][1][:12]}, {parent[:12]}): use one backbone for both; a model without {LINEAGE} counts as "
                "pretrained itself"
            )
    return known[0][1] if known else None


def of_vector(operation: Literal["subtract", "mean"], origins: Named) -> Lineage:
    """Lineage of the vector that is made of models or vectors: what they share, and the domains of all."""
    parent, parts = check_relatives(origins), tuple(lineage for _, lineage in origins)
    shared: dict[str, Any] = {}
    for field in ("corpus", "tts", "held_out", "seed", "protocol"):
        values = {getattr(part, field) for part in parts}
        shared[field] = values.pop() if len(values) == 1 else None
    if operation == "subtract" and parts[0].speech == REAL != parts[-1].speech:
        shared["tts"] = parts[-1].speech
    return Lineage(
        kind="vector",
        licences=_merged(parts),
        architecture=parts[0].architecture,
        parent=parent,
        domains=tuple(sorted({domain for part in parts for domain in part.domains})),
        operation=operation,
        parts=parts,
        **shared,
    )


def of_adapted(base: Lineage, vector: Lineage, lam: float) -> Lineage:
    """Lineage of base + lam * vector: the base's, with what was added."""
    return base.model_copy(
        update={
            "parent": base.parent or vector.parent,
            "operation": "apply",
            "lam": lam,
            "parts": (base, vector),
            "licences": _merged([base, vector]),
            "code_version": __version__,
        }
    )


def _merged(parts: Sequence[Lineage]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line for part in parts for line in part.licences))
