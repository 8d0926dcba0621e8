"""Ready vectors: of past runs on this machine, of published folders, and from the Hugging Face hub."""

import dataclasses
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from syn2real_utils import hub
from syn2real_utils.corpora import asterisk, tuxpaint
from syn2real_utils.errors import UserError
from syn2real_utils.profile import load_profile
from syn2real_utils.progress import say
from syn2real_utils.readyruns import PROFILE, RUN, of_run, vector_of_run
from syn2real_utils.readyvector import ABOUT, About, ReadyVector, read
from syn2real_utils.store import home
from syn2real_utils.tensorfiles import VECTOR

__all__ = ["About", "ReadyVector", "find", "from_hub", "how_to_make", "of_run", "read", "vector_of_run"]

NAME = 100  # letters of a run's name at most, see profile.py
PLACE = "vectors"  # below the project's folder: where published folders are looked for


def find(parent: str, language: str, tts: Sequence[str] = (), places: Sequence[Path] = ()) -> list[ReadyVector]:
    """Vectors on this machine for a backbone, a language and some TTS engines: the preferred engine first, then by what is sure of their change.

    That is the upper end of its interval: a large change on few clips proves less than a smaller one on many. Of one change, whole
    ones come before those of low rank, which have the change of the vector that they come from.

    Looked at are the runs, the published folders below vectors/, and `places`. What is found there of another backbone,
    language or engine is left out; only a place that is itself a vector of another backbone is refused.

    Args:
        parent: `checkpoints.weights_hash` of the pretrained model.
        language: ISO 639-1.
        tts: engines, the preferred one first; empty: any.
        places: folders of a vector, of a run, or of several published vectors.

    Raises:
        UserError: a place that holds no vector, a vector of another parent, a damaged vector.json.
    """
    found = [vector for place in places for vector in _of_place(Path(place), parent)]
    found += [read(folder) for folder in _published(home() / PLACE)]
    found += [vector for file in sorted((home() / "runs").glob(f"*/{PROFILE}")) for vector in _finished(file.parent)]
    return _best_first(found, parent, language, tts)


def find_in(place: Path, parent: str, language: str, tts: Sequence[str] = ()) -> list[ReadyVector]:
    """As `find`, of one place alone: a run, or a folder of several published vectors."""
    return _best_first(_of_place(place, parent), parent, language, tts)


def holds_several(place: Path) -> bool:
    """Whether a path is a run, or a folder of published vectors, and not itself a vector."""
    if any((place / name).is_file() for name in (ABOUT, VECTOR)):
        return False
    return (place / PROFILE).is_file() or bool(_published(place))


def _best_first(found: Sequence[ReadyVector], parent: str, language: str, tts: Sequence[str]) -> list[ReadyVector]:
    fits = [v for v in found if v.about.parent == parent and v.language == language and (not tts or v.tts in tts)]
    rank = {name: place for place, name in enumerate(tts)}

    def order(vector: ReadyVector) -> tuple[int, float, bool]:
        high = vector.expected[1]
        return rank.get(vector.tts, 0), math.inf if math.isnan(high) else high, vector.about.form != "full"

    return sorted({vector.path.resolve(): vector for vector in fits}.values(), key=order)


def from_hub(repo_id: str, revision: str | None = None) -> ReadyVector:
    """A vector that was published on the hub; fetched to this machine.

    Raises:
        UserError: it cannot be fetched, or is no published vector.
    """
    return dataclasses.replace(read(hub.pull(repo_id, revision)), repository=repo_id)


def how_to_make(backbone: str, language: str, tts: Sequence[str], learning_rate: float | None = None) -> str:
    """What to say where no vector was found for these weights, this language and these TTS engines.

    `learning_rate`: that fits the backbone; it is named where the profile has another.
    """
    profile, speech = _carried(language)
    own = {
        "name": re.sub(r"[^A-Za-z0-9_.-]+", "-", "-".join(["tau", language, Path(backbone).name, *tts]))[:NAME],
        "backbone.name": backbone,
        "corpus.language": language,
        "tts": f"[{', '.join(f'{{name: {name}}}' for name in tts)}]",
    }
    if learning_rate and learning_rate != load_profile(profile).training.learning_rate:
        own["training.learning_rate"] = f"{learning_rate:g}"
    settings = " ".join(f"--set {key}={shlex.quote(value)}" for key, value in (own | speech).items())
    return (
        f"no ready vector: real speech of other domains makes one, such as\n  syn2real run {profile} {settings}\n"
        + (
            "where FOLDER is an AudioFolder with three domains or more, and DOMAIN one of them: see data/README.md. "
            if speech
            else ""
        )
        + f"'syn2real vector publish RUN -o {PLACE}/NAME' then makes a folder of it that can be carried to another machine"
    )


def _carried(language: str) -> tuple[str, dict[str, str]]:
    """A profile whose corpus has real speech in a language; where none has, with what puts the user's own in its place."""
    if language in tuxpaint.LANGUAGES:
        return "quickstart", {}
    if language in asterisk.VOICES:
        return "asterisk-en-base", {}
    own = {"name": "folder", "path": "FOLDER", "max_utterances": "null"}
    return "quickstart", {f"corpus.{key}": value for key, value in own.items()} | {
        "targets": "[DOMAIN]",
        "sources": "all",
    }


def _finished(folder: Path) -> list[ReadyVector]:
    """The vectors of a run; none of one that is not finished, or was made by another version."""
    try:
        return of_run(folder) if (folder / RUN).is_file() and (folder / "tables" / "lam.csv").is_file() else []
    except UserError as error:
        say(f"no vector of the run {folder.name}: {error}")
        return []


def _published(place: Path) -> list[Path]:
    """The folders of published vectors in a place; one that is being written is hidden."""
    return sorted(about.parent for about in place.glob(f"*/{ABOUT}") if not about.parent.name.startswith("."))


def _of_place(place: Path, parent: str) -> list[ReadyVector]:
    if (place / ABOUT).is_file() or (place / VECTOR).is_file():
        return [read(place).check_parent(parent)]
    if (place / PROFILE).is_file():
        return of_run(place)
    if found := _published(place):
        return [read(folder) for folder in found]
    raise UserError(f"no ready vector at {place}: expected a folder as 'syn2real vector publish' makes it, or a run")
