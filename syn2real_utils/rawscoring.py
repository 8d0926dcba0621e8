"""Scores against raw references, as the paper's code counts them: the hypothesis is normalised, the reference is not.

What normalisation rewrites can never match then, so a perfect recogniser is not at zero: its WER is the `floor`.
"""

import pandas as pd

from syn2real_utils.bootstrap import SAMPLES
from syn2real_utils.evaluation import rescore
from syn2real_utils.statistics import KEYS, changes_table, wer_table


def raw_wer(utterances: pd.DataFrame, samples: int = SAMPLES, confidence: float = 0.95) -> pd.DataFrame:
    """tables/raw_wer.csv: as wer.csv, against raw references, with the `floor` of the same utterances."""
    table = wer_table(rescore(utterances), samples, confidence)
    perfect = wer_table(rescore(utterances, hypothesis="reference"), 1, confidence)
    return table.merge(perfect.rename(columns={"wer": "floor"})[[*KEYS, "floor"]], on=list(KEYS), validate="one_to_one")


def raw_changes(utterances: pd.DataFrame, samples: int = SAMPLES, confidence: float = 0.95) -> pd.DataFrame:
    """tables/raw_changes.csv: as changes.csv, against raw references."""
    return changes_table(rescore(utterances), samples=samples, confidence=confidence)
