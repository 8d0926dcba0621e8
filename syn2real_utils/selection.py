"""Which lam: chosen on left-out source domains without target labels, beside the oracle that sees them.

Protocol `paper` chooses on real speech of the target's devel part instead. Labels of `lam_source`, for the rows of `adapted`
and `ensemble`: "grid", "leave-one-source-out" or "target-devel" (chosen), "oracle" (best on the target's own labels), or, where
the chosen lam is the oracle too, both names joined by a "+"; empty for the other models.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from syn2real_utils.errors import UserError, names

GRID = "grid"
CHOSEN = "leave-one-source-out"
DEVEL = "target-devel"  # protocol paper
ORACLE = "oracle"
SELECTION_COLUMNS = ("tts", "vector", "target", "seed", "domain", "lam", "errors", "n_words")
LAM_COLUMNS = (
    "target", "tts", "model", "seed", "lam_chosen", "wer_chosen", "lam_oracle", "wer_oracle", "regret",
)  # fmt: skip
SCALED = ("adapted", "ensemble")  # the models that have a lam
DIGITS = 6  # lam is compared and stored to this many


def curve(rows: pd.DataFrame) -> pd.DataFrame:
    """WER over lam, errors and words summed over everything else in `rows`.

    Args:
        rows: `lam, errors, n_words`, and where there is one, `domain`: every domain must have every lam.

    Returns:
        `lam, errors, n_words, wer` by rising lam; wer in percent.

    Raises:
        UserError: no rows with a lam, or a domain lacks a lam, so that the sums could not be compared.
    """
    lams = pd.to_numeric(rows.lam).round(DIGITS)
    rows = rows.assign(lam=lams)[lams.notna()]
    if rows.empty:
        raise UserError("no rows with a lam to choose from: evaluate a lam grid first")
    if "domain" in rows:
        grid = set(rows.lam)
        for domain, part in rows.groupby("domain"):
            if lacking := grid - set(part.lam):
                raise UserError(
                    f"source domain '{domain}' has no rows at lam {names(sorted(lacking))}: evaluate the same grid everywhere"
                )
    summed = rows.groupby("lam", as_index=False)[["errors", "n_words"]].sum()
    words = summed.n_words.where(summed.n_words > 0)
    return summed.assign(wer=100 * summed.errors / words)


def choose(rows: pd.DataFrame) -> float:
    """The lam of the lowest WER summed over domains; of equal ones the smallest."""
    points = curve(rows)
    if points.wer.isna().any():
        raise UserError("no reference words to choose lam by: the rows have n_words 0")
    return float(points.lam[int(np.argmin(points.wer))])  # argmin: the first, so the smallest lam


def is_chosen(lam_source: pd.Series) -> pd.Series:
    """Whether a label says that lam was chosen, on the source domains or on the target's real devel part."""
    return lam_source.isin([CHOSEN, f"{CHOSEN}+{ORACLE}", DEVEL, f"{DEVEL}+{ORACLE}"])


def is_oracle(lam_source: pd.Series) -> pd.Series:
    """Whether a label says that lam is the best on the target's own labels."""
    return lam_source.isin([ORACLE, f"{CHOSEN}+{ORACLE}", f"{DEVEL}+{ORACLE}"])


def how_chosen(protocol: str) -> str:
    """The label of a lam that a protocol chose."""
    return DEVEL if protocol == "paper" else CHOSEN


def mark(rows: pd.DataFrame, model: str, chosen: float) -> pd.DataFrame:
    """Add `lam_source`: which lam of `model` was chosen, and which is the oracle.

    Args:
        rows: utterance rows of one target, TTS, seed and, where there is one, `protocol`; those of other models get an empty label.
        model: `adapted` or `ensemble`.
        chosen: what `choose` answered; must be on the grid of `rows`.
    """
    lam = pd.to_numeric(rows.lam).round(DIGITS)
    own = rows.model == model
    grid, chosen = sorted(set(lam[own].dropna())), round(float(chosen), DIGITS)
    if chosen not in grid:
        raise UserError(f"lam {chosen:g} was chosen but {model} was not evaluated there: expected one of {names(grid)}")
    oracle = choose(rows.loc[own, ["lam", "errors", "n_words"]])
    labels = pd.Series(np.where(own, GRID, ""), index=rows.index)
    how = how_chosen(str(rows.protocol.iloc[0]) if "protocol" in rows else "")
    labels[own & (lam == oracle)] = ORACLE
    labels[own & (lam == chosen)] = f"{how}+{ORACLE}" if chosen == oracle else how
    return rows.assign(lam=lam, lam_source=labels)


def lam_table(utterances: pd.DataFrame) -> pd.DataFrame:
    """tables/lam.csv: per target, TTS, model and seed the chosen lam, the oracle and the regret in WER points."""
    rows = utterances[utterances.model.isin(SCALED)]
    table = [
        dict(zip(("target", "tts", "model", "seed"), key, strict=True)) | _regret(part)
        for key, part in rows.groupby(["target", "tts", "model", "seed"], sort=True)
    ]
    return pd.DataFrame(table, columns=list(LAM_COLUMNS))


def _regret(part: pd.DataFrame) -> dict[str, float]:
    points = curve(part[["lam", "errors", "n_words"]]).set_index("lam").wer
    chosen = _marked(part[is_chosen(part.lam_source)].lam)
    oracle = _marked(part[is_oracle(part.lam_source)].lam)
    wer_chosen, wer_oracle = points.get(chosen, np.nan), points.get(oracle, np.nan)
    return {
        "lam_chosen": chosen,
        "wer_chosen": round(wer_chosen, 4),
        "lam_oracle": oracle,
        "wer_oracle": round(wer_oracle, 4),
        "regret": round(wer_chosen - wer_oracle, 4),
    }


def _marked(lams: Iterable[float]) -> float:
    found = {round(float(lam), DIGITS) for lam in lams}
    return found.pop() if len(found) == 1 else np.nan
