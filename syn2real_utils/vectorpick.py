"""Which task vector moves a user's model, and by which lam: one that is named, or one that is here for language and TTS."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syn2real_utils import checkpoints, parameters, stages
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import Lineage
from syn2real_utils.parameters import MismatchError
from syn2real_utils.progress import say
from syn2real_utils.store import DONE, Store, sha256
from syn2real_utils.tensorfiles import VECTOR

AUTO, NONE, DEVEL = "auto", "none", "devel"
LAM = 0.5  # our choice where nothing was chosen: the middle of the paper's best, 0.3 to 0.6
HOW_TO_MAKE = "make one with 'syn2real run' on a corpus of the language that has real speech, such as tuxpaint"
NONCOMMERCIAL = ("slurp",)  # corpora whose recordings may not be used for money


@dataclass(frozen=True)
class Candidate:
    """A vector that could be applied, and what is known of it."""

    path: Path
    lineage: Lineage
    language: str | None
    tts: str | None
    domains: tuple[str, ...]
    lam: float | None = None  # chosen where the vector was made
    lam_how: str = ""
    expected: tuple[float, float] | None = None  # interval of the relative change of WER there, in percent
    noncommercial: bool = False


@dataclass(frozen=True)
class Scaling:
    """How far a model is moved."""

    lam: float
    how: str


def check_choice(vector: str, lam: str | float, devel: object) -> None:
    """Raise UserError for a vector or a lam that can be known to be wrong before anything is fetched."""
    if vector not in (AUTO, NONE):
        checkpoints.load_vector(vector)
    if lam == DEVEL and devel is None:
        raise UserError("--lam devel needs --devel: give the folder of your real clips, or let lam be auto")
    if lam == DEVEL and vector == NONE:
        raise UserError("--lam devel needs a vector to scale: leave --vector none out")
    if lam not in (AUTO, DEVEL):
        checkpoints.number(lam)


def pick_vectors(
    choice: str, backbone: Path, parent: str, language: str, tts: Sequence[str], domain: str
) -> list[Candidate]:
    """The vectors of which the mean is applied; [] where none is wanted or known.

    Args:
        choice: `auto`, `none`, or the path of a vector.
        backbone: folder of the pretrained weights.
        parent: their hash.
        language: of the texts.
        tts: engines that speak them; with `auto`, the best vector of each.
        domain: of the texts; a vector of other domains is better, for it has not heard the speech that may prove it.

    Raises:
        UserError: the vector that is named is of other pretrained weights, or of another shape.
    """
    if choice == NONE:
        return []
    if choice != AUTO:
        return [_named(Path(choice), backbone, parent, language, tts)]
    there = _find(parent, language, tts)
    picked = []
    for engine in tts:
        if own := [c for c in there if c.tts == engine]:
            picked.append(min(own, key=lambda c: domain in c.domains))  # of equals the first, which is the best
            if domain in picked[-1].domains:
                say(
                    f"  warning: the vector {picked[-1].path.name} comes from real speech of '{domain}' too: no proof for it"
                )
        else:
            say(f"no vector of {engine} in '{language}' for these weights is here: {HOW_TO_MAKE}")
    return picked


def choose_lam(lam: str | float, picked: Sequence[Candidate]) -> Scaling:
    """The lam that is asked for, else the one recorded with the vectors, else `LAM`."""
    if not picked:
        return Scaling(0.0, "there is no vector to scale")
    if lam not in (AUTO, DEVEL):
        return Scaling(checkpoints.number(lam), "as it was asked for")
    recorded = [c.lam for c in picked if c.lam is not None]
    if len(recorded) < len(picked):
        return Scaling(LAM, f"our default, because no lam was recorded with {'a' if recorded else 'the'} vector")
    how = picked[0].lam_how or "as recorded with the vector"
    return Scaling(sum(recorded) / len(recorded), how if len(picked) == 1 else f"{how}; mean of {len(picked)} vectors")


def expected_change(picked: Sequence[Candidate]) -> tuple[float, float] | None:
    """Interval of the relative change that the vectors made elsewhere, in percent: from the best to the worst of them."""
    known = [c.expected for c in picked if c.expected is not None]
    if not known or len(known) < len(picked):
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def vector_folder(picked: Sequence[Candidate]) -> tuple[Path, str]:
    """The folder of the vector that is applied, the mean where there are several, and the hash of what is in it."""
    hashes = [sha256(_file(candidate.path)) for candidate in picked]
    if len(picked) == 1:
        return picked[0].path, hashes[0]
    label = f"{'+'.join(str(c.tts) for c in picked)}-mean{len(picked)}"
    found = Store().build(
        stages.ADAPTED,  # beside what it is for: no vector of a run
        label,
        {"kind": "mean of vectors", "files": hashes},
        lambda into: checkpoints.mean([c.path for c in picked], into, overwrite=True),
    )
    return found.path, found.fingerprint


def _named(path: Path, backbone: Path, parent: str, language: str, tts: Sequence[str]) -> Candidate:
    tau, lineage = checkpoints.load_vector(path)
    if lineage.parent is None:
        say(f"  warning: the vector {path} does not say of which pretrained weights it is: only its shape is checked")
    elif lineage.parent != parent:
        raise UserError(
            f"the vector {path} is of other pretrained weights ({lineage.parent[:12]}) than the backbone "
            f"({parent[:12]}): use the backbone that it was made with, or another vector"
        )
    try:
        parameters.check_same(parameters.shapes(checkpoints.load_state(backbone)), tau.shapes(), "the backbone", "it")
    except MismatchError as error:
        raise UserError(f"the vector {path} does not fit the backbone: {error}") from error
    found = _candidate(path, lineage)
    if found.language not in (None, language):
        say(f"  warning: the vector {path} comes from speech in '{found.language}', the texts are in '{language}'")
    if found.tts not in (None, *tts):
        say(f"  warning: the vector {path} is of the TTS {found.tts}, the texts are spoken by {' and '.join(tts)}")
    return found


def _find(parent: str, language: str, tts: Sequence[str]) -> list[Candidate]:
    """Vectors of past runs on this machine, those of the most domains first, and of these the newest."""
    found = []
    for done in (Store().root / stages.VECTORS).glob(f"*/{DONE}"):
        candidate = _candidate(done.parent, checkpoints.load_vector(done.parent)[1])
        if (candidate.lineage.parent, candidate.language) == (parent, language) and candidate.tts in tts:
            found.append((-len(candidate.domains), -done.stat().st_mtime, str(done), candidate))
    return [candidate for *_, candidate in sorted(found, key=lambda item: item[:3])]


def _candidate(path: Path, lineage: Lineage) -> Candidate:
    corpus, _, language = (lineage.corpus or "").rpartition("-")
    return Candidate(
        path, lineage, language or None, lineage.tts, lineage.domains, noncommercial=corpus in NONCOMMERCIAL
    )


def _file(path: Path) -> Path:
    return path / VECTOR if path.is_dir() else path
