"""A run's tables, figures and HTML report, made from its CSV alone: no model, no GPU, no network.

`tables/` holds the rows that need models (utterances, selection, contexts, cosines, geometry) and what is computed from them.
"""

import base64
from collections.abc import Callable
from pathlib import Path

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from syn2real_utils import diagrams, extras, figures, papertables, rawscoring, selection, statistics, tables
from syn2real_utils.errors import UserError
from syn2real_utils.profile import Profile, load_profile
from syn2real_utils.store import write_text_atomic

PROFILE = "profile.yaml"
ROWS = ("utterances", "selection", "contexts", "cosines", "geometry")  # tables that need models
COMPUTED = ("wer", "cer", "changes", "lam", "context_gaps", "examples")  # tables that are computed from those
RAW = ("raw_wer", "raw_changes")  # and in protocol paper
TEMPLATE = Path(__file__).parent / "templates" / "report.html"
SHOWN = 5  # gains and losses in the report, per target and TTS


def write_rows(folder: Path, rows: dict[str, pd.DataFrame]) -> None:
    """Write the tables that need models as CSV below `folder`/tables."""
    for name, table in rows.items():
        _write(folder, name, table)


def redraw(folder: Path) -> list[Path]:
    """Compute every other table and draw every figure of a run from its rows; return the paths of the figures.

    Raises:
        UserError: no run, or a table is missing.
    """
    profile, rows = load_run(folder)
    samples, confidence = profile.evaluation.bootstrap_samples, profile.evaluation.confidence
    found = {
        "wer": statistics.wer_table(rows["utterances"], samples, confidence),
        "cer": statistics.cer_table(rows["utterances"], samples, confidence),
        "changes": statistics.changes_table(rows["utterances"], samples=samples, confidence=confidence),
        "lam": selection.lam_table(rows["utterances"]),
        "context_gaps": statistics.context_gaps(rows["contexts"], samples, confidence),
        "examples": tables.examples(rows["utterances"], SHOWN),
    }
    if profile.evaluation.protocol == "paper":
        found["raw_wer"] = rawscoring.raw_wer(rows["utterances"], samples, confidence)
        found["raw_changes"] = rawscoring.raw_changes(rows["utterances"], samples, confidence)
    found |= extras.compute(profile, rows)
    for name, table in found.items():
        _write(folder, name, table)
    shown = [tables.as_markdown(tables.results_table(found["wer"], found["changes"], confidence))]
    if profile.evaluation.protocol == "paper":
        shown.append(tables.as_markdown(tables.raw_table(found["wer"], found["raw_wer"])))
    if (beside := paper_table(folder)) is not None:
        _write(folder, "paper", beside)
        shown += [f"## {beside.attrs['title']}", tables.as_markdown(beside)]
    write_text_atomic(folder / "tables" / "results.md", "\n\n".join(shown) + "\n")
    return [
        figures.save(draw(), folder / "figures" / f"{name}.png")
        for name, draw in drawings(profile, rows | found).items()
    ]


def paper_table(folder: Path) -> pd.DataFrame | None:
    """What the paper published beside what this run found, and other runs in the folder of runs that belong to the same table.

    None where the profile reproduces nothing of the paper. `attrs["title"]` and `attrs["note"]` say what it is.
    """
    profile = load_profile(folder / PROFILE)
    if profile.reproduces is None:
        return None
    known = papertables.published(profile.reproduces)
    runs = _same_table(folder, profile)
    backbones = [b for b in dict.fromkeys([profile.backbone.name, *known.backbone, *runs]) if b]
    names = [(domain, part.name, b) for b in backbones for part in profile.tts for domain in profile.targets]
    cells = pd.DataFrame(names, columns=["domain", "tts", "backbone"])
    if profile.reproduces == "fig4":
        table = papertables.lams(known, cells[cells.backbone == profile.backbone.name], read(folder, "lam"))
    elif profile.reproduces == "fig5":
        table = papertables.tts_cosines(known, read(folder, "cosines"))
    else:
        model = "ensemble" if profile.reproduces == "ensemble" else "adapted"
        raw, plain = (
            pd.concat([read(place, name).assign(backbone=b) for b, place in runs.items()])
            for name in ("raw_changes", "changes")
        )
        table = papertables.reductions(known, cells, raw, plain, model)
    table.attrs["title"] = papertables.TITLES[profile.reproduces]
    return table


def _same_table(folder: Path, profile: Profile) -> dict[str, Path]:
    """Backbone -> folder of each finished run for the same table of the paper; this run's own first."""
    found = {profile.backbone.name: folder}
    for file in sorted(folder.parent.glob(f"*/{PROFILE}")):
        if not all((file.parent / "tables" / f"{name}.csv").is_file() for name in ("raw_changes", "changes")):
            continue
        other = load_profile(file)
        if other.reproduces == profile.reproduces:
            found.setdefault(other.backbone.name, file.parent)
    return found


def files(profile: Profile) -> list[str]:
    """Tables and figures of a finished run, below its folder."""
    names = [*ROWS, *COMPUTED, *(RAW if profile.evaluation.protocol == "paper" else ())]
    names += ["paper"] if profile.reproduces else []
    names += [*extras.row_names(profile), *extras.computed_names(profile)]
    return [f"tables/{name}.csv" for name in names] + [f"figures/{name}.png" for name in drawings(profile, {})]


def drawings(profile: Profile, found: dict[str, pd.DataFrame]) -> dict[str, Callable[[], Figure]]:
    """Every figure of a run by the name of its file, in the order of the story."""
    return {
        "quadrants": diagrams.quadrants,
        "overview": diagrams.overview,
        "wer": lambda: figures.wer_intervals(found["wer"], found["changes"]),
        "lam_curves": lambda: figures.lam_curves(found["wer"], found["lam"]),
        "geometry": lambda: diagrams.geometry(found["geometry"], found["lam"]),
        "cosine_heatmap": lambda: figures.cosine_heatmap(found["cosines"]),
        "ensemble": lambda: figures.ensemble_comparison(found["wer"]),
        **extras.drawings(profile, found),
    }


def load_run(folder: Path) -> tuple[Profile, dict[str, pd.DataFrame]]:
    """The profile and the rows of a finished run."""
    if not (folder / PROFILE).is_file():
        raise UserError(f"no run at {folder}: expected a folder such as runs/quickstart, as 'syn2real run' makes it")
    profile = load_profile(folder / PROFILE)
    return profile, {name: read(folder, name) for name in (*ROWS, *extras.row_names(profile))}


def read(folder: Path, name: str) -> pd.DataFrame:
    """One table of a run."""
    file = folder / "tables" / f"{name}.csv"
    if not file.is_file():
        raise UserError(f"the run {folder} has no tables/{name}.csv: finish it with 'syn2real run {folder.name}'")
    return tables.read_csv(file)


def results(folder: Path) -> pd.DataFrame:
    """The table of results of a run."""
    confidence = load_profile(folder / PROFILE).evaluation.confidence
    return tables.results_table(read(folder, "wer"), read(folder, "changes"), confidence)


def summary(folder: Path) -> str:
    """The results of a run for a terminal, and where everything lies."""
    places = {
        "tables": folder / "tables" / "wer.csv",
        "figures": folder / "figures",
        "notebooks": folder / "notebooks",
        "report": folder / "report.html",
    }
    lines = [f"  {name + ':':<11}{path}" for name, path in places.items()]
    return "\n".join([tables.as_text(results(folder), 118), "", *lines])


def write_html(folder: Path, clips: dict[str, Path], about: dict[str, object]) -> Path:
    """Write report.html: one file with results, figures, examples with their audio, and how it was made.

    Args:
        folder: of the run.
        clips: utterance -> its clip, of those that are shown.
        about: machine, commit and versions.
    """
    table, profile = results(folder), load_profile(folder / PROFILE)
    shown = read(folder, "examples")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    pictures = [(name, _data(folder / "figures" / f"{name}.png", "image/png")) for name in drawings(profile, {})]
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=folder.name,
        profile=profile,
        settings=(folder / PROFILE).read_text(encoding="utf-8"),
        columns=list(table.columns),
        rows=table.values.tolist(),
        note=table.attrs["note"],
        lams=read(folder, "lam").to_dict("records"),
        gaps=[row | {"change": tables.points(row)} for row in read(folder, "context_gaps").to_dict("records")],
        pictures=pictures,
        captions=CAPTIONS | extras.CAPTIONS,
        examples=[row | {"audio": _data(clips[str(row["utterance"])])} for row in shown.to_dict("records")],
        notebooks=sorted(path.name for path in (folder / "notebooks").glob("*.html")),
        about=about,
    )
    write_text_atomic(folder / "report.html", page)
    return folder / "report.html"


CAPTIONS = {
    "quadrants": "The idea: τ is measured in the source domains and added in the target domain.",
    "overview": "What is trained on what.",
    "wer": "Word error rate on real speech of the target domain.",
    "lam_curves": "Word error rate over the scaling factor λ.",
    "geometry": "The models of this run in the plane of syn_source, real_source and syn_target.",
    "cosine_heatmap": "Cosine between the task vectors of single source domains, across the TTS engines.",
    "ensemble": "The mean of one vector per source domain against the pooled vector.",
}


def _write(folder: Path, name: str, table: pd.DataFrame) -> None:
    write_text_atomic(folder / "tables" / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))


def _data(path: Path, kind: str = "") -> str:
    """A file as a data: address."""
    kind = kind or {".ogg": "audio/ogg", ".flac": "audio/flac", ".mp3": "audio/mpeg"}.get(path.suffix, "audio/wav")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
