"""A run's tables, figures and HTML report, made from its CSV alone: no model, no GPU, no network, no torch.

`tables/` holds the rows that need models or speech (`ROWS`) and what is computed from them (`COMPUTED`). A folder without
`tables/`, such as the committed figures/, holds CSV and figures side by side; there, what lacks its rows is left out.
"""

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from syn2real_utils import (
    anatomy,
    audit,
    beforeafter,
    diagrams,
    evidencetables,
    extras,
    figures,
    figures_errors,
    papertables,
    rawscoring,
    selection,
    statistics,
    tables,
    versus,
)
from syn2real_utils.errors import UserError, names
from syn2real_utils.origins import of_profile, terms
from syn2real_utils.profile import Profile, load_profile
from syn2real_utils.progress import say
from syn2real_utils.store import home, write_text_atomic

PROFILE = "profile.yaml"
MANIFEST = "manifest.json"  # of a folder of committed CSV: names the profile
ROWS = ("utterances", "selection", "contexts", "cosines", "geometry", "synthetic")  # tables that need models or speech
COMPUTED = (
    "wer", "cer", "changes", "baselines", "lam", "context_gaps", "examples", "audit", "hallucinations", "quality", "anatomy", "words",
)  # fmt: skip
RAW = ("raw_wer", "raw_changes")  # and in protocol paper
NEW = ("synthetic",)  # rows that runs of 0.1 lack
IDEA = ("quadrants", "overview")  # drawings that need no numbers
NEEDS = {  # what is made from other rows than those of utterances
    "context_gaps": "contexts", "quality": "synthetic", "geometry": "geometry", "cosine_heatmap": "cosines",
}  # fmt: skip
WANTED = {
    "geometry": ("target", "tts", "seed", "model", "lam", "x", "y", "distance"),
    "cosines": ("seed", "tts_a", "domain_a", "tts_b", "domain_b", "module", "cosine"),
}  # columns that are drawn; of other rows the tables say what lacks
TEMPLATE = Path(__file__).parent / "templates" / "report.html"
SHOWN = 8  # gains and losses in the report, per target and TTS


def write_rows(folder: Path, rows: dict[str, pd.DataFrame]) -> None:
    """Write the tables that need models as CSV below `folder`/tables."""
    for name, table in rows.items():
        _write(folder, name, table)


def redraw(folder: Path) -> list[Path]:
    """Compute every other table and draw every figure of a run, or of `benchmarks/adapt.py`, from its rows.

    Returns:
        The paths of the figures.

    Raises:
        UserError: no run, or a table is missing.
    """
    if beforeafter.is_kept(folder):
        return beforeafter.redraw(folder)
    profile, rows = load_run(folder)
    samples, confidence = profile.evaluation.bootstrap_samples, profile.evaluation.confidence
    found = computed(rows, samples, confidence)
    if profile.evaluation.protocol == "paper":
        found |= _against_raw(rows["utterances"], samples, confidence)
    found |= extras.compute(profile, rows)
    found = {name: _said_of(table, profile) for name, table in found.items()}
    shown = [tables.as_markdown(tables.results_table(found["wer"], found["changes"], confidence))]
    if "raw_wer" in found:
        shown.append(tables.as_markdown(tables.raw_table(found["wer"], found["raw_wer"])))
    beside = tables.baselines_table(found["baselines"], confidence)
    shown += ["## Against other models", tables.as_markdown(beside)]
    if "rival_changes" in found:
        rivals = versus.rivals_table(found["rival_changes"], confidence)
        shown += ["## Null vectors and rivals", tables.as_markdown(rivals)]
    for title, table in evidencetables.sections(found, confidence).items():
        shown += [f"## {title}", tables.as_markdown(table)]
    for name, table in found.items():
        _write(folder, name, table)
    if (beside := paper_table(folder)) is not None:
        _write(folder, "paper", beside)
        shown += [f"## {beside.attrs['title']}", tables.as_markdown(beside)]
    shown += ["## Licences", *terms(of_profile(profile))]
    write_text_atomic(_tables(folder) / "results.md", "\n\n".join(shown) + "\n")
    needs = NEEDS | {name: name for name in extras.row_names(profile)}
    drawn = {
        name: draw for name, draw in drawings(profile, rows | found).items() if needs.get(name, "utterances") in rows
    }
    if is_flat(folder):  # only one folder of committed CSV has the drawings of the idea
        drawn = {name: draw for name, draw in drawn.items() if name not in IDEA or (folder / f"{name}.png").is_file()}
    return [figures.save(draw(), _figures(folder) / f"{name}.png") for name, draw in drawn.items()]


def _said_of(table: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """A computed table with its protocol, and where it has a p after Holm, with what that says of the change."""
    if "protocol" not in table:
        table = table.assign(protocol=profile.evaluation.protocol)
    if "p_holm" not in table:
        return table
    change = table["relative_change" if "relative_change" in table else "difference"]
    level = tables.level(profile.evaluation.confidence)
    claims = zip(table.get("p", table.p_holm), table.p_holm, change, strict=True)
    said = ["" if pd.isna(own) and pd.notna(p) else tables.verdict(own, by, level) for p, own, by in claims]
    return table.assign(verdict=said)


def _against_raw(said: pd.DataFrame, samples: int, confidence: float) -> dict[str, pd.DataFrame]:
    """The tables `RAW`."""
    return {
        "raw_wer": rawscoring.raw_wer(said, samples, confidence),
        "raw_changes": rawscoring.raw_changes(said, samples, confidence),
    }


def computed(rows: dict[str, pd.DataFrame], samples: int, confidence: float) -> dict[str, pd.DataFrame]:
    """Every table of `COMPUTED` that the rows at hand allow."""
    said = rows["utterances"]
    changes = statistics.changes_table(said, samples=samples, confidence=confidence)
    make: dict[str, Callable[[], pd.DataFrame]] = {
        "wer": lambda: statistics.wer_table(said, samples, confidence),
        "cer": lambda: statistics.cer_table(said, samples, confidence),
        "changes": lambda: changes,
        "baselines": lambda: statistics.baselines_table(said, samples, confidence),
        "lam": lambda: selection.lam_table(said),
        "context_gaps": lambda: statistics.context_gaps(rows["contexts"], samples, confidence),
        "examples": lambda: tables.examples(said, SHOWN),
        "audit": lambda: audit.audit_table(said),
        "hallucinations": lambda: audit.hallucinations_table(said),
        "quality": lambda: audit.quality_table(rows["synthetic"], changes),
        "anatomy": lambda: anatomy.anatomy_table(said, samples=samples, confidence=confidence),
        "words": lambda: anatomy.words_table(said),
    }
    return {name: make[name]() for name in COMPUTED if NEEDS.get(name, "utterances") in rows}


def paper_table(folder: Path) -> pd.DataFrame | None:
    """What the paper published beside what this run found, and other runs in the folder of runs that belong to the same table.

    None where the profile reproduces nothing of the paper. `attrs["title"]` and `attrs["note"]` say what it is.
    """
    profile = profile_of(folder)
    if profile.reproduces is None:
        return None
    known = papertables.published(profile.reproduces)
    runs = _same_table(folder, profile)
    cells = _cells(profile, known, list(runs))
    if profile.reproduces == "fig4":
        table = papertables.lams(known, cells, read(folder, "lam").assign(backbone=profile.backbone.name))
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


def _cells(profile: Profile, known: pd.DataFrame, backbones: list[str]) -> pd.DataFrame:
    """`domain, tts, backbone` of the paper's table, also where a run has fewer or others, and then of what was run."""
    whole = load_profile(f"paper-{profile.reproduces}")
    domains = list(dict.fromkeys([*whole.targets, *profile.targets]))
    asked = [b for b in dict.fromkeys([whole.backbone.name, *known.backbone]) if b]
    every = [(d, part.name, b) for b in asked for part in whole.tts for d in domains]
    every += [(d, part.name, b) for b in backbones for part in profile.tts for d in domains]
    return pd.DataFrame(list(dict.fromkeys(every)), columns=["domain", "tts", "backbone"])


def _same_table(folder: Path, profile: Profile) -> dict[str, Path]:
    """Backbone -> folder of each finished run for the same table of the paper; this run's own first."""
    found = {profile.backbone.name: folder}
    for file in sorted(folder.parent.glob(f"*/{PROFILE}")):
        if not all(
            (file.parent / name).is_file() for name in ("run.json", "tables/raw_changes.csv", "tables/changes.csv")
        ):
            continue
        try:
            other = load_profile(file)
        except UserError as error:
            say(f"  left out of the paper's table: {error}")
            continue
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
    ensemble = {"ensemble": lambda: figures.ensemble_comparison(found["wer"])}
    return {
        "quadrants": diagrams.quadrants,
        "overview": diagrams.overview,
        "wer": lambda: figures.wer_intervals(found["wer"], found["changes"]),
        "lam_curves": lambda: figures.lam_curves(found["wer"], found["lam"]),
        "geometry": lambda: diagrams.geometry(found["geometry"], found["lam"]),
        "cosine_heatmap": lambda: figures.cosine_heatmap(found["cosines"]),
        **(ensemble if profile.evaluation.ensembles else {}),
        "audit": lambda: figures_errors.audit(found["audit"]),
        "anatomy": lambda: figures_errors.anatomy(found["anatomy"]),
        "words": lambda: figures_errors.words(found["words"]),
        "quality": lambda: figures_errors.quality(found["quality"]),
        **extras.drawings(profile, found),
    }


def find(name: str) -> Path:
    """Folder of a run by its name or path, or a folder of CSV such as figures/."""
    for folder in (home() / "runs" / name, Path(name)):
        if any((folder / file).is_file() for file in (PROFILE, MANIFEST)) or beforeafter.is_kept(folder):
            return folder
    there = sorted(path.parent.name for path in (home() / "runs").glob(f"*/{PROFILE}"))
    raise UserError(f"no run '{name}': {f'use one of {names(there)}' if there else 'make one with syn2real run'}")


def load_run(folder: Path) -> tuple[Profile, dict[str, pd.DataFrame]]:
    """The profile and the rows of a finished run, or of a folder of CSV those that are there, utterances at least."""
    flat, profile = is_flat(folder), profile_of(folder)
    wanted = [
        n
        for n in (*ROWS, *extras.row_names(profile))
        if n == "utterances" or not (flat or n in NEW) or file_of(folder, n).is_file()
    ]
    return profile, {name: read(folder, name) for name in wanted}


def profile_of(folder: Path) -> Profile:
    """The profile that made a run: its own file, or the one that the manifest of a folder of CSV names."""
    if (folder / PROFILE).is_file():
        return load_profile(folder / PROFILE)
    if (folder / MANIFEST).is_file():
        return load_profile(manifest(folder, "profile")["profile"])
    raise UserError(f"no run at {folder}: expected a folder such as runs/quickstart, as 'syn2real run' makes it")


def manifest(folder: Path, *keys: str) -> dict[str, str]:
    """What made a folder of committed CSV: some keys of its manifest.json.

    Raises:
        UserError: it is damaged, or lacks one of them.
    """
    file = folder / MANIFEST
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {key: str(found[key]) for key in keys}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is damaged ({type(error).__name__}: {str(error).splitlines()[0]}): restore it with git, or copy run.json of "
            "the run there"
        ) from error


def read(folder: Path, name: str) -> pd.DataFrame:
    """One table of a run."""
    file = file_of(folder, name)
    if not file.is_file() and is_flat(folder):
        raise UserError(f"{folder} has no {name}.csv or {name}.csv.gz: copy it from tables/ of the run")
    if not file.is_file() and any((folder / f"{name}{suffix}").is_file() for suffix in (".csv", ".csv.gz")):
        raise UserError(f"{folder} has no {MANIFEST} beside its CSV: copy run.json of the run there")
    if not file.is_file():
        raise UserError(f"the run {folder} has no tables/{name}.csv: finish it with 'syn2real run {folder.name}'")
    table = tables.read_csv(file, WANTED.get(name, ()))
    if table.empty and name == ROWS[0]:
        raise UserError(f"{file} has no rows: expected one per model, lam and utterance")
    return table


def results(folder: Path) -> pd.DataFrame:
    """The table of results of a run."""
    confidence = profile_of(folder).evaluation.confidence
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
    table, profile = results(folder), profile_of(folder)
    shown, strange = (
        [row | {"audio": _data(clips[str(row["utterance"])])} for row in read(folder, name).to_dict("records")]
        for name in ("examples", "hallucinations")
    )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    drawn = {name: folder / "figures" / f"{name}.png" for name in drawings(profile, {})}
    pictures = [(name, _data(file, "image/png")) for name, file in drawn.items() if file.is_file()]
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=folder.name,
        profile=profile,
        settings=(folder / PROFILE).read_text(encoding="utf-8"),
        columns=list(table.columns),
        rows=table.values.tolist(),
        note=table.attrs["note"],
        lams=read(folder, "lam").to_dict("records"),
        gaps=[_said(row) for row in read(folder, "context_gaps").to_dict("records")],
        pictures=pictures,
        captions=CAPTIONS | extras.CAPTIONS,
        examples=shown,
        strange=strange,
        notebooks=sorted(path.name for path in (folder / "notebooks").glob("*.html")),
        about=about,
        terms=terms(of_profile(profile)),
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
    "audit": "What the errors are, and what other ways of scoring say.",
    "anatomy": "Where adapted gains and loses against syn_target: by domain, words and length.",
    "words": "The words that gained and lost most.",
    "quality": "What tau gained over how the synthetic clips of the domain are.",
}


def _said(gap: dict) -> dict:
    """A row of context_gaps.csv with its change and p as text; tables of 0.1 have no p."""
    return gap | {"change": tables.points(gap), "p_said": tables.p_text(gap.get("p_holm", math.nan))}


def is_flat(folder: Path) -> bool:
    """Whether this is a folder of committed CSV, figures beside them, and not one that a run made."""
    return not (folder / "tables").is_dir() and ((folder / MANIFEST).is_file() or beforeafter.is_kept(folder))


def _tables(folder: Path) -> Path:
    """Where the tables of a run lie; in a folder of CSV, the folder itself."""
    return folder if is_flat(folder) else folder / "tables"


def _figures(folder: Path) -> Path:
    return folder if is_flat(folder) else folder / "figures"


def file_of(folder: Path, name: str) -> Path:
    """A table's file, which may be compressed: the rows of a large run are committed as .csv.gz."""
    plain, packed = (_tables(folder) / f"{name}{suffix}" for suffix in (".csv", ".csv.gz"))
    return packed if packed.is_file() and not plain.is_file() else plain


def _write(folder: Path, name: str, table: pd.DataFrame) -> None:
    write_text_atomic(_tables(folder) / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))


def _data(path: Path, kind: str = "") -> str:
    """A file as a data: address."""
    kind = kind or {".ogg": "audio/ogg", ".flac": "audio/flac", ".mp3": "audio/mpeg"}.get(path.suffix, "audio/wav")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
