"""How much of a corpus is spoken, trained on and scored, domain by domain: what a plan multiplies."""

from dataclasses import dataclass

import pandas as pd

from syn2real_utils.profile import Profile


@dataclass(frozen=True)
class Counts:
    """By domain; of a corpus with a split of its own, that is followed (speech.py)."""

    real: pd.Series  # clips that are trained on
    scored: pd.Series  # clips that are scored
    texts: pd.Series  # that source models are trained on
    spoken: pd.Series  # texts that are spoken; target models are trained on them
    folds: int  # parts of a target that are scored in turn
    selected: int  # of these, how many choose lam

    @property
    def seen(self) -> float:
        """Share of a domain's texts that the model of one fold is trained on."""
        return 1.0 if self.folds == 1 else (self.folds - 1) / self.folds

    def alone(self, domain: str) -> bool:
        """Whether syn_source of a domain alone is the target model too."""
        return self.folds == 1 and self.spoken[domain] == self.texts[domain]


def count(profile: Profile, rows: pd.DataFrame) -> Counts:
    """Count the real rows of a corpus: `domain, text_id` and, where it has one, `split`."""
    catalogue, asked = profile.evaluation.protocol == "catalogue", profile.evaluation
    split = rows["split"] if "split" in rows else pd.Series("", index=rows.index)
    train, test = rows[split.isin(["", "train"])], rows[split.isin(["", "test"])]
    folds = 1 if catalogue or (split != "").any() else asked.folds
    domains = sorted(set(rows.domain))

    def each(part: pd.DataFrame) -> pd.Series:
        return part.domain.value_counts().reindex(domains, fill_value=0)

    texts, spoken = (each(part.drop_duplicates("text_id")) for part in (train, rows if catalogue else train))
    return Counts(each(train), each(test), texts, spoken, folds, min(asked.selection_folds, folds))
