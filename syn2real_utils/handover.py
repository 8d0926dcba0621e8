"""What `syn2real adapt` hands over: a model folder with card, lineage and report, and one line, go or no-go."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd

from syn2real_utils import __version__, machine, proof
from syn2real_utils.lineage import read_lineage
from syn2real_utils.modelcard import CARD
from syn2real_utils.origins import origin
from syn2real_utils.profile import Profile, TrainingPart
from syn2real_utils.statistics import CLIP, FULL
from syn2real_utils.store import DONE, Artifact, write_text_atomic
from syn2real_utils.tensorfiles import published
from syn2real_utils.texts import Texts
from syn2real_utils.vectorpick import HOW_TO_MAKE, NONE, Candidate, expected_change

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
    vectors: tuple[Candidate, ...]
    lam: float
    lam_how: str
    go: bool
    reason: str
    wer: pd.DataFrame | None  # with --devel: `proof.RATES`
    changes: pd.DataFrame | None  # with --devel: `proof.CHANGES`

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


def verdict(
    choice: str, picked: Sequence[Candidate], lam: float, keep: float, changes: pd.DataFrame | None
) -> tuple[bool, str]:
    """Whether to use the model, and why, in one line.

    The user's own real clips say it where there are any; else what the vector did where it was made.
    """
    if changes is not None:
        row = changes[(changes.model == "adapted") & (changes.baseline == "pretrained")].iloc[0]
        told = f"on your real clips adapted makes {change(row.relative_change, row.ci_low, row.ci_high)} errors against pretrained"
        if row.ci_high < 0:
            return True, told
        return False, f"{told}: it is not surely better, keep pretrained or give more texts"
    if not picked:
        why = "no vector was asked for" if choice == NONE else "no vector was found"
        return (
            False,
            f"{why}, so this is syn_target, whose gap to real speech is open: {HOW_TO_MAKE}, or prove it with --devel",
        )
    expected = expected_change(picked)
    if expected is None:
        return True, "a vector was applied, but it does not say what it gained: prove it with --devel"
    told = f"the vector changed WER by {expected[0]:+.1f} to {expected[1]:+.1f} % where it was made"
    if expected[1] >= 0:
        return False, f"{told}, which includes no gain: prove it with --devel"
    recorded = [candidate.lam for candidate in picked]
    if keep or any(other is not None and abs(other - lam) > 1e-9 for other in recorded):
        return True, f"{told}, at its own lam and without --keep: prove this one with --devel"
    return True, told


def write(page: Page, adapted: Artifact, joint: Artifact | None, overwrite: bool) -> None:
    """Write the folder; it appears when it is whole."""
    with published(page.found.path, overwrite) as folder:
        _copy(adapted, folder)
        if joint is not None:
            (folder / JOINT).mkdir()
            _copy(joint, folder / JOINT)
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
    return [
        *lines,
        f"wrote {found.path}: open it with transformers.pipeline; {CARD} and {REPORT} tell of it",
        found.line(),
    ]


def change(relative: float, low: float, high: float) -> str:
    """A relative change with its interval."""
    return f"{relative:+.1f} % [{low:+.1f}, {high:+.1f}]"


def _values(page: Page, adapted: Artifact) -> dict[str, object]:
    """What the templates take."""
    found, profile = page.found, page.profile
    name, tts = profile.backbone.name, [part.name for part in profile.tts]
    lineage = read_lineage(adapted.path)
    corpora = {(c.lineage.corpus or "unknown").rpartition("-")[0] for c in found.vectors}
    made_of = [name, *tts, *sorted(corpora)]
    good, training = page.synthetic[page.synthetic.quality == "ok"], page.training
    flagged = page.synthetic.quality[page.synthetic.quality != "ok"].value_counts().sort_index()
    return {
        "page": page,
        "found": found,
        "name": found.path.name,
        "language": profile.corpus.language,
        "base_model": origin(name).hub or name,
        "parent": str(lineage.parent)[:12] if lineage else "unknown",
        "tts": [f"{speaker} ({count} clips)" for speaker, count in good.speaker.value_counts().sort_index().items()],
        "minutes": good.duration.sum() / 60,
        "flagged": flagged.to_dict(),
        "dropped": found.texts.counts(),
        "expected": expected_change(found.vectors),
        "rates": _records(found.wer),
        "changes": _records(found.changes),
        "words": _words(page.scored),
        "training": f"{training.epochs:g} epochs, batches of {training.batch_size}, learning rate {training.learning_rate:g}",
        "licences": "; ".join(origin(part).line() for part in made_of),
        "noncommercial": any(candidate.noncommercial for candidate in found.vectors),
        "version": __version__,
        "commit": machine.commit(),
        "CLIP": CLIP,
        "FULL": FULL,
    }


def _records(table: pd.DataFrame | None) -> list[dict]:
    return [] if table is None else table.to_dict("records")


def _words(scored: pd.DataFrame | None) -> list[dict[str, object]]:
    """The words that adapted gained and lost against pretrained, those of the most clips first."""
    if scored is None:
        return []
    full = scored[scored.context == FULL]
    gained, lost = proof.words_between(full[full.model == "pretrained"], full[full.model == "adapted"])
    return [
        {"what": what, "total": words.total(), "most": [f"{word} {count}" for word, count in sorted(words.items(), key=lambda i: (-i[1], i[0]))[:MOST_WORDS]]}
        for what, words in (("gained", gained), ("lost", lost))
    ]  # fmt: skip


def _render(template: str, values: dict[str, object]) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["change"] = change
    return environment.from_string((TEMPLATES / template).read_text(encoding="utf-8")).render(values)


def _copy(model: Artifact, folder: Path) -> None:
    for file in sorted(model.path.iterdir()):
        if file.is_file() and file.name != DONE:
            shutil.copyfile(file, folder / file.name)
