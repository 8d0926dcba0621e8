"""`syn2real vector ...`: task vectors and models on disk."""

import contextlib
import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from syn2real_utils.cli_shared import Json, Out, Overwrite, Private, RepoId, as_json

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
        as_json(found)
        if in_json
        else "\n".join(f"{module + ':':<12}{_cosine(value)}" for module, value in found.items())
    )


def _cosine(value: float) -> str:
    return "undefined: one of the two is zero there, or not finite" if math.isnan(value) else f"{value:+.4f}"


@vector.command()
def info(path: Path, in_json: Json = False) -> None:
    """Print what a model or a task vector is and where it comes from."""
    from syn2real_utils import checkpoints

    found = checkpoints.info(path)
    lines = [f"{key + ':':<14}{_short(value)}" for key, value in found.items() if key != "lineage"]
    typer.echo(as_json(found) if in_json else "\n".join([*lines, "lineage:", as_json(found["lineage"])]))


@vector.command()
def publish(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a finished run.")],
    out: Out,
    tts: Annotated[str | None, typer.Option(help="Default: the first of the profile.")] = None,
    target: Annotated[str | None, typer.Option(help="Domain that it was made for; default: the first.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the first.")] = None,
    form: Annotated[str, typer.Option(help="full, or lora: a few MB, of low rank.")] = "full",
    rank: Annotated[int | None, typer.Option(help="Of the form lora; default 8.")] = None,
    overwrite: Overwrite = False,
    repo_id: RepoId = None,
    private: Private = False,
) -> None:
    """Write a run's task vector as a folder for others: with a card, its lam, what to expect of it, and checksums."""
    from syn2real_utils import hub, publish, runs
    from syn2real_utils.profile import load_profile

    run, wanted = runs.find(run_name), publish.Wanted(target, tts, seed, form, rank)
    with contextlib.redirect_stdout(sys.stderr):  # what is said on the way is no part of the answer
        hub.check_wanted(repo_id, private)
        about = publish.publish(run, out, wanted, overwrite).about
    which = f"target {about.target}, TTS {about.tts}, seed {about.seed}"
    size = f"{sum(file.stat().st_size for file in out.iterdir()) / 1e6:.1f} MB"
    kept = f", {100 * about.kept['all']:.1f} % of |tau|^2" if about.kept else ""
    typer.echo(f"wrote the task vector {out}: {which}, {about.form}, {size}{kept}")
    if other := publish.others(load_profile(run / "profile.yaml"), wanted):
        typer.echo(f"the run has others: {'; '.join(other)}")
    if repo_id:
        with contextlib.redirect_stdout(sys.stderr):
            address = hub.push(out, repo_id, private)
        typer.echo(f"pushed to {address}")


def _short(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:.4g}" for name, number in value.items())
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
