"""Ways to choose lam without target labels, side by side: each gives every lam of a grid a score, and the lowest chooses.

A selector is a function of profile, target, TTS and seed that returns lam -> score, and what it looks at. Of equal scores
the smallest lam is taken. To add one: a function here, its name in `SELECTORS`, and in the pattern of profile.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from syn2real_utils import committed, results, selection, stages, weightspace
from syn2real_utils.directions import between
from syn2real_utils.lineage import REAL
from syn2real_utils.profile import Profile
from syn2real_utils.studytables import SCORE_COLUMNS

Scores = dict[float, float]
FIXED = "fixed-"


@dataclass(frozen=True)
class Selector:
    """How lam is chosen."""

    looks_at: str  # for the table: what it needs beside the texts of the target
    scores: Callable[[Profile, str, str, int], Scores]  # the lowest chooses


def selector_scores(profile: Profile, target: str, seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """Every score of every selector of the profile for one target.

    Args:
        profile: with its `evaluation.selectors`.
        target: one of the profile's.
        seeds: of the fine-tunes; None: those of `evaluation.study_seeds`.

    Returns:
        The columns of `studytables.SCORE_COLUMNS`.
    """
    shown = committed.rows(profile, "selector_scores", target=target)
    if shown is not None and (seeds is None or set(seeds) <= set(shown.seed)):
        return shown if seeds is None else shown[shown.seed.isin(seeds)]
    ways = [selection.how_chosen(profile.evaluation.protocol)]
    if shown is None:  # else other seeds are asked for, of which the default's rows are committed and no model is here
        ways += profile.evaluation.selectors[1:]
    table = []
    for tts in (part.name for part in profile.tts):
        for seed in results.study_seeds(profile) if seeds is None else seeds:
            for name in ways:
                selector = named(name)
                head = {"target": target, "tts": tts, "seed": seed, "selector": name, "looks_at": selector.looks_at}
                found = selector.scores(profile, target, tts, seed)
                table += [head | {"lam": lam, "score": score} for lam, score in found.items()]
    return pd.DataFrame(table)[list(SCORE_COLUMNS)]


def all_scores(profile: Profile) -> pd.DataFrame:
    """`selector_scores` of every target."""
    return pd.concat([selector_scores(profile, target) for target in profile.targets], ignore_index=True)


def named(name: str) -> Selector:
    """The selector of a name in a profile; `fixed-0.4` is lam 0.4, or what of the grid is nearest."""
    if name.startswith(FIXED):
        wanted = float(name.removeprefix(FIXED))
        return Selector("nothing", lambda profile, *_: _near(profile, wanted))
    return SELECTORS[name]


def _default(profile: Profile, target: str, tts: str, seed: int) -> Scores:
    """WER of the source domains, each left out in turn; in protocol `paper`, of the target's devel part."""
    return _wer(results.selection_scores(profile, target, tts, seed))


def _synthetic_devel(profile: Profile, target: str, tts: str, seed: int) -> Scores:
    """WER on the target's own training texts as the other TTS of the profile speak them, each fold with its own model.

    Synthetic speech of the fold's held-out texts would be nearer to the task, but those are the texts that are scored: protocol
    `strict` forbids it. So the voices are new and the texts are not, which makes small lam look better than they are.
    """
    known, grid, parts = profile.evaluation.protocol == "catalogue", profile.evaluation.selection_grid, []
    vector = results.spec(profile, target, tts, seed)
    for fold in stages.folds(profile):
        model = stages.syn_target(profile, tts, target, seed, fold)
        for other in (part.name for part in profile.tts if part.name != tts):
            clips = stages.training_rows(profile, other, [target], fold, known)
            parts.append(results.scored(profile, clips, stages.transcripts(profile, model, clips, vector, grid)))
    return _wer(pd.concat(parts))


def _unsure(column: str, sign: int) -> Callable[[Profile, str, str, int], Scores]:
    """`sign` times a column of how sure the model was, per token, on all real clips of the target; labels are not read."""

    def scores(profile: Profile, target: str, tts: str, seed: int) -> Scores:
        vector, parts = results.spec(profile, target, tts, seed), []
        for fold in stages.folds(profile):
            model, rows = stages.syn_target(profile, tts, target, seed, fold), stages.test_rows(profile, target, fold)
            parts.append(stages.transcripts(profile, model, rows, vector, profile.evaluation.lam_grid, sure=True))
        sums = pd.concat(parts).groupby("lam")[[column, "tokens"]].sum()
        found = (sign * sums[column] / sums.tokens).to_dict()
        return {lam: float(found[lam]) for lam in profile.evaluation.selection_grid}

    return scores


def _norm_matched(profile: Profile, target: str, tts: str, seed: int) -> Scores:
    """How far lam is from that whose step has the right length: |lam tau| = c |syn_target - pretrained|.

    c is chosen on the source domains, each left out in turn as in the default: the c of the lowest WER summed over them, where
    each takes the lam of the grid that is nearest to c |syn_domain - pretrained| / |tau|. The default carries over the length of a
    step; this carries over its length beside the fine-tune.
    """
    grid = profile.evaluation.selection_grid
    curves = results.selection_scores(profile, target, tts, seed)
    fold = stages.folds(profile)[0]
    real, syn = (stages.finetuned(profile, s, stages.source_domains(profile, target), seed) for s in (REAL, tts))
    if not (length := weightspace.length(between(real, syn))):  # a vector of no step at all
        return _near(profile, 0.0)

    def unit(domain: str) -> float:
        """The lam whose step is as long as the fine-tune on a domain; the stand-ins of left-out domains are as long as tau."""
        moved = between(stages.syn_target(profile, tts, domain, seed, fold), stages.pretrained_model(profile))
        return weightspace.length(moved) / length

    units = {domain: unit(domain) for domain in curves.domain.unique()}
    if not all(units.values()):  # a fine-tune of no step at all
        return _near(profile, 0.0)
    return _near(profile, best_share(curves, units, grid) * unit(target))


def best_share(curves: pd.DataFrame, units: dict[str, float], grid: list[float]) -> float:
    """The c of the lowest WER summed over domains, where each takes the lam of the grid nearest to c times its unit.

    Args:
        curves: `domain, lam, errors, n_words`.
        units: of each domain, the lam that c = 1 means.
        grid: of lam.
    """
    errors = curves.groupby(["domain", "lam"]).errors.sum()
    best = (np.inf, 0.0)
    for share in sorted({lam / unit for lam in grid for unit in units.values()}):
        lams = {domain: min(grid, key=lambda lam: abs(lam - share * unit)) for domain, unit in units.items()}
        best = min(best, (float(sum(errors[domain, lam] for domain, lam in lams.items())), share))
    return best[1]


def _near(profile: Profile, wanted: float) -> Scores:
    return {lam: abs(lam - wanted) for lam in profile.evaluation.selection_grid}


def _wer(rows: pd.DataFrame) -> Scores:
    points = selection.curve(rows)
    return dict(zip(points.lam.tolist(), points.wer.tolist(), strict=True))


SELECTORS = {
    selection.CHOSEN: Selector("real speech of source domains", _default),
    selection.DEVEL: Selector("real speech of the target's devel part, with labels", _default),  # protocol `paper`
    "synthetic-target-devel": Selector("synthetic speech of the target's texts", _synthetic_devel),
    "confidence": Selector("real target speech, no labels", _unsure("logprob", -1)),
    "entropy": Selector("real target speech, no labels", _unsure("entropy", 1)),
    "norm-matched": Selector("real speech of source domains", _norm_matched),
}
