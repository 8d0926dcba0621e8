"""What the benches work on: real clips and models of the profile `quickstart`, and clips of domains that it does not use."""

from functools import lru_cache
from pathlib import Path
from typing import cast

import pandas as pd

from syn2real_utils import stages, statistics
from syn2real_utils.backbones.whisper import Whisper
from syn2real_utils.corpora.base import read_audiofolder
from syn2real_utils.evaluation import score
from syn2real_utils.lineage import REAL
from syn2real_utils.profile import Profile, load_profile

UNSEEN = ["clothes", "nature", "people", "seasonal", "town"]  # domains that no model of the quickstart knows
SHORT = 5.0  # seconds


@lru_cache(maxsize=1)
def profile() -> Profile:
    """The profile whose speech, weights and settings the benches take."""
    return load_profile("quickstart")


def backbone() -> Whisper:
    """Its backbone."""
    return cast(Whisper, stages.backbone(profile()))


def source_rows() -> pd.DataFrame:
    """Real clips of its source domains: what real_source is fine-tuned on."""
    return stages.training_rows(profile(), REAL, sources())


def sources() -> tuple[str, ...]:
    """Its source domains."""
    return stages.source_domains(profile(), profile().targets[0])


def unseen_rows(most: int | None = None) -> pd.DataFrame:
    """Real clips below `SHORT` of domains that it does not use, in an order that does not depend on their length."""
    rows = read_audiofolder(stages.corpus(profile()).path)
    rows = rows[rows.domain.isin(UNSEEN) & (rows.duration < SHORT)].sort_values("file_name").reset_index(drop=True)
    return rows if most is None else rows.iloc[:: max(1, len(rows) // most)].head(most).reset_index(drop=True)


def real_source() -> Path:
    """A model that was fine-tuned on cut contexts."""
    return stages.finetuned(profile(), REAL, sources(), profile().seeds[0]).path


def wer(rows: pd.DataFrame, texts: list[str]) -> float:
    """WER in percent of transcripts of `rows`."""
    return round(statistics.corpus_wer(score(rows, texts, profile().corpus.language)), 2)


def context_gap(rows: pd.DataFrame, own: list[str], full: list[str]) -> dict[str, float]:
    """WER of transcripts at 30 s less that of transcripts at the clip's own context, in points, with its interval."""
    scored = [
        score(rows, texts, profile().corpus.language).assign(context=context)
        for context, texts in ((statistics.CLIP, own), (statistics.FULL, full))
    ]
    named = pd.concat(scored).assign(target="unseen", tts="real", seed=profile().seeds[0], lam=0.0)
    gap = statistics.context_gaps(named).iloc[0]
    return {name: round(float(gap[name]), 2) for name in ("difference", "ci_low", "ci_high")}
