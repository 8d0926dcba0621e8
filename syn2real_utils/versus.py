"""Models of several tables set beside syn_target and adapted, on the same utterances: from rows alone, without a model."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from syn2real_utils.bootstrap import SAMPLES
from syn2real_utils.errors import names
from syn2real_utils.selection import is_chosen, is_oracle
from syn2real_utils.statistics import ALL, corpus_wer, holm, paired_change
from syn2real_utils.tables import ALSO, NOT_RUN, level, p_text, percent_change, verdict

BASELINES = ("syn_target", "adapted")
BESIDE = ("real_source", "ensemble")  # models of every run that stand in one table with the rivals
WITH_TAU = "+tau"  # what the name of a rival that is moved along tau ends with
COLUMNS = (
    "target", "tts", "seed", "model", "lam", "lam_choice", "n_utterances", "n_words", "wer", "wer_oracle", "best",
    "baseline", "wer_baseline", "relative_change", "ci_low", "ci_high", "p", "p_holm",
)  # fmt: skip
CELL = ["target", "tts", "seed"]
NULL = "null-"  # what the names of null vectors begin with


def compare(
    utterances: pd.DataFrame,
    others: pd.DataFrame,
    samples: int = SAMPLES,
    confidence: float = 0.95,
    beside: Sequence[str] = (),
) -> pd.DataFrame:
    """Every model at its chosen lam against `syn_target` and against `adapted`, on the seeds that heard `others`.

    A model `X+tau` is also compared with X, and all are with `real_source` where it is among `beside`. Several seeds are pooled:
    then only rows of seed "all" are given. Several targets are also pooled, as target "all". p is adjusted by Holm over all
    models, targets and TTS of one baseline, and over all `X+tau` against X; the pooled targets are families of their own. `best`
    marks the lowest WER of its target, TTS and seed, syn_target among them; a tie is marked twice. `adapted` is compared too,
    with syn_target.

    Args:
        utterances: tables/utterances.csv.
        others: rows in the same columns, such as tables/rivals.csv; `lam_choice` where the table has it.
        samples: bootstrap resamples.
        confidence: e.g. 0.95.
        beside: more models of `utterances` to compare, such as `BESIDE`.

    Returns:
        The columns of `COLUMNS`; `wer_oracle` is at the best lam of the grid on the target's own labels.
    """
    if others.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    utterances = utterances[utterances.model.isin([*BASELINES, *beside]) & utterances.seed.isin(others.seed)]
    rows = pd.concat([utterances, others], ignore_index=True)
    rows["lam_choice"] = rows.get("lam_choice", pd.Series("", index=rows.index)).fillna("")
    plain = rows.lam.isna()
    picked, oracle = rows[plain | is_chosen(rows.lam_source)], rows[plain | is_oracle(rows.lam_source)]
    table = [
        row
        for cell, (own, best) in _cells(picked, oracle)
        for row in _compared(dict(zip(CELL, cell, strict=True)), own, best, samples, confidence)
    ]
    found = pd.DataFrame(table)
    found["p_holm"] = np.nan
    own = found.baseline.isin([*BASELINES, *beside])
    for _, family in found.groupby([found.baseline.where(own, WITH_TAU), found.target == ALL]):
        found.loc[family.index, "p_holm"] = holm(family.p.tolist())
    return found[list(COLUMNS)]


def _cells(picked: pd.DataFrame, oracle: pd.DataFrame) -> Iterator[tuple[tuple, tuple[pd.DataFrame, pd.DataFrame]]]:
    """(target, tts, seed) -> its rows at the chosen and at the oracle lam; a model that some pooled part lacks is left out."""
    several = picked.seed.nunique() > 1
    targets = picked.target.nunique()
    for scope in [[target] for target in dict.fromkeys(picked.target)] + (
        [list(set(picked.target))] if targets > 1 else []
    ):
        for tts in sorted(set(picked.tts)):
            parts = [rows[rows.target.isin(scope) & (rows.tts == tts)] for rows in (picked, oracle)]
            parts = [_whole(part, len(scope) * picked.seed.nunique()) for part in parts]
            if (parts[0].model == BASELINES[0]).any():
                cell = (scope[0] if len(scope) == 1 else ALL, tts, ALL if several else parts[0].seed.iloc[0])
                yield cell, (parts[0], parts[1])


def _whole(rows: pd.DataFrame, parts: int) -> pd.DataFrame:
    """The rows of models that every pooled target and seed has."""
    counts = rows[["model", "target", "seed"]].drop_duplicates().model.value_counts()
    return rows[rows.model.isin(counts.index[counts == parts])]


def _compared(
    cell: dict, picked: pd.DataFrame, oracle: pd.DataFrame, samples: int, confidence: float
) -> Iterator[dict]:
    models = {str(name): rows for name, rows in picked.groupby("model", sort=False)}
    bases = {name: models[name] for name in (*BASELINES, BESIDE[0]) if name in models}
    best = {str(name): corpus_wer(rows) for name, rows in oracle.groupby("model")}
    lowest = min(corpus_wer(rows) for rows in models.values())
    for name, rows in models.items():
        if name == BASELINES[0]:
            continue
        lams, choice = sorted(set(rows.lam.dropna())), "".join(sorted(set(rows.lam_choice)))
        facts = {
            "model": name, "lam": lams[0] if len(lams) == 1 else np.nan, "lam_choice": choice or ("own" if lams else ""),
            "n_utterances": len(rows), "n_words": int(rows.n_words.sum()), "wer": round(corpus_wer(rows), 4),
            "wer_oracle": round(best.get(name, np.nan), 4), "best": corpus_wer(rows) == lowest,
        }  # fmt: skip
        without = name.removesuffix(WITH_TAU)
        for baseline, base in (bases | {without: models[without]} if without in models else bases).items():
            if baseline != name:
                change = paired_change(rows, base, samples, confidence)
                yield (
                    cell
                    | facts
                    | {
                        "baseline": baseline,
                        "wer_baseline": round(corpus_wer(base), 4),
                        "relative_change": round(change.relative, 4),
                        "ci_low": round(change.low, 4),
                        "ci_high": round(change.high, 4),
                        "p": round(change.p, 6),
                    }
                )


def rivals_table(changes: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """One row of text per target and TTS: adapted, the best null vector and the best rival, each against adapted.

    Args:
        changes: as `compare` makes it.
        confidence: of its intervals.
    """
    table = []
    for (target, tts), part in changes[changes.baseline == "adapted"].groupby(["target", "tts"], sort=False):
        models = {
            "best null vector": part[part.model.str.startswith(NULL)],
            "best rival": part[~part.model.str.startswith(NULL) & (part.model != BESIDE[1])],
        }
        row = {
            "target": "all targets" if target == ALL else target,
            "TTS": tts,
            "adapted": f"{part.wer_baseline.iloc[0]:.1f}",
        }
        for name, rows in models.items():
            best = None if rows.empty else rows.loc[rows.wer.idxmin()]
            row[name] = NOT_RUN if best is None else f"{names(rows.model[rows.wer == best.wer])} {best.wer:.1f}"
            row[f"{name} against adapted"] = NOT_RUN if best is None else percent_change(best)
            row[f"p (Holm), {name.split()[1]}"] = NOT_RUN if best is None else p_text(best.p_holm)
            row[f"verdict, {name.split()[1]}"] = (
                NOT_RUN if best is None else verdict(best.p_holm, best.relative_change, level(confidence))
            )
        table.append(row)
    result = pd.DataFrame(table)
    drawn = "texts and seeds" if ALL in set(changes.seed) else "texts"
    protocol = f"Protocol {names(changes.protocol.unique())}; " if "protocol" in changes else ""
    result.attrs["note"] = (
        f"{protocol}WER in percent. The best of several is picked on these very clips, which flatters it; adapted is one. Below zero it beats "
        f"adapted. {100 * confidence:g} % bootstrap intervals over {drawn}{ALSO}; seed {names(sorted(set(changes.seed.astype(str))))}."
    )
    return result
