"""sha256 of the files of a published folder: written beside them, checked when they are read."""

import json
from collections.abc import Iterable
from pathlib import Path

from syn2real_utils.errors import UserError
from syn2real_utils.store import sha256, write_text_atomic

SUMS = "sha256.json"  # file name -> sha256 in hex


def write(folder: Path, names: Iterable[str]) -> None:
    """Write the sums of some files of a folder beside them."""
    sums = {name: sha256(folder / name) for name in sorted(names)}
    write_text_atomic(folder / SUMS, json.dumps(sums, indent=1) + "\n")


def check(folder: Path, only: Iterable[str] | None = None) -> None:
    """Compare the files of a folder (or `only` those) with the sums beside them; without sums nothing is said.

    Raises:
        UserError: the list is damaged or does not name a file of `only`; a file is missing or is another one.
    """
    if not (folder / SUMS).is_file():
        return
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        wanted = {name: str(sums[name]) for name in (sums if only is None else only)}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / SUMS} is damaged: expected the sha256 of each file; fetch the folder again"
        ) from error
    for name, expected in wanted.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(f"{folder / SUMS} names {name}, which is not in its folder: fetch the folder again")
        if (found := sha256(folder / name)) != expected:
            raise UserError(
                f"{folder / name} is damaged: expected sha256 {expected[:12]}, found {found[:12]}: fetch or publish it again"
            )
