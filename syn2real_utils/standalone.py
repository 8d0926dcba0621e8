"""Score any model folder on any AudioFolder, outside a run."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from syn2real_utils import statistics
from syn2real_utils.backbones import sources
from syn2real_utils.backbones.base import open_backbone
from syn2real_utils.backbones.clips import Clips
from syn2real_utils.corpora.base import LEAST, check_domains, read_metadata
from syn2real_utils.corpora.folder import read_audio
from syn2real_utils.errors import UserError, names
from syn2real_utils.evaluation import score
from syn2real_utils.lineage import read_lineage
from syn2real_utils.profile import BackbonePart
from syn2real_utils.store import Store, check_writable, write_text_atomic
from syn2real_utils.tables import PACKED, read_csv
from syn2real_utils.text import normaliser_version

# Columns of what `evaluate` writes, and of the tables of a run or of `adapt`, which have most of those too
ROWS, OTHERS = {"utterance", "errors", "domain", "model"}, {"target", "lam", "context"}
BATCH = 16


@dataclass(frozen=True)
class Score:
    """Rates of a model on a corpus in percent, with their bootstrap intervals over texts."""

    n_utterances: int
    n_words: int
    errors: int
    wer: float
    wer_interval: tuple[float, float]
    cer: float
    cer_interval: tuple[float, float]

    def as_data(self) -> dict[str, object]:
        """As plain data."""
        return asdict(self)

    def line(self) -> str:
        """For people."""
        wer, cer = (
            "no interval" if math.isnan(low) else f"[{low:.1f}, {high:.1f}]"
            for low, high in (self.wer_interval, self.cer_interval)
        )
        return (
            f"WER {self.wer:.1f} % {wer}, CER {self.cer:.1f} % {cer} "
            f"on {self.n_utterances} utterances, {self.n_words} words"
        )


def evaluate(
    model: str, corpus: Path, out: Path, domain: str | None, language: str | None, full_context: bool
) -> Score:
    """Score a model and write a row per utterance to the CSV `out`.

    A model without lineage.json was not fine-tuned on cut contexts, so it hears every clip padded to 30 s.

    Raises:
        UserError: no such model, corpus, domain or language; `out` lies in no folder.
    """
    if out.is_dir():
        raise UserError(f"{out} is a folder: name the CSV to write, such as {out / 'rows.csv'}")
    if not out.resolve().parent.is_dir():
        raise UserError(f"no folder {out.resolve().parent} to write {out.name} into: make it first")
    if out.suffix in PACKED:
        raise UserError(f"{out.name} would be no {out.suffix} file: rows are written as they are, name it {out.stem}")
    check_writable(out)
    try:
        there = set(read_csv(out).columns) if out.exists() else ROWS
    except UserError:  # no CSV at all
        there = set()
    if not there >= ROWS or there & OTHERS:
        raise UserError(f"{out} holds no rows of evaluate, so it is not overwritten: name another file")
    language = language or _language(corpus)
    normaliser_version(language)  # known, or says so
    rows = read_audio(corpus, language)
    if domain is not None:
        check_domains(rows, [domain])
        rows = rows[rows.domain == domain].reset_index(drop=True)
    if not rows.transcription.str.contains(r"\w").any():
        raise UserError(f"{corpus} has no transcription with a word, so there is no error rate: check metadata.csv")
    folder = sources.resolve(model, Store())
    asr = open_backbone(folder, language, BackbonePart(name=model))
    full = full_context or read_lineage(folder) is None
    heard = asr.transcribe(asr.load(), Clips.of(asr, rows.path, full), BATCH)
    scored = score(rows, heard, language).assign(domain=rows.domain, model=model)
    write_text_atomic(out, scored.to_csv(index=False, lineterminator="\n"))
    return _summed(scored)


def _summed(scored: pd.DataFrame) -> Score:
    return Score(
        len(scored),
        int(scored.n_words.sum()),
        int(scored.errors.sum()),
        round(statistics.corpus_wer(scored), 4),
        statistics.wer_interval(scored),
        round(statistics.corpus_cer(scored), 4),
        statistics.wer_interval(scored, unit="chars"),
    )


def _language(corpus: Path) -> str:
    rows = read_metadata(corpus, LEAST)
    found = sorted(set(rows.language)) if "language" in rows else []
    if len(found) != 1:
        raise UserError(
            f"--language is missing: {corpus}/metadata.csv has {f'several languages, {names(found)}' if found else 'no column language'}; give one such as es"
        )
    return found[0]
