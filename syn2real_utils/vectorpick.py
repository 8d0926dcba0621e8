"""Which task vector moves a user's model, and by which lam: one that is named, or one that lies ready here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syn2real_utils import checkpoints, parameters, ready, stages
from syn2real_utils.backbones.sources import HUB_NAME
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import Lineage
from syn2real_utils.origins import of_speech, origin
from syn2real_utils.parameters import MismatchError
from syn2real_utils.progress import say
from syn2real_utils.readyruns import data_of
from syn2real_utils.readyvector import ABOUT, Data, ReadyVector
from syn2real_utils.store import Store, sha256
from syn2real_utils.tensorfiles import VECTOR
from syn2real_utils.vectors import TaskVector

AUTO, NONE, DEVEL = "auto", "none", "devel"
LAM = 0.5  # our choice where nothing was chosen: the middle of the paper's best, 0.3 to 0.6


@dataclass(frozen=True)
class PlainVector:
    """A vector that was never published: all that is known of it is its lineage. It is asked as a `ReadyVector` is."""

    path: Path  # its folder, or the file in it
    lineage: Lineage
    lam: float | None = None
    lam_how: str = ""
    expected: tuple[float, float] = (math.nan, math.nan)
    promised: tuple[float, float] = (math.nan, math.nan)

    @property
    def name(self) -> str:
        """What to call it."""
        return self.path.name

    @property
    def language(self) -> str | None:
        """ISO 639-1."""
        return (self.lineage.corpus or "").rpartition("-")[2] or None

    @property
    def tts(self) -> str | None:
        """The engine of its syn_source."""
        return self.lineage.tts

    @property
    def domains(self) -> tuple[str, ...]:
        """Its source domains."""
        return self.lineage.domains

    @property
    def data(self) -> tuple[Data, ...]:
        """The recordings and the TTS engine that it is made of."""
        corpus, _, language = (self.lineage.corpus or "").rpartition("-")
        made_of = [of_speech(corpus or "recordings of an unknown corpus", language)]
        return tuple(data_of(part) for part in made_of + ([origin(self.tts)] if self.tts else []))

    def load(self) -> TaskVector:
        """The vector."""
        return checkpoints.load_vector(self.path)[0]


Vector = ReadyVector | PlainVector


@dataclass(frozen=True)
class Scaling:
    """How far a model is moved."""

    lam: float
    how: str


def check_choice(vector: str, lam: str | float, devel: object, unlabelled: object = None) -> None:
    """Raise UserError for a vector or a lam that can be known to be wrong before anything is fetched."""
    if unlabelled is not None and lam != AUTO:
        raise UserError(f"--unlabelled chooses lam, so --lam {lam} cannot be had too: give one of the two")
    if unlabelled is not None and vector == NONE:
        raise UserError("--unlabelled needs a vector to scale: leave --vector none out")
    if vector not in (AUTO, NONE) and not _on_hub(vector) and not ready.holds_several(Path(vector).expanduser()):
        named(vector).load()
    if lam == DEVEL and devel is None:
        raise UserError("--lam devel needs --devel: give the folder of your real clips, or let lam be auto")
    if lam == DEVEL and vector == NONE:
        raise UserError("--lam devel needs a vector to scale: leave --vector none out")
    if lam not in (AUTO, DEVEL) and checkpoints.number(lam) < 0:
        raise UserError(f"--lam {lam}: expected 0 or more: tau leads from synthetic to real, below 0 it leads away")


def named(choice: str) -> Vector:
    """The vector of a path, or of a repository `owner/name[@revision]` of the hub, which is fetched.

    Raises:
        UserError: there is none, it is damaged, or the hub cannot be reached.
    """
    if found := _on_hub(choice):
        say(f"no folder {choice} is here, so the hub is asked for it")
        return ready.from_hub(*found)
    path = Path(choice).expanduser()
    folder = path.parent if path.name == VECTOR else path
    if (folder / ABOUT).is_file():
        return ready.read(folder)
    return PlainVector(path, checkpoints.load_vector(path)[1])


def pick_vectors(
    choice: str, backbone: Path, parent: str, language: str, tts: Sequence[str], domain: str
) -> list[Vector]:
    """The vectors of which the mean is applied; [] where none is wanted or known.

    Args:
        choice: `auto`, `none`, the path of a vector, of a run or of a folder of published vectors, or a repository on the hub.
        backbone: folder of the pretrained weights.
        parent: their hash.
        language: of the texts.
        tts: engines that speak them; where several vectors are looked at, the best of each is taken.
        domain: of the texts; a vector of other domains is better, for it has not heard the speech that may prove it.

    Raises:
        UserError: a vector that is damaged, or that is named and of other pretrained weights or of another shape; a folder
            that is named and holds none that fits.
    """
    if choice == NONE:
        return []
    place = Path(choice).expanduser()
    if choice != AUTO and not ready.holds_several(place):
        return [_other(_fitting(named(choice), backbone, parent, language, tts), domain)]
    there = ready.find(parent, language, tts) if choice == AUTO else ready.find_in(place, parent, language, tts)
    picked: list[Vector] = []
    for engine in tts:
        own = [vector for vector in there if vector.tts == engine]
        if not own:
            say(
                f"no vector of {engine} in '{language}' for these weights is {'here' if choice == AUTO else f'in {place}'}"
            )
            continue
        best = min(own, key=lambda vector: domain in vector.domains)  # of equals the first, which is the best
        best.load()  # a damaged one is refused before anything is spoken
        picked.append(_other(best, domain))
    if not picked and choice != AUTO:
        raise UserError(
            f"{place} holds no vector for these pretrained weights ({parent[:12]}), '{language}' and {' or '.join(tts)}: "
            "use the backbone, language and TTS of one of its vectors, or let --vector be auto"
        )
    return picked


def choose_lam(lam: str | float, picked: Sequence[Vector]) -> Scaling:
    """The lam that is asked for, else the one recorded with the vectors, else `LAM`."""
    if not picked:
        if lam != AUTO:
            say(f"  warning: --lam {lam} is not used, for there is no vector to scale")
        return Scaling(0.0, "there is no vector to scale")
    if lam not in (AUTO, DEVEL):
        return Scaling(checkpoints.number(lam), "as it was asked for")
    if (mean := recorded_lam(picked)) is None:
        return Scaling(LAM, "our default, because no lam was recorded with the vector")
    how = f"chosen by {picked[0].lam_how}"
    if len(picked) == 1:
        return Scaling(mean, f"recorded with the vector ({how})")
    each = " and ".join(f"{vector.lam:g} ({vector.tts})" for vector in picked)
    return Scaling(mean, f"mean of {each}, recorded with the vectors ({how})")


def recorded_lam(picked: Sequence[Vector]) -> float | None:
    """The mean of the lams that were recorded with the vectors; None where one has none."""
    lams = [vector.lam for vector in picked if vector.lam is not None]
    return round(sum(lams) / len(lams), 6) if lams and len(lams) == len(picked) else None


def expected_change(picked: Sequence[Vector]) -> tuple[float, float] | None:
    """Interval of the relative change that the vectors made elsewhere, in percent: from the best to the worst of them."""
    return _widest([vector.expected for vector in picked])


def promised_change(picked: Sequence[Vector]) -> tuple[float, float] | None:
    """As `expected_change`, but of adapted against pretrained."""
    return _widest([vector.promised for vector in picked])


def _widest(known: list[tuple[float, float]]) -> tuple[float, float] | None:
    if not known or any(math.isnan(number) for interval in known for number in interval):
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def vector_folder(picked: Sequence[Vector]) -> tuple[Path, str]:
    """The folder of the vector that is applied, the mean where there are several, and the hash of what is in it."""
    hashes = [sha256(vector.path / VECTOR if vector.path.is_dir() else vector.path) for vector in picked]
    if len(picked) == 1:
        return picked[0].path, hashes[0]
    label = f"{'+'.join(str(vector.tts) for vector in picked)}-mean{len(picked)}"
    found = Store().build(
        stages.ADAPTED,  # beside what it is for: no vector of a run
        label,
        {"kind": "mean of vectors", "files": hashes},
        lambda into: checkpoints.mean([vector.path for vector in picked], into, overwrite=True),
    )
    return found.path, found.fingerprint


def _other(vector: Vector, domain: str) -> Vector:
    """The vector; says where it heard the domain itself."""
    if domain in vector.domains:
        say(f"  warning: the vector {vector.name} comes from real speech of '{domain}' too: no proof for it")
    return vector


def _on_hub(choice: str) -> tuple[str, str | None] | None:
    """Repository and revision where a choice names one. What stands in a folder that is here, or should, is a path."""
    found = HUB_NAME.fullmatch(choice)
    if not found or Path(choice).exists() or Path(choice).parent.is_dir():
        return None
    return found[1], found[2]


def _fitting(vector: Vector, backbone: Path, parent: str, language: str, tts: Sequence[str]) -> Vector:
    """The vector that was named; says what is odd about it."""
    if isinstance(vector, ReadyVector):
        vector.check_parent(parent)
    elif vector.lineage.parent is None:
        say(
            f"  warning: the vector {vector.path} does not say of which pretrained weights it is: only its shape is checked"
        )
    elif vector.lineage.parent != parent:
        raise UserError(
            f"the vector {vector.path} is of other pretrained weights ({vector.lineage.parent[:12]}) than the backbone "
            f"({parent[:12]}): use the backbone that it was made with, or another vector"
        )
    shapes = parameters.shapes(checkpoints.load_state(backbone))
    try:
        parameters.check_same(shapes, vector.load().shapes(), "the backbone", "it")
    except MismatchError as error:
        raise UserError(f"the vector {vector.path} does not fit the backbone: {error}") from error
    if vector.language not in (None, language):
        say(
            f"  warning: the vector {vector.name} comes from speech in '{vector.language}', the texts are in '{language}'"
        )
    if vector.tts not in (None, *tts):
        say(
            f"  warning: the vector {vector.name} is of the TTS {vector.tts}, the texts are spoken by {' and '.join(tts)}"
        )
    return vector
