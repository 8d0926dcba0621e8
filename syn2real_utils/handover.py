"""What `syn2real adapt` hands over: a model folder with card, lineage and report, and one line, go or no-go."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd

from syn2real_utils import __version__, machine, proof
from syn2real_utils.backbones.sources import HUB_NAME
from syn2real_utils.lineage import read_lineage
from syn2real_utils.origins import Origin, lines, origin
from syn2real_utils.profile import Profile, TrainingPart
from syn2real_utils.readyruns import base_model, data_of
from syn2real_utils.readyvector import ReadyVector
from syn2real_utils.statistics import CLIP, FULL
from syn2real_utils.store import DONE, Artifact, write_text_atomic
from syn2real_utils.tensorfiles import CARD, published
from syn2real_utils.texts import Texts
from syn2real_utils.vectorpick import Vector
from syn2real_utils.verdict import change

TEMPLATES = Path(__file__).parent / "templates"
CARD_TEMPLATE, REPORT_TEMPLATE = "adapted_card.md", "adapted_report.md"
REPORT, TEXTS, SCORED = "report.md", "texts_dropped.csv", "devel.csv"
JOINT = "joint"  # folder of the rival inside the model's
MOST_WORDS = 12  # that are listed in the report


@dataclass(frozen=True)
class Adapted:
    """What `adapt` made and found."""

    path: Path  # a folder that `transformers.pipeline` opens
    domain: str
    texts: Texts
    clips: int  # that were trained on
    vectors: tuple[Vector, ...]
    lam: float
    lam_how: str
    go: bool
    reason: str
    wer: pd.DataFrame | None  # with --devel: `proof.RATES`
    changes: pd.DataFrame | None  # with --devel: `proof.CHANGES`
    domains: pd.DataFrame | None  # with --devel of several domains: `proof.by_domain`
    synthetic: pd.DataFrame | None = None  # without --devel: `proof.RATES` on some of the synthetic clips

    def line(self) -> str:
        """Go or no-go, with the reason."""
        return f"{'go' if self.go else 'no-go'}: {self.reason}"


@dataclass(frozen=True)
class Page:
    """All that card and report tell."""

    profile: Profile
    found: Adapted
    training: TrainingPart
    keep: float
    synthetic: pd.DataFrame  # every synthetic clip, with `quality`
    scored: pd.DataFrame | None  # rows of `proof.scores`
    known: int  # scored clips whose text was trained on
    real: int  # real clips of the rival


def write(page: Page, adapted: Artifact, joint: Artifact | None, overwrite: bool) -> None:
    """Write the folder; it appears when it is whole."""
    with published(page.found.path, overwrite) as folder:
        _copy(adapted, folder)
        if joint is not None:
            (folder / JOINT).mkdir()
            _copy(joint, folder / JOINT)
            write_text_atomic(folder / JOINT / CARD, _joint_card(page))
        write_text_atomic(folder / TEXTS, page.found.texts.report())
        if page.scored is not None:
            rows = page.scored.to_csv(index=False, lineterminator="\n")
            write_text_atomic(folder / SCORED, rows)
        values = _values(page, adapted)
        for template, name in ((CARD_TEMPLATE, CARD), (REPORT_TEMPLATE, REPORT)):
            write_text_atomic(folder / name, _render(template, values))


def told(page: Page) -> list[str]:
    """The end of the call, for people."""
    found = page.found
    lines = [f"lam {found.lam:g}: {found.lam_how}"] if found.vectors else []
    if found.wer is not None:
        lines += [
            f"  {row.model} ({row.context}): WER {row.wer:.1f} % [{row.ci_low:.1f}, {row.ci_high:.1f}]"
            for row in found.wer.itertuples()
        ]
    if found.synthetic is not None:
        pretrained, own, full = found.synthetic.wer
        lines.append(
            f"on {found.synthetic.n_utterances[0]} of the synthetic clips: WER {pretrained:.1f} % pretrained, {own:.1f} % adapted "
            f"({full:.1f} % at 30 s), which was trained on them: no proof for real speech"
        )
    if found.domains is not None:
        lines += [
            f"  {row.domain}: WER {row.pretrained:.1f} % pretrained, {row.adapted:.1f} % adapted, "
            f"{change(row.relative_change, row.ci_low, row.ci_high)} (30 s)"
            for row in found.domains.itertuples()
        ]
    return [
        *lines,
        f"wrote {found.path}: open it with transformers.pipeline; {CARD} and {REPORT} tell of it",
        found.line(),
    ]


def _values(page: Page, adapted: Artifact) -> dict[str, object]:
    """What the templates take."""
    found, profile = page.found, page.profile
    name, tts = profile.backbone.name, [part.name for part in profile.tts]
    lineage = read_lineage(adapted.path)
    made_of = [data_of(origin(part)) for part in (name, *tts)] + [
        part for vector in found.vectors for part in vector.data
    ]
    base = base_model(name)
    architecture = lineage.architecture if lineage else ""
    good, training = page.synthetic[page.synthetic.quality == "ok"], page.training
    flagged = page.synthetic.quality[page.synthetic.quality != "ok"].value_counts().sort_index()
    return {
        "page": page,
        "found": found,
        "name": found.path.name,
        "language": profile.corpus.language,
        "base_model": base,
        "model_type": architecture.split("/")[0],
        "on_hub": bool(HUB_NAME.fullmatch(base)),
        "parent": str(lineage.parent)[:12] if lineage else "unknown",
        "tts": [f"{speaker} ({count} clips)" for speaker, count in good.speaker.value_counts().sort_index().items()],
        "minutes": good.duration.sum() / 60,
        "flagged": flagged.to_dict(),
        "dropped": found.texts.counts(),
        "gains": [_gain(vector) for vector in found.vectors],
        "rates": _records(found.wer if found.synthetic is None else found.synthetic),
        "changes": _records(found.changes),
        "domains": _records(found.domains),
        "models": [] if page.scored is None else list(dict.fromkeys(page.scored.model)),
        "words": _words(page.scored, found.domain),
        "training": f"{training.epochs:g} epochs, batches of {training.batch_size}, learning rate {training.learning_rate:g}",
        "licences": "; ".join(lines(Origin(part.name, part.licence, part.noncommercial) for part in made_of)),
        "noncommercial": list(dict.fromkeys(part.name for part in made_of if part.noncommercial)),
        "version": __version__,
        "commit": machine.commit(),
        "CLIP": CLIP,
        "FULL": FULL,
    }


def _records(table: pd.DataFrame | None) -> list[dict]:
    return [] if table is None else table.to_dict("records")


def _gain(vector: Vector) -> str:
    """What a vector gained where it was made."""
    if not isinstance(vector, ReadyVector) or (relative := vector.about.relative_change) is None:
        return f"{vector.name}: it does not say what it gained where it was made"
    about = vector.about
    size = change(relative, *vector.expected)
    where = f"on {', '.join(vector.measured_on)}, TTS {about.tts}, protocol {about.protocol}, at the lam chosen there"
    kept = f" and keeps {100 * about.kept['all']:.0f} % of |tau|^2" if about.kept else ""
    whole = f"; measured with the whole vector, this one is of low rank {about.rank}{kept}" if about.rank else ""
    wers = f"from {about.wer_syn_target:.1f} to {about.wer_adapted:.1f} %"
    gain = ""
    if about.gain is not None:
        gain = f"; against pretrained {change(about.gain, *vector.promised)}"
    return f"{vector.name}: {size} ({100 * about.confidence:g} % interval), {wers} ({where}{whole}){gain}"


def _lineage(vector: Vector) -> str:
    """What a vector comes from, beside its domains."""
    known = vector.lineage
    models = " - ".join(f"model of {part.speech or 'unknown'} speech" for part in known.parts)
    made = f"{vector.name} = {models}" if known.operation == "subtract" and models else vector.name
    seed = "" if known.seed is None else f", seed {known.seed}"
    run = f", run {vector.about.profile}, commit {vector.about.commit}" if isinstance(vector, ReadyVector) else ""
    return f"{made}, of weights {known.parent[:12] if known.parent else 'that it does not name'}{seed}{run}"


def _words(scored: pd.DataFrame | None, domain: str) -> list[dict[str, object]]:
    """The words that adapted gained and lost against pretrained, those of the most clips first."""
    if scored is None:
        return []
    full = proof.of_domain(scored, domain)
    full = full[full.context == FULL]
    gained, lost = proof.words_between(full[full.model == "pretrained"], full[full.model == "adapted"])
    return [
        {"what": what, "total": words.total(), "most": [f"{word} {count}" for word, count in sorted(words.items(), key=lambda i: (-i[1], i[0]))[:MOST_WORDS]]}
        for what, words in (("gained", gained), ("lost", lost))
    ]  # fmt: skip


def _joint_card(page: Page) -> str:
    """What is to be passed on with the rival."""
    name, domain = page.found.path.name, page.found.domain
    return (
        f"# {name}: joint\n\nThe rival of the model *{name}* for the domain *{domain}*, told of in its README.md and report.md: trained on "
        f"its synthetic clips and on {page.real} real clips of the user's own, without a vector. The licences named there bind "
        "this one too, and so do the rights of the people in those clips.\n"
    )


def _render(template: str, values: dict[str, object]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"change": change, "lineage": _lineage}
    return environment.get_template(template).render(values)


def _copy(model: Artifact, folder: Path) -> None:
    for file in sorted(model.path.iterdir()):
        if file.is_file() and file.name != DONE:
            shutil.copyfile(file, folder / file.name)
