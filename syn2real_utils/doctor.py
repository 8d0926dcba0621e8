"""What this machine has and what each profile lacks."""

import importlib.util
import os
import shutil
from pathlib import Path

from huggingface_hub import HfApi

from syn2real_utils import machine
from syn2real_utils.backbones.sources import CARRIED, KIND
from syn2real_utils.corpora import asterisk, tuxpaint
from syn2real_utils.errors import UserError
from syn2real_utils.profile import Profile, load_profile, profile_names
from syn2real_utils.store import home
from syn2real_utils.tts.base import ENGINES

NEEDED_GB = 12.0  # of disk for the quickstart
HUB_SECONDS = 3.0
CORPORA = [f"tuxpaint-{code}" for code in tuxpaint.LANGUAGES] + [f"asterisk-{code}" for code in asterisk.VOICES]
Finding = dict[str, object]


def examine() -> dict[str, Finding]:
    """Everything that `syn2real doctor` prints, as plain data: section -> name -> finding."""
    root = home()
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
            "Hugging Face hub": "reachable" if hub() else "not reachable: the quickstart does not need it",
        },
        "backbones": {name: _fetched(root / KIND, f"whisper-{name}") for name in CARRIED},
        "corpora": {name: _fetched(root / "data/sources", name) for name in CORPORA},
        "TTS": {name: _tts(name, root) for name in ENGINES},
        "profiles": {name: lacks(load_profile(name), root) for name in profile_names()},
    }


def lacks(profile: Profile, root: Path) -> str:
    """What a profile needs that this machine has not fetched yet."""
    from syn2real_utils import stages  # imports torch: only when asked

    missing = []
    if profile.corpus.path is None and not _there(
        root / "data/sources", f"{profile.corpus.name}-{profile.corpus.language}"
    ):
        missing.append(f"speech of {profile.corpus.name}-{profile.corpus.language}")
    short = profile.backbone.name.removeprefix("openai/whisper-")
    if short in CARRIED and not _there(root / KIND, f"whisper-{short}"):
        missing.append(f"weights of {short}")
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
        lines += [f"  {name + ':':<20}{finding}" for name, finding in findings.items()]
    return "\n".join(lines)


def _tts(name: str, root: Path) -> str:
    return "ready" if _has_tts(name, root) else "not fetched yet: fetched at first use"


def _has_tts(name: str, root: Path) -> bool:
    if name == "pico":
        return importlib.util.find_spec("py_nanotts") is not None
    return _there(root / "data/tts", name)


def _fetched(folder: Path, label: str) -> str:
    return "ready" if _there(folder, label) else "not fetched yet: fetched at first use"


def _there(folder: Path, label: str) -> bool:
    return any((path / "done.json").is_file() for path in folder.glob(f"{label}-*"))
