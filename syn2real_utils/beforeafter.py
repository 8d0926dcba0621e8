"""Before and after a domain of one's own: tidy rows -> tables and a figure. No model, no GPU, no network.

Rows are those of `devel.csv` in an adapted model's folder, or of `benchmarks/adapt.py` (rows.csv).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from syn2real_utils import figures, statistics, tables
from syn2real_utils.figures import COLOURS, style
from syn2real_utils.statistics import FULL
from syn2real_utils.store import write_text_atomic

ROWS = ("domain", "model", "place", "corpus", "heard", "utterance", "text_id", "n_words", "errors")  # of rows.csv
VERDICTS = ("domain", "go")  # of verdicts.csv, and how it was made
PROTOCOL = "catalogue"  # of `benchmarks/adapt.py`: a domain's texts were known, their sound was not
SHOWN = ("pretrained", "syn_target", "adapted")
HEIGHT, WIDTH = 0.62, 6.4  # inches: of a domain, of the figure
BETWEEN = 0.24  # of a domain's height, between its models


def is_kept(folder: Path) -> bool:
    """Whether a folder holds what `benchmarks/adapt.py` heard and was told, and no run."""
    return all((folder / name).is_file() for name in ("rows.csv", "verdicts.csv"))


def redraw(folder: Path) -> list[Path]:
    """Write truth.csv, forgetting.csv and before_after.png from rows.csv and verdicts.csv alone; return the path of the figure.

    Raises:
        UserError: one of the two cannot be read, or lacks a column.
    """
    rows = tables.read_csv(folder / "rows.csv", ROWS)
    found = {
        "truth": truth(rows, tables.read_csv(folder / "verdicts.csv", VERDICTS)).round(2),
        "forgetting": forgetting(rows).round(4),
    }
    for name, made in found.items():
        text = made.assign(protocol=PROTOCOL).to_csv(index=False, lineterminator="\n")
        write_text_atomic(folder / f"{name}.csv", text)
    own = table(rows[rows.place == "own"]).assign(protocol=PROTOCOL)
    return [figures.save(figure(own), folder / "before_after.png")]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """WER in percent of each model on each domain, with its bootstrap interval over texts.

    Args:
        rows: `domain, model, text_id, n_words, errors`; where they hold `context`, those at 30 s are taken.

    Returns:
        `domain, model, n_utterances, n_words, errors, wer, ci_low, ci_high`.
    """
    full = rows[rows.context == FULL] if "context" in rows else rows
    found = []
    for (domain, model), part in full.groupby(["domain", "model"], sort=False):
        low, high = statistics.wer_interval(part)
        counts = {"n_utterances": len(part), "n_words": int(part.n_words.sum()), "errors": int(part.errors.sum())}
        wer = {"wer": statistics.corpus_wer(part), "ci_low": low, "ci_high": high}
        found.append({"domain": domain, "model": model} | counts | wer)
    return pd.DataFrame(found)


def truth(rows: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """What adapt said of each domain against what is true of it, and what it forgot.

    Args:
        rows: rows.csv of `benchmarks/adapt.py`; `place` is "own", "others" (of the corpus) or "outside" (another corpus).
        verdicts: its verdicts.csv.

    Returns:
        `domain, go`; for each place, its WER by model (`own_pretrained` ...), and adapted against pretrained in percent with
        its interval (`own_change, own_low, own_high` ...); `better` and `surely_better`, of the own domain.
    """
    rows, found = _apart(rows), []
    for said in verdicts.itertuples():
        row: dict[str, object] = {"domain": said.domain, "go": bool(said.go)}
        for place, part in rows[rows.domain == said.domain].groupby("place", sort=False):
            models = dict(list(part.groupby("model")))
            change = statistics.paired_change(models["adapted"], models["pretrained"])
            row |= {f"{place}_{model}": statistics.corpus_wer(models[model]) for model in SHOWN}
            row |= {f"{place}_change": change.relative, f"{place}_low": change.low, f"{place}_high": change.high}
            if place == "own":
                row |= {"better": bool(change.relative < 0), "surely_better": bool(change.high < 0)}
        found.append(row)
    return pd.DataFrame(found)


def forgetting(rows: pd.DataFrame) -> pd.DataFrame:
    """Every model against pretrained, and those that tau moved against syn_target, over all domains: gained there, forgotten elsewhere.

    Args:
        rows: as in `truth`; its models may be more than those of `SHOWN`.

    Returns:
        `place, model, baseline, domains, n_utterances, n_words, wer_baseline, wer, relative_change, ci_low, ci_high, p`. A clip of
        another place counts once for the model of each domain; its text is drawn for all of them at once.
    """
    found = []
    for place, part in _apart(rows).rename(columns={"domain": "target"}).groupby("place", sort=False):
        models = dict(list(part.groupby("model", sort=False)))
        moved = [model for model in models if model not in ("pretrained", "syn_target")]
        against = [(model, "pretrained") for model in models if model != "pretrained"] + [
            (m, "syn_target") for m in moved
        ]
        for model, baseline in against:
            after = models[model]
            base = models[baseline][models[baseline].target.isin(after.target)]
            change = statistics.paired_change(after, base)
            counts = {
                "domains": after.target.nunique(),
                "n_utterances": len(after),
                "n_words": int(after.n_words.sum()),
            }
            wers = {"wer_baseline": statistics.corpus_wer(base), "wer": statistics.corpus_wer(after)}
            interval = {"relative_change": change.relative, "ci_low": change.low, "ci_high": change.high, "p": change.p}
            found.append({"place": place, "model": model, "baseline": baseline} | counts | wers | interval)
    return pd.DataFrame(found)


def _apart(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` without clips of a domain itself where others are meant."""
    return rows[(rows.place == "own") | (rows.heard != rows.domain)]


def figure(found: pd.DataFrame) -> Figure:
    """WER of each model on each domain with its interval; `found` is what `table` returns, with `protocol` where it has one."""
    domains = list(dict.fromkeys(found.domain))
    said = f"WER on real clips, % (line: bootstrap interval over texts)\n{figures.protocol_of(found)}".strip()
    with style():
        drawn = Figure(figsize=(WIDTH, 1.0 + HEIGHT * len(domains)))
        ax = drawn.add_subplot()
        for place, model in enumerate(SHOWN):
            part = found[found.model == model].set_index("domain").reindex(domains)
            heights = np.arange(len(domains)) + BETWEEN * (place - 1)
            ax.hlines(heights, part.ci_low, part.ci_high, color=COLOURS[model], linewidth=1.4, alpha=0.6)
            ax.plot(part.wer, heights, "o", color=COLOURS[model], markersize=5.5, label=model)
        ax.set_yticks(range(len(domains)), domains)
        ax.set(ylim=(len(domains) - 0.4, -0.6), xlabel=said)
        ax.set_xlim(left=0)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(SHOWN), frameon=False)
    return drawn
