"""Tables in the shape of the paper's, with what it published beside what a run found: paper | ours | interval | not run.

The published numbers stand in published.csv, each with where it comes from. They are relative reductions in WER of adapted
against syn_target, from normalised transcripts scored against raw references; ours are scored so too, and normalised beside it.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from syn2real_utils.selection import is_chosen
from syn2real_utils.statistics import ALL
from syn2real_utils.tables import MINUS, NOT_RUN, overall

FILE = Path(__file__).parent / "published.csv"
UNKNOWN = "not known here"
AVERAGE, BEST = "average", "best"
TITLES = {
    "table1": "Table 1 of the paper: every domain in turn as target",
    "table2": "Table 2 of the paper: sizes of Whisper",
    "table3": "Table 3 of the paper: Wav2Vec2-Conformer",
    "fig4": "The figure of WER over lambda in the paper",
    "fig5": "The figure of cosines in the paper",
    "ensemble": "The paper's mean of vectors of single source domains",
}
REDUCTION_COLUMNS = ("domain", "TTS", "backbone", "paper", "ours", "interval", "ours normalised", "not run")


def published(reproduces: str) -> pd.DataFrame:
    """What the paper says: `backbone, domain, measure, paper, value, source`; an empty backbone stands for any."""
    rows = pd.read_csv(FILE, dtype=str, keep_default_na=False)
    return rows[rows.table == reproduces].drop(columns="table").reset_index(drop=True)


def reductions(
    known: pd.DataFrame, cells: pd.DataFrame, raw: pd.DataFrame, normalised: pd.DataFrame, model: str = "adapted"
) -> pd.DataFrame:
    """Relative reduction in WER of every domain, TTS and backbone, then their average over domains.

    Args:
        known: what `published` gives.
        cells: `domain, tts, backbone` that the paper's table needs, whether run or not.
        raw: changes.csv scored against raw references, with `backbone`.
        normalised: the same, both sides normalised.
        model: `adapted` or `ensemble`.

    Returns:
        Text in `REDUCTION_COLUMNS`; `attrs["note"]` says what the numbers are.
    """
    keys = ["target", "tts", "backbone"]
    raw, normalised = (_at_chosen(table[table.model == model], keys) for table in (raw, normalised))
    table = []
    for (tts, backbone), part in cells.groupby(["tts", "backbone"], sort=False):
        where = pd.MultiIndex.from_product([part.domain, [tts], [backbone]], names=keys)
        ours, plain = raw.reindex(where), normalised.reindex(where)
        lacking = np.where(where.isin(raw.index), "", NOT_RUN)
        for domain, row, other, lacks in zip(part.domain, ours.values, plain.relative_change, lacking, strict=True):
            change, low, high = row
            table.append(_row(domain, tts, backbone, known, -change, (-high, -low), -other, lacks))
        table.append(_summary(known, tts, backbone, ours, plain))
    result = pd.DataFrame(table, columns=list(REDUCTION_COLUMNS))
    result.attrs["note"] = (
        "Relative reduction in WER in percent of the adapted model against syn_target, protocol paper: above zero is better. "
        "ours and interval: raw references, as the paper's code scores; ours normalised: both sides normalised. The average is "
        "the mean over domains, its interval takes those of the domains as independent."
    )
    return result


def lams(known: pd.DataFrame, cells: pd.DataFrame, lam: pd.DataFrame) -> pd.DataFrame:
    """Where the curve of WER over lambda is lowest: lam.csv of a run beside the paper's range."""
    said, found = known.paper.iloc[0], lam[lam.model == "adapted"]
    table = []
    for cell in cells.itertuples():
        where = (found.target == cell.domain) & (found.tts == cell.tts) & (found.backbone == cell.backbone)
        own = found[where].lam_oracle
        ours = ", ".join(f"{value:g}" for value in sorted(set(own.dropna())))
        table.append(
            {
                "domain": cell.domain,
                "TTS": cell.tts,
                "backbone": cell.backbone,
                "paper": said,
                "ours": ours,
                "not run": "" if ours else NOT_RUN,
            }
        )
    result = pd.DataFrame(table)
    result.attrs["note"] = "The lambda of the lowest WER on the target's test part, of every seed; protocol paper."
    return result


def tts_cosines(known: pd.DataFrame, cosines: pd.DataFrame) -> pd.DataFrame:
    """Cosine between vectors of two TTS: of the same domain and of different ones, the mean over pairs and seeds."""
    rows = cosines[(cosines.module == "all") & (cosines.tts_a < cosines.tts_b)]
    same = rows.domain_a == rows.domain_b
    table = []
    for what, part, said in (("same", rows[same], known.paper.iloc[0]), ("different", rows[~same], UNKNOWN)):
        ours = f"{part.cosine.mean():.3f}" if len(part) else ""
        table.append({"domains": what, "paper": said, "ours": ours, "not run": "" if ours else NOT_RUN})
    result = pd.DataFrame(table)
    result.attrs["note"] = (
        "Mean cosine between task vectors of single source domains made with two TTS, over all weights."
    )
    return result


def _at_chosen(changes: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The row of each target, TTS and backbone at its chosen lam, seeds pooled; numbers only."""
    parts = [overall(part) for _, part in changes.groupby("backbone")]
    rows = pd.concat(parts) if parts else changes
    rows = rows[is_chosen(rows.lam_source) & (rows.target != ALL)]
    return rows.set_index(keys)[["relative_change", "ci_low", "ci_high"]].astype(float)


def _summary(known: pd.DataFrame, tts: str, backbone: str, ours: pd.DataFrame, plain: pd.DataFrame) -> dict[str, str]:
    """The average over the domains that were run, or the best of them where the paper tells that."""
    run = ours[ours.relative_change.notna()]
    lacking = "" if len(run) == len(ours) else f"{len(ours) - len(run)} of {len(ours)} domains" if len(run) else NOT_RUN
    if BEST in set(known.domain):
        ends, value, other = (np.nan, np.nan), -run.relative_change.min(), -plain.relative_change.min()
        if len(run):
            row = run.loc[run.relative_change.idxmin()]
            ends = (-row.ci_high, -row.ci_low)
        return _row(BEST, tts, backbone, known, value, ends, other, lacking)
    half = np.sqrt((((run.ci_high - run.ci_low) / 2) ** 2).sum(skipna=False)) / max(1, len(run))
    mean = -run.relative_change.mean()
    return _row(AVERAGE, tts, backbone, known, mean, (mean - half, mean + half), -plain.relative_change.mean(), lacking)


def _row(
    domain: str,
    tts: str,
    backbone: str,
    known: pd.DataFrame,
    ours: float,
    ends: tuple[float, float],
    normalised: float,
    lacking: str,
) -> dict[str, str]:
    said = known[(known.domain == domain) & known.backbone.isin(["", backbone])].paper
    interval = "" if lacking == NOT_RUN else f"[{_number(ends[0])}, {_number(ends[1])}]"
    cells = {"paper": said.iloc[0] if len(said) else UNKNOWN, "ours": _number(ours), "interval": interval}
    if np.isnan(ends).any():
        cells["interval"] = "" if lacking == NOT_RUN else "no interval"
    names = {"domain": domain, "TTS": tts, "backbone": backbone}
    return names | cells | {"ours normalised": _number(normalised), "not run": lacking}


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)  # + 0.0: no minus before zero
