"""Content-addressed artifacts: a folder whose name holds the fingerprint of everything it was made from.

A folder is made under a lock in `<name>.partial` and published by one rename, so a reader sees all of it or nothing.
What a killed attempt left in `.partial` stays for the next attempt to go on from. `done.json` holds the key and the
size and hash of every file: a file that is missing or cut short is noticed when the folder is opened.
Processes that need the same artifacts share the making of them: see `in_any_order`.
"""

import contextlib
import glob
import hashlib
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from filelock import FileLock, Timeout

from syn2real_utils.errors import UserError, disk_full
from syn2real_utils.progress import say

DONE = "done.json"
# A number of a process means nothing on another machine. A pod is known by the end of its name, which may be long.
HOST = socket.gethostname().partition(".")[0][-32:]
SKEW = 60  # seconds by which the clocks of a machine and of its file server may differ
LONGEST_NAME = 200  # bytes; file systems have 255, and what is hidden beside an output adds its own
T = TypeVar("T")
_WAITS = ContextVar("waits", default=True)  # whether an artifact that another process makes is waited for


def home() -> Path:
    """The project's folder: $SYN2REAL_HOME, else the nearest parent that holds `notebooks/`, else this folder."""
    if given := os.environ.get("SYN2REAL_HOME"):
        return Path(given).resolve()
    here = Path.cwd().resolve()
    return next((p for p in (here, *here.parents) if (p / "notebooks" / "00_overview.ipynb").exists()), here)


def fingerprint(key: object) -> str:
    """16 hex digits of the sha256 of `key` as canonical JSON."""
    text = json.dumps(key, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A finished folder of the store."""

    path: Path
    fingerprint: str

    def key(self) -> dict[str, object]:
        """Description of all that it was made from."""
        return json.loads((self.path / DONE).read_text(encoding="utf-8"))["key"]

    def damage(self, hashes: bool = False) -> list[str]:
        """Files that are missing or differ in size (with `hashes`, in content) from what was published."""
        files = json.loads((self.path / DONE).read_text(encoding="utf-8"))["files"]
        bad = []
        for name, (size, digest) in files.items():
            file = self.path / name
            if not file.exists() or file.stat().st_size != size or (hashes and sha256(file) != digest):
                bad.append(name)
        return bad


class Store:
    """Artifacts below one folder, addressed by kind, a readable label and a fingerprint."""

    def __init__(self, root: Path | None = None):
        self.root = root or home()

    def find(self, kind: str, label: str, key: dict) -> Artifact | None:
        """The finished, undamaged artifact for `key`, or None."""
        artifact = self._artifact(kind, label, key)
        if not (artifact.path / DONE).exists():
            return None
        try:
            bad = artifact.damage()
        except FileNotFoundError:  # another process has just deleted it, to make it again
            return None
        except (ValueError, KeyError, TypeError, AttributeError):  # what a damaged done.json raises
            bad = [DONE]
        if bad:
            say(f"{artifact.path} is damaged ({bad[0]}): making it again")
            return None
        return artifact

    def build(self, kind: str, label: str, key: dict, make: Callable[[Path], object]) -> Artifact:
        """Return the artifact for `key`; when there is none, let `make(folder)` fill a folder and publish it.

        Args:
            kind: folder below the root, e.g. `data/corpora` or `runs/artifacts/models`.
            label: readable start of the folder's name.
            key: JSON-able description of all inputs, settings and the code version of the stage.
            make: fills the folder that it is given, which may hold what a killed attempt left; its value is dropped.

        Raises:
            UserError: no space is left on the disk. The partial folder is kept.
            Busy: another process makes it, and `in_any_order` has other steps meanwhile.
        """
        if found := self.find(kind, label, key):
            return found
        artifact = self._artifact(kind, label, key)
        artifact.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(artifact.path), _waiting(True):
            if found := self.find(kind, label, key):  # another process made it while we waited
                return found
            partial = artifact.path.with_name(artifact.path.name + ".partial")
            for stale in partial.parent.glob(
                f".{glob.escape(partial.name)}.*"
            ):  # of a killed checkpoints.apply and its like
                shutil.rmtree(stale)
            partial.mkdir(exist_ok=True)
            try:
                make(partial)
                _mark_done(partial, key)
            except UserError:
                if not any(partial.iterdir()):  # nothing to go on from: leave no trace
                    partial.rmdir()
                raise
            except Exception as error:
                if not disk_full(error):
                    raise
                raise UserError(
                    f"no space left on the disk while making {artifact.path}: free some and call again"
                ) from error
            shutil.rmtree(artifact.path, ignore_errors=True)  # damaged, or what a killed deletion left
            partial.rename(artifact.path)
        return artifact

    def _artifact(self, kind: str, label: str, key: dict) -> Artifact:
        digest = fingerprint(key)
        return Artifact(self.root / kind / f"{label}-{digest}", digest)


class Busy(Exception):
    """Another process is making an artifact that a step of `in_any_order` needs."""


def in_any_order(steps: Sequence[Callable[[], T]]) -> list[T]:
    """What each step returns, in their order; a step that would wait for another process is put off until it need not.

    Two processes that need the same artifacts so share the making of them, where each would wait for the other at every one.
    A step that is put off begins again later, and finds in the store what it has made by then. Steps may have steps of their own.
    """
    found: dict[int, T] = {}
    while left := [i for i in range(len(steps)) if i not in found]:
        for i in left:
            with contextlib.suppress(Busy), _waiting(False):
                found[i] = steps[i]()
        if not found.keys() & set(left):  # nothing is left but to wait, or to be put off with all of them
            found[left[0]] = steps[left[0]]()
    return [found[i] for i in range(len(steps))]


def check_name(out: Path) -> None:
    """Raise UserError where the name of `out` leaves no room for that of the hidden file or folder that is written first."""
    if (size := len(os.fsencode(out.name))) > LONGEST_NAME:
        raise UserError(f"the name {out.name[:40]}... has {size} bytes: name an output of {LONGEST_NAME} at most")


def check_writable(out: Path) -> None:
    """Raise UserError where `out` could not be written in the end: it is tried, for a disk may be read-only for root too."""
    check_name(out)
    there = next(path for path in out.resolve().parents if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {there} is no folder that you may write to ({error.strerror}); name another --out"
        ) from error


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it, each with the names of its files; links to folders are followed, each folder comes once."""
    been: set[str] = set()
    for here, inner, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in been:
            inner.clear()
            continue
        been.add(real)
        inner.sort()
        yield Path(here), files


def read_utf8(file: Path) -> str:
    """The text of a user's file; UserError where it is in another encoding."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8") from error


def write_text_atomic(path: Path, text: str) -> None:
    """Write a small file so that a reader or a kill never sees half of it."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` that takes its place when the block ends well; otherwise nothing stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def partial_of(out: Path, ending: str = ".partial") -> Path:
    """The hidden file or folder beside `out` that this process writes first: others may write the same `out`."""
    return out.with_name(f".{out.name}.{HOST}-{os.getpid()}{ending}")


def left_over(out: Path, ending: str = ".partial") -> list[Path]:
    """What processes of this machine that were killed left of `out`, named as `partial_of` does."""
    start = f".{out.name}.{HOST}-"
    found = []
    for path in sorted(out.parent.glob(f"{glob.escape(start)}*{ending}")):
        number = path.name.removeprefix(start).removesuffix(ending)
        if number.isdecimal() and not _lives(int(number), path):
            found.append(path)
    return found


def clear(out: Path, ending: str = ".partial") -> None:
    """Delete what is `left_over`."""
    for path in left_over(out, ending):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _lives(number: int, path: Path) -> bool:
    """Whether the process that made `path` may live: one of its number does that did not begin later (a container's do again)."""
    try:
        os.kill(number, 0)
        return path.stat().st_ctime + SKEW > psutil.Process(number).create_time()
    except (ProcessLookupError, OverflowError):
        return False
    except (OSError, psutil.Error):  # another user's, or gone just now: not ours
        return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of an artifact."""
    try:
        lock = FileLock(f"{path}.lock").acquire(timeout=-1 if _WAITS.get() else 0)
    except Timeout as error:
        raise Busy(path.name) from error
    with lock:
        yield


@contextlib.contextmanager
def _waiting(waits: bool) -> Iterator[None]:
    """Say whether artifacts that others make are waited for inside the block."""
    token = _WAITS.set(waits)
    try:
        yield
    finally:
        _WAITS.reset(token)


def _mark_done(folder: Path, key: dict) -> None:
    files = {
        str(p.relative_to(folder)): [p.stat().st_size, sha256(p)]
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != DONE
    }
    write_text_atomic(folder / DONE, json.dumps({"key": key, "files": files}, indent=1, ensure_ascii=False))
    for name in files:  # safetensors lets only its owner read what it writes; a store is shared as the umask says
        (folder / name).chmod(
            stat.S_IMODE((folder / name).stat().st_mode) | stat.S_IMODE((folder / DONE).stat().st_mode)
        )
