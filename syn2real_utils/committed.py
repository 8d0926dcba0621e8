"""Results that are committed with the project, below figures/: what a reader sees who has not made the run.

`keep` copies a finished run there: the rows that need models or speech, the tables and figures that are computed from them,
the profile and what made it. Whatever gives a notebook its rows asks `rows` first: where the run is not on this machine and its
rows are committed, it shows those; else it computes.
"""

import gzip
import shutil
from functools import lru_cache
from pathlib import Path

import pandas as pd

from syn2real_utils import beforeafter, extras, report, tables
from syn2real_utils.errors import UserError, names
from syn2real_utils.profile import Profile, load_profile
from syn2real_utils.store import home

LARGE = 200_000  # bytes; a larger table of rows is compressed
RUN = "run.json"
RESULTS = "results.md"
KINDS = (".csv", ".gz", ".json", ".yaml")


def folder(profile: Profile) -> Path | None:
    """Where the results of this very profile are committed, if its run is not on this machine."""
    if (home() / "runs" / profile.name / report.PROFILE).is_file():
        return None
    for place in (home() / "figures", home() / "figures" / profile.name):
        files = (place / report.MANIFEST, place / report.PROFILE)
        if all(file.is_file() for file in files) and _asks(load_profile(files[1])) == _asks(profile):
            return place
    return None


def rows(profile: Profile, name: str, **where: object) -> pd.DataFrame | None:
    """The committed rows of a table whose columns have the values of `where`; None where the machine has to compute them.

    Raises:
        UserError: the profile has no such target, TTS or seed, so that none of its rows can be committed.
    """
    place = folder(profile)
    file = report.file_of(place, name) if place else None
    if file is None or not file.is_file():
        return None
    table = _read(file, file.stat().st_mtime_ns)
    has: dict[str, list] = {
        "target": profile.targets,
        "tts": [part.name for part in profile.tts],
        "seed": profile.seeds,
    }
    for column, value in where.items():
        if column in has and value not in has[column]:
            raise UserError(f"profile {profile.name} has no {column} '{value}': it has {names(has[column])}")
        table = table[table[column] == value]
    return table.reset_index(drop=True)


def told(profile: Profile) -> str:
    """One line on what a notebook shows."""
    place = folder(profile)
    if place is None:
        return f"{profile.name}: computed on this machine"
    about = report.manifest(place, "machine", "commit")
    return (
        f"{profile.name}: no run here, so these are the committed rows of {place.relative_to(home())}/ ({about['machine']}, "
        f"commit {about['commit']}); 'syn2real run {profile.name}' computes them; "
        "cells that read models or vectors show nothing until then"
    )


def opened(profile: Profile, into: Path) -> Path | None:
    """`into`, filled with the committed tables to draw from; None where `folder` is."""
    place = folder(profile)
    if place is None:
        return None
    for file in place.iterdir():
        if file.suffix in KINDS:
            shutil.copyfile(file, into / file.name)
    return into


def check_into(run: Path, into: Path) -> None:
    """Raise UserError where `keep` would write over anything but results that were kept before."""
    if report.is_flat(run) and into.resolve() == run.resolve():  # it is drawn again where it is
        return
    if into.exists() and not into.is_dir():
        raise UserError(f"{into} is no folder: name the folder to copy to")
    if into.resolve() == run.resolve() or (into / RUN).is_file() or (into / "tables").exists():
        raise UserError(f"{into} is a run's own folder: name another folder to copy to, such as figures/{run.name}")
    of_the_kind = beforeafter.is_kept(into) if beforeafter.is_kept(run) else (into / report.MANIFEST).is_file()
    if into.is_dir() and any(into.iterdir()) and not of_the_kind:
        raise UserError(
            f"{into} holds other things, no such results that were copied before: name another folder to copy to"
        )


def keep(run: Path, into: Path) -> list[Path]:
    """Copy tables and figures of a finished run, and what made them, into a folder to commit; return what lies there now.

    A folder of committed CSV is copied as it is. Drawings of the idea are left out below a folder that has them.

    Raises:
        UserError: the run is not finished.
    """
    if report.is_flat(run):
        into.mkdir(parents=True, exist_ok=True)
        found = [f for f in sorted(run.iterdir()) if f.is_file() and (f.suffix != ".md" or f.name == RESULTS)]
        copied = [Path(shutil.copyfile(file, into / file.name)) for file in found]
        for other in {_other_form(file) for file in copied} - set(copied):
            other.unlink(missing_ok=True)
        return copied
    profile = report.profile_of(run)
    wanted = [*report.files(profile), "tables/results.md", RUN]
    if lost := [file for file in wanted if not (run / file).is_file()]:
        raise UserError(f"the run {run.name} has no {lost[0]}: finish it with 'syn2real run {run.name}'")
    into.mkdir(parents=True, exist_ok=True)
    of_rows = {f"tables/{name}.csv" for name in (*report.ROWS, *extras.row_names(profile))}
    known = {f"figures/{name}.png" for name in report.IDEA if (into.parent / f"{name}.png").is_file()}
    kept = [_copy(run / file, into, file in of_rows) for file in wanted[:-1] if file not in known]
    kept.append(Path(shutil.copyfile(run / report.PROFILE, into / report.PROFILE)))
    return [*kept, Path(shutil.copyfile(run / RUN, into / report.MANIFEST))]


def _copy(file: Path, into: Path, may_shrink: bool) -> Path:
    """A table or figure; a large one that is never written again is compressed, to the same bytes whenever it is."""
    plain, packed = into / file.name, into / f"{file.name}.gz"
    if may_shrink and file.stat().st_size > LARGE:
        packed.write_bytes(gzip.compress(file.read_bytes(), 9, mtime=0))
        plain.unlink(missing_ok=True)
        return packed
    packed.unlink(missing_ok=True)
    return Path(shutil.copyfile(file, plain))


def _other_form(file: Path) -> Path:
    """A table compressed, of one that is not, and the other way round."""
    return file.with_suffix("") if file.suffix == ".gz" else file.with_name(f"{file.name}.gz")


@lru_cache(maxsize=16)
def _read(file: Path, _: int) -> pd.DataFrame:
    try:
        return tables.read_csv(file)
    except UserError as error:
        raise UserError(f"{error}; restore it with git") from error


def _asks(profile: Profile) -> dict:
    """What a profile asks for, but for words, what each machine decides, and how rows are drawn from."""
    asked = profile.model_dump(mode="json", exclude={"resources", "description", "threads"})
    del asked["backbone"]["precision"], asked["evaluation"]["bootstrap_samples"], asked["evaluation"]["confidence"]
    return asked
