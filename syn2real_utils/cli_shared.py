"""What the parts of the command line share: options that mean the same everywhere, and JSON."""

import json
import math
import sys
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")]
RepoId = Annotated[
    str | None, typer.Option("--push-to-hub", metavar="REPO_ID", help="Push it there as well, e.g. me/es-animals.")
]
Private = Annotated[bool, typer.Option("--private", help="Only into a private repository.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model or vector that stands there.")]


def as_json(value: object) -> str:
    """`value` as JSON; where it is printed to what is not UTF-8, with JSON's own escapes."""
    narrow = (getattr(sys.stdout, "encoding", None) or "utf-8").lower() != "utf-8"
    return json.dumps(_plain(value), indent=1, ensure_ascii=narrow, allow_nan=False)


def _plain(value: object) -> object:
    """`value` with null for nan and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
