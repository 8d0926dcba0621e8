"""A run's task vector as a folder of its own, with a card, so that others can use it: whole or in low rank."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml

from syn2real_utils import checksums, lora, tables, tensorfiles
from syn2real_utils.backbones.sources import HUB_NAME
from syn2real_utils.errors import UserError, names
from syn2real_utils.lineage import Lineage
from syn2real_utils.origins import LICENCE_IDS, UNKNOWN
from syn2real_utils.parameters import State, check_same
from syn2real_utils.profile import Profile, load_profile
from syn2real_utils.readyruns import PROFILE, vector_of_run
from syn2real_utils.readyvector import ABOUT, About, ReadyVector, read
from syn2real_utils.store import write_text_atomic
from syn2real_utils.tensorfiles import CARD, VECTOR
from syn2real_utils.vectors import TaskVector

TEMPLATE = Path(__file__).parent / "templates" / "vector_card.md"
FORMS = ("full", "lora")
RANK = 8  # our choice: 6.6 MB for Whisper base, of 290; 43 % of |tau|^2 in the quickstart


@dataclass(frozen=True)
class Wanted:
    """Which vector of a run, and in which form; what is None is the first that the profile names."""

    target: str | None = None
    tts: str | None = None
    seed: int | None = None
    form: str = "full"
    rank: int | None = None  # None: `RANK`


def publish(run: Path, out: Path | str, wanted: Wanted, overwrite: bool = False) -> ReadyVector:
    """Write a run's vector as the folder `out`: vector.safetensors, vector.json, README.md and their checksums.

    Raises:
        UserError: no such target, TTS, seed or form, a run that is not finished or whose vector is gone or damaged, or
            `out` exists.
    """
    form, rank = _check_form(wanted)
    profile = load_profile(run / PROFILE)
    target, tts, seed = choose(profile, wanted)
    ready = vector_of_run(run, profile, target, tts, seed)
    with tensorfiles.published(Path(out), overwrite) as folder:
        vector = ready.load()
        about = ready.about.model_copy(update={"form": form})
        if form == "full":
            shutil.copyfile(ready.path / VECTOR, folder / VECTOR)  # the same bytes, so the same sha256 as in the store
        else:
            about = about.model_copy(update=_write_factors(folder / VECTOR, vector, ready.lineage, rank))
        write_text_atomic(folder / ABOUT, about.model_dump_json(indent=1, exclude_none=True) + "\n")
        write_text_atomic(folder / CARD, card(about, Path(out).resolve().name))
        checksums.write(folder, [VECTOR, ABOUT])
        check_same(read(folder).load().shapes(), vector.shapes(), "what was written", "the vector")
    return read(Path(out))


def choose(profile: Profile, wanted: Wanted) -> tuple[str, str, int]:
    """Target, TTS and seed: as wanted, else the first that the profile names."""
    target = profile.check_target(wanted.target) if wanted.target else profile.targets[0]
    tts = profile.tts_part(wanted.tts).name if wanted.tts else profile.tts[0].name
    seed = profile.seeds[0] if wanted.seed is None else wanted.seed
    if seed not in profile.seeds:
        raise UserError(f"profile {profile.name} has no seed {seed}: it has {names(profile.seeds)}")
    return target, tts, seed


def others(profile: Profile, wanted: Wanted) -> list[str]:
    """What else a run has where nothing was named, as options: "--tts pico"."""
    given: dict[str, tuple[object, list]] = {
        "--target": (wanted.target, profile.targets),
        "--tts": (wanted.tts, [part.name for part in profile.tts]),
        "--seed": (wanted.seed, profile.seeds),
    }
    return [f"{option} {names(had[1:])}" for option, (named, had) in given.items() if named is None and len(had) > 1]


def card(about: About, name: str) -> str:
    """The card of a vector, in Markdown with the header that the hub reads."""
    header = {
        "language": about.language,
        "library_name": "syn2real",
        "pipeline_tag": "automatic-speech-recognition",
        **({"base_model": about.base_model} if HUB_NAME.fullmatch(about.base_model) else {}),
        **_licence(about),
        "tags": [
            about.architecture.split("/")[0],
            "syn2real",
            "task-arithmetic",
            "task-vector",
            *(["lora"] if about.form == "lora" else []),
        ]
        + (["non-commercial"] if about.noncommercial else []),
        "data_sources": [{"name": part.name, "licence": part.licence} for part in about.data],
    }
    numbers = (about.relative_change, about.change_low, about.change_high)
    relative, low, high = (math.nan if number is None else number for number in numbers)
    change = f"{relative:+.1f} % [{low:+.1f}, {high:+.1f}] ({100 * about.confidence:g} % interval)"
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        a=about,
        name=name,
        measured_on=about.measured_on or (about.target,),
        change=change.replace("-", tables.MINUS) if about.relative_change is not None else "no size: no errors before",
        form=f"low rank {about.rank}" if about.form == "lora" else "full, float32",
    )
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n\n{page}"


def _licence(about: About) -> dict[str, str]:
    """The licence as the hub names it: that of all parts, the non-commercial one that binds the whole, or other."""
    strict = [part.licence for part in about.data if part.noncommercial]
    licences = {part.licence for part in about.data}
    found = strict[0] if strict else licences.pop() if len(licences) == 1 else UNKNOWN
    if found != UNKNOWN:
        return {"license": LICENCE_IDS.get(found, found.lower())}
    return {"license": "other", "license_name": "several-see-below"}


def _check_form(wanted: Wanted) -> tuple[str, int]:
    if wanted.form not in FORMS:
        raise UserError(f"unknown form '{wanted.form}': use one of {names(FORMS)}")
    if wanted.rank is not None and wanted.form != "lora":
        raise UserError(f"rank {wanted.rank} is of the form lora: ask for --form lora, or leave the rank away")
    if (rank := RANK if wanted.rank is None else wanted.rank) < 1:
        raise UserError(f"rank {rank}: expected a whole number from 1 on, such as {RANK}")
    return wanted.form, rank


def _write_factors(file: Path, vector: TaskVector, lineage: Lineage, rank: int) -> dict[str, object]:
    """Write a vector in low rank; return what vector.json has of it."""
    factors: State = lora.factorise(vector, rank)
    described = lora.describe(vector, factors, rank)
    metadata = {"format": "pt", "lineage": lineage.to_json(), lora.HEADER: described}
    header = tensorfiles.float32_header({key: list(tensor.shape) for key, tensor in factors.items()}, metadata)
    tensorfiles.write(
        file,
        header,
        lambda key, start, stop: iter(factors[key].flatten()[start:stop].split(tensorfiles.PIECE)),
        f"vector {file.parent.name}",
    )
    return lora.described(described, file)
