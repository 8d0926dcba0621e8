"""What this machine has and what each profile lacks."""

import importlib.util
import os
import shutil
from pathlib import Path

from huggingface_hub import HfApi

from syn2real_utils import fetch, hubnames, machine
from syn2real_utils.backbones.sources import CARRIED, HUB_NAME, KIND
from syn2real_utils.corpora import asterisk, slurpfetch, tuxpaint
from syn2real_utils.errors import UserError
from syn2real_utils.profile import Profile, load_profile, profile_names
from syn2real_utils.store import home
from syn2real_utils.tts import snapshots
from syn2real_utils.tts.base import ENGINES

NEEDED_GB = 12.0  # of disk for the quickstart
HUB_SECONDS = 3.0
CORPORA = [f"tuxpaint-{code}" for code in tuxpaint.LANGUAGES] + [f"asterisk-{code}" for code in asterisk.VOICES]
Finding = dict[str, object]


def examine() -> dict[str, Finding]:
    """Everything that `syn2real doctor` prints, as plain data: section -> name -> finding."""
    root, online = home(), hub()
    free = shutil.disk_usage(root).free / 1e9
    return {
        "machine": {
            "processor": f"{machine.cpu()}, {os.cpu_count()} cores",
            "memory": f"{machine.memory_gb():.0f} GB",
            "GPU": machine.gpu() or "none: everything runs on the processor",
            "computes in": machine.precision("auto"),
            "free disk": f"{free:.0f} GB" + ("" if free > NEEDED_GB else f": the quickstart needs {NEEDED_GB:.0f} GB"),
            "project": str(root),
        },
        "sources": {
            "apt": "found"
            if shutil.which("apt-get")
            else "none: tuxpaint and asterisk need their source releases, see data/README.md",
            "Hugging Face hub": "reachable" if online else "not reachable: the quickstart does not need it",
        },
        "backbones": {name: _fetched(root / KIND, f"whisper-{name}") for name in CARRIED},
        "corpora": {
            **{name: _fetched(root / "data/sources", name) for name in CORPORA},
            "slurp-en": _slurp(root, online),
        },
        "TTS": {name: _tts(name, root) for name in ENGINES},
        "hub names": {name: about.line() for name, about in hubnames.HUB.items()},
        "profiles": {name: lacks(load_profile(name), root, online) for name in profile_names()},
    }


def lacks(profile: Profile, root: Path, online: bool = True) -> str:
    """What a profile needs that this machine has not fetched yet; `online`: whether the hub answers."""
    from syn2real_utils import stages  # imports torch: only when asked

    corpus, away = profile.corpus, "" if online else ", which cannot be reached"
    label = slurpfetch.LABELS[corpus.source] if corpus.name == "slurp" else f"{corpus.name}-{corpus.language}"
    missing = []
    if corpus.path is None and not _there(root / "data/sources", label):
        missing.append(f"speech of {label}" + (f" from the hub{away}" if corpus.source == "hub" else ""))
    if weights := _lacks_weights(profile.backbone.name, root):
        missing.append(f"weights of {weights}" + ("" if weights in CARRIED else f" from the hub{away}"))
    missing += [f"voices of {part.name}" for part in profile.tts if not _has_tts(part.name, root)]
    try:
        stages.check(profile)
    except UserError as error:
        return f"cannot run: {error}"
    return "ready" if not missing else f"fetches first: {', '.join(missing)}"


def hub() -> bool:
    """Whether the hub answers within `HUB_SECONDS`."""
    try:
        HfApi().model_info("openai/whisper-tiny", timeout=HUB_SECONDS)
    except Exception:  # whatever goes wrong, it cannot be used
        return False
    return True


def text(found: dict[str, Finding]) -> str:
    """The findings for people."""
    lines = []
    for section, findings in found.items():
        lines.append(section)
        lines += [f"  {name + ':':<19} {finding}" for name, finding in findings.items()]
    return "\n".join(lines)


def _lacks_weights(name: str, root: Path) -> str | None:
    """The backbone that must be fetched, by its name; None: it is there, or it is a folder."""
    short = name.removeprefix("openai/whisper-")
    if short in CARRIED:
        return None if _there(root / KIND, f"whisper-{short}") else short
    on_hub = None if Path(name).is_dir() else HUB_NAME.fullmatch(name)
    return on_hub[1] if on_hub and not _there(root / KIND, on_hub[1].replace("/", "-")) else None


def _slurp(root: Path, online: bool) -> str:
    """SLURP: there, or from where it can be had."""
    if ready := [label for label in slurpfetch.LABELS.values() if _there(root / "data/sources", label)]:
        return f"ready ({', '.join(ready)})"
    sites = {name: fetch.reachable(url, HUB_SECONDS) for name, url in slurpfetch.SITES.items()}
    answers = [f"{name} {'reachable' if there else 'not reachable'}" for name, there in sites.items()]
    answers.append(f"the hub's copy {'reachable' if online else 'not reachable'}")
    can = "fetched at first use (4 GB)" if all(sites.values()) or online else "give its folder as corpus.path"
    return f"not fetched yet: {can}; {', '.join(answers)}; audio not for commercial use"


def _tts(name: str, root: Path) -> str:
    return "ready" if _has_tts(name, root) else "not fetched yet: fetched at first use"


def _has_tts(name: str, root: Path) -> bool:
    if name in snapshots.NEEDS:
        return all(_there(root / snapshots.KIND, snapshots.label(each)) for each in snapshots.NEEDS[name])
    if name == "pico":
        return importlib.util.find_spec("py_nanotts") is not None
    return _there(root / "data/tts", name)


def _fetched(folder: Path, label: str) -> str:
    return "ready" if _there(folder, label) else "not fetched yet: fetched at first use"


def _there(folder: Path, label: str) -> bool:
    return any((path / "done.json").is_file() for path in folder.glob(f"{label}-*"))
