"""`syn2real vector ...`: task vectors and models on disk."""

from pathlib import Path
from typing import Annotated

import typer

from syn2real_utils.cli_shared import Json, Out, Overwrite, as_json

vector = typer.Typer(
    help="Task vectors and models on disk: tau = real - syn, base + lam * tau.",
    rich_markup_mode=None,
)


@vector.command()
def subtract(real: Path, syn: Path, out: Out, overwrite: Overwrite = False) -> None:
    """Write tau = REAL - SYN."""
    from syn2real_utils import checkpoints

    checkpoints.subtract(real, syn, out, overwrite)
    typer.echo(f"wrote the task vector {out}")


@vector.command()
def apply(
    base: Path,
    tau: Path,
    lam: Annotated[str, typer.Option("--lam", help="Scaling factor, e.g. 0.4.")],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Write BASE + lam * TAU, a model in the base's files and types."""
    from syn2real_utils import checkpoints

    checkpoints.apply(base, tau, lam, out, overwrite)
    typer.echo(f"wrote the model {out}")


@vector.command()
def mean(taus: list[Path], out: Out, overwrite: Overwrite = False) -> None:
    """Write the mean of task vectors: the ensemble."""
    from syn2real_utils import checkpoints

    checkpoints.mean(taus, out, overwrite)
    typer.echo(f"wrote the task vector {out}")


@vector.command()
def cosine(a: Path, b: Path, in_json: Json = False) -> None:
    """Print the cosine of two task vectors, whole and by module."""
    from syn2real_utils import checkpoints

    found = checkpoints.cosine(a, b)
    typer.echo(
        as_json(found) if in_json else "\n".join(f"{module + ':':<12}{value:+.4f}" for module, value in found.items())
    )


@vector.command()
def info(path: Path, in_json: Json = False) -> None:
    """Print what a model or a task vector is and where it comes from."""
    from syn2real_utils import checkpoints

    found = checkpoints.info(path)
    lines = [f"{key + ':':<14}{_short(value)}" for key, value in found.items() if key != "lineage"]
    typer.echo(as_json(found) if in_json else "\n".join([*lines, "lineage:", as_json(found["lineage"])]))


def _short(value: object) -> object:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
