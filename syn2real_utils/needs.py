"""What a profile needs that must be fetched: from where it comes and how large it is."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from syn2real_utils import hubnames
from syn2real_utils.backbones import sources
from syn2real_utils.corpora import slurpfetch
from syn2real_utils.profile import CorpusPart, Profile, TtsPart
from syn2real_utils.store import DONE, Artifact
from syn2real_utils.tts import snapshots, speakers

HUB, PIP, APT, RELEASE = "the hub", "pip", "apt", "GitHub and Zenodo"
CORPORA = "data/sources"
# MB that are fetched. With pip and apt: of the packages as they came; those of SLURP and of the hub (hubnames.py) as others state
# them, for they were never fetched here.
WITH_PIP = {"base": 133, "tiny.en": 71, "kokoro": 66}
WITH_APT = {"tuxpaint": 161, "asterisk": 11, "asterisk-es": 13}
SLURP = 3900


@dataclass(frozen=True)
class Need:
    """Speech, weights or voices."""

    what: str
    source: str
    megabytes: int | None  # None: not known here
    kind: str  # folder of the store
    label: str  # start of its name there
    revision: str | None = None  # of the hub: the commit that is asked for; None: the newest

    @property
    def stated(self) -> bool:
        """Whether its size is what others state."""
        return self.source in (HUB, RELEASE)

    def here(self, root: Path) -> bool:
        """Whether it was fetched: it lies below the project's folder `root`."""
        named = re.compile(re.escape(self.label) + "-([0-9a-f]{16})")
        found = [(path, named.fullmatch(path.name)) for path in (root / self.kind).glob("*") if (path / DONE).is_file()]
        return any(self._is(Artifact(path, match[1])) for path, match in found if match)

    def _is(self, artifact: Artifact) -> bool:
        try:
            return self.source != HUB or artifact.key().get("revision") == self.revision
        except (ValueError, KeyError, TypeError, AttributeError):  # what a damaged done.json raises
            return False

    def size(self) -> str:
        """For people."""
        return size([self])


def size(needs: list[Need]) -> str:
    """What several things are together, for people: "about" where a size is stated by others."""
    known = [need.megabytes for need in needs if need.megabytes is not None]
    if not known:
        return "of unknown size"
    total = sum(known)
    said = f"{total / 1000:.1f} GB" if total >= 1000 else f"{total} MB"
    more = " and what is of unknown size" if len(known) < len(needs) else ""
    return ("about " if any(need.stated for need in needs) else "") + said + more


def of_profile(profile: Profile) -> list[Need]:
    """All that a profile needs and that no folder of the user's gives, each once."""
    found = [*of_corpus(profile.corpus), *of_backbone(profile.backbone.name)]
    for part in profile.tts:
        found += of_tts(part)
    return list(dict.fromkeys(found))


def of_corpus(part: CorpusPart) -> list[Need]:
    """The recordings of a corpus."""
    if part.path is not None or part.name == "folder":
        return []
    if part.name == "slurp":
        from_hub = part.source == "hub"
        megabytes = hubnames.HUB[slurpfetch.HUB].megabytes if from_hub else SLURP
        label = slurpfetch.LABELS[part.source]
        return [Need("speech of SLURP", HUB if from_hub else RELEASE, megabytes, CORPORA, label)]
    label = f"{part.name}-{part.language}"
    return [Need(f"speech of {label}", APT, WITH_APT.get(label, WITH_APT[part.name]), CORPORA, label)]


def of_backbone(name: str) -> list[Need]:
    """The weights of an ASR model."""
    if short := sources.carried(name):
        return [Need(f"weights of {short}", PIP, WITH_PIP[short], sources.KIND, f"whisper-{short}")]
    if Path(name).expanduser().is_dir() or not sources.HUB_NAME.fullmatch(name):
        return []
    return [_on_hub(name, "weights of ", sources.KIND)]


def of_tts(part: TtsPart) -> list[Need]:
    """Weights and voices of a TTS, and of the ASR that listens to it."""
    found = [] if part.round_trip is None else of_backbone(part.round_trip.asr)
    if part.name == "kokoro":
        return [Need("weights and voices of kokoro", PIP, WITH_PIP["kokoro"], snapshots.KIND, "kokoro"), *found]
    if part.name == "pico":
        lacking = importlib.util.find_spec("py_nanotts") is None
        return [Need("the TTS pico, package py-nanotts", PIP, None, snapshots.KIND, "pico")] * lacking + found
    repositories = [part.model or snapshots.NEEDS[part.name][0], *snapshots.NEEDS[part.name][1:]]
    if part.speakers not in (None, speakers.ARCTIC):
        repositories = [snapshots.XVECTOR if name == snapshots.ARCTIC else name for name in repositories]
    fetched = [name for name in repositories if not _beside(name, part.model)]
    return [*(_on_hub(name, f"{part.name}: ", snapshots.KIND) for name in fetched), *found]


def _beside(name: str, model: str | None) -> bool:
    """Whether a folder of the user's stands for a repository: see `snapshots.given`."""
    folder = Path(name).expanduser()
    return folder.is_dir() or (model is not None and (Path(model).expanduser() / folder.name).is_dir())


def _on_hub(name: str, what: str, kind: str) -> Need:
    """Of a repository, as it is or as `org/name@commit`."""
    repository, _, asked = name.partition("@")
    known = hubnames.HUB.get(repository)
    megabytes, revision = known.megabytes if known else None, asked or hubnames.pinned(repository)
    return Need(f"{what}{repository}", HUB, megabytes, kind, snapshots.label(repository), revision)
