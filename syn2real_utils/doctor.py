"""What this machine has and what each profile lacks."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import HfApi

from syn2real_utils import fetch, hubnames, machine, needs
from syn2real_utils.backbones.sources import CARRIED
from syn2real_utils.corpora import asterisk, slurpfetch, tuxpaint
from syn2real_utils.errors import UserError, names
from syn2real_utils.needs import HUB, RELEASE, Need
from syn2real_utils.profile import CorpusPart, Profile, TtsPart, load_profile, profile_names
from syn2real_utils.store import home
from syn2real_utils.tts.base import ENGINES

NEEDED_GB = 12.0  # of disk for the quickstart
HUB_SECONDS = 3.0
CORPORA = [("tuxpaint", code) for code in tuxpaint.LANGUAGES] + [("asterisk", code) for code in asterisk.VOICES]
AWAY = "which cannot be reached"
INSTEAD = "fetch it elsewhere and name its folder in the profile, see data/README.md"
Finding = dict[str, object]


def examine() -> dict[str, Finding]:
    """Everything that `syn2real doctor` prints, as plain data: section -> name -> finding."""
    if not (root := home()).is_dir():
        raise UserError(f"no folder {root}: set SYN2REAL_HOME to the project's checkout, or call from it")
    sites = {name: fetch.reachable(url, HUB_SECONDS) for name, url in slurpfetch.SITES.items()}
    online = {HUB: hub(), RELEASE: all(sites.values())}
    free = shutil.disk_usage(root).free / 1e9
    corpora = {f"{name}-{code}": needs.of_corpus(CorpusPart(name=name, language=code)) for name, code in CORPORA}
    slurp = CorpusPart(name="slurp", language="en"), CorpusPart(name="slurp", language="en", source="hub")
    asr = {name: needs.of_backbone(name) for name in CARRIED}
    tts = {name: needs.of_tts(TtsPart(name=name)) for name in ENGINES}
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
            else "none: tuxpaint is fetched from its own site, asterisk needs a folder, see data/README.md",
            "Hugging Face hub": "reachable" if online[HUB] else "not reachable: the quickstart does not need it",
            **{name: "reachable" if there else "not reachable: of SLURP alone" for name, there in sites.items()},
        },
        "backbones": {name: state(needed, root, online) for name, needed in asr.items()},
        "corpora": {
            **{name: state(needed, root, online) for name, needed in corpora.items()},
            "slurp-en": state(needs.of_corpus(slurp[0]), root, online) + "; audio not for commercial use",
            "slurp-en, the hub's copy": state(needs.of_corpus(slurp[1]), root, online),
        },
        "TTS": {name: state(needed, root, online) for name, needed in tts.items()},
        "hub names": {name: about.line() for name, about in hubnames.HUB.items()},
        "profiles": {name: lacks(load_profile(name), root, online) for name in profile_names()},
    }


def state(needed: Sequence[Need], root: Path, online: Mapping[str, bool]) -> str:
    """Whether something can be used: it is there, it is fetched at first use, or it cannot be had here.

    Args:
        needed: all its parts.
        root: the project's folder.
        online: which sources answer; one that is not named was not asked.
    """
    if not (missing := [need for need in needed if not need.here(root)]):
        return "ready"
    away = [need for need in missing if not online.get(need.source, True)]
    what = f"{needs.size(missing)} from {names(dict.fromkeys(need.source for need in missing))}"
    return f"not fetched yet: {what}, " + (f"{AWAY}: {INSTEAD}" if away else "fetched at first use")


def lacks(profile: Profile, root: Path, online: Mapping[str, bool]) -> Finding:
    """What a profile needs that this machine has not fetched yet.

    Args:
        profile: its folders are looked at too.
        root: the project's folder.
        online: as in `state`.

    Returns:
        `says` for people; `ready`, `cannot_run` (why, or None), `megabytes` and `missing` for programs, each part with `what,
        source, megabytes, stated` (its size is what others state) and `reachable`.
    """
    from syn2real_utils import given, stages  # imports torch: only when asked

    problem, missing = None, [need for need in needs.of_profile(profile) if not need.here(root)]
    try:
        stages.check(profile)
        given.check(profile)
    except UserError as error:
        problem = str(error)
    parts = [
        {"what": need.what, "source": need.source, "megabytes": need.megabytes, "stated": need.stated,
         "reachable": online.get(need.source, True)}
        for need in missing
    ]  # fmt: skip
    return {
        "says": f"cannot run: {problem}" if problem else _line(missing, online),
        "ready": not missing and problem is None,
        "cannot_run": problem,
        "megabytes": sum(need.megabytes or 0 for need in missing),
        "missing": parts,
    }


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
        for name, finding in findings.items():
            said = finding["says"] if isinstance(finding, dict) else finding
            lines.append(f"  {name + ':':<19} {said}")
    return "\n".join(lines)


def _line(missing: list[Need], online: Mapping[str, bool]) -> str:
    """What a profile lacks, for people: the sources one after the other, each with its parts and their sizes."""
    if not missing:
        return "ready"
    parts = []
    for source in dict.fromkeys(need.source for need in missing):
        listed = ", ".join(f"{need.what} ({need.size()})" for need in missing if need.source == source)
        parts.append(f"from {source}{'' if online.get(source, True) else ', ' + AWAY}: {listed}")
    away = any(not online.get(need.source, True) for need in missing)
    return f"{'cannot run here yet, lacks' if away else 'fetches first'} {needs.size(missing)}: {'; '.join(parts)}"
