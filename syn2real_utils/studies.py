"""What a profile may ask for beside the default ensemble: other ensembles, and how many source domains are enough.

Ensembles are compared at one length of step: lam |tau| of each is that of `adapted` at its chosen lam. So they differ in their
direction alone, and no lam has to be chosen for each, which would cost a sweep over the source domains for every one. DARE's
direction is part chance: what it drops at random lengthens its vector, so at one length it goes less far along the mean than the others
do (with a density of 0.1, 0.4 as far). Its row says what such a vector is worth at this length, not what DARE is at the best lam.
"""

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from syn2real_utils import committed, results, stages, statistics, weightspace
from syn2real_utils.profile import Ensemble, Profile
from syn2real_utils.stages import VectorSpec
from syn2real_utils.store import in_any_order
from syn2real_utils.studytables import COUNT_COLUMNS, SAME_LENGTH


def all_ensembles(profile: Profile) -> pd.DataFrame:
    """`ensemble_rows` of every target."""
    return pd.concat([ensemble_rows(profile, target) for target in profile.targets], ignore_index=True)


def all_source_counts(profile: Profile) -> pd.DataFrame:
    """`source_count_rows` of every target."""
    return pd.concat([source_count_rows(profile, target) for target in profile.targets], ignore_index=True)


def ensemble_rows(profile: Profile, target: str) -> pd.DataFrame:
    """What every ensemble of the profile heard of a target, in the columns of utterances.csv; `model` is the ensemble's name."""
    shown = committed.rows(profile, "ensembles", target=target)
    if shown is not None:
        return shown
    sources, engines = stages.source_domains(profile, target), [part.name for part in profile.tts]

    def heard(tts: str, seed: int, kind: Ensemble) -> pd.DataFrame:
        step = step_length(profile, target, tts, seed)
        vector = ensemble_spec(profile, kind, tts, sources, seed)
        return _heard(profile, target, vector, seed, step).assign(model=kind, tts=tts)

    every = itertools.product(engines, results.study_seeds(profile), profile.evaluation.ensembles)
    rows = pd.concat(in_any_order([partial(heard, *each) for each in every]), ignore_index=True)
    rows = rows.assign(lam_source=SAME_LENGTH, protocol=profile.evaluation.protocol, backbone=profile.backbone.name)
    return rows[list(statistics.UTTERANCE_COLUMNS)]


def source_count_rows(profile: Profile, target: str) -> pd.DataFrame:
    """What the mean over the first n source domains of each seeded order heard of a target, and the mean over all of them.

    Returns:
        The columns of `studytables.COUNT_COLUMNS`; the mean over all domains is the same in every order, and stands once.
    """
    shown = committed.rows(profile, "source_counts", target=target)
    if shown is not None:
        return shown
    sources = stages.source_domains(profile, target)
    counts = sorted({n for n in profile.evaluation.source_counts if n < len(sources)})
    drawn = [(n, order) for n in counts for order in range(profile.evaluation.source_orders)] + [(len(sources), 0)]

    def heard(tts: str, seed: int, n: int, order: int) -> pd.DataFrame:
        step = step_length(profile, target, tts, seed)
        vector = VectorSpec("mean", tts, first_of(sources, n, order), seed)
        return _heard(profile, target, vector, seed, step).assign(tts=tts, n_sources=n, order=order)

    steps = [
        partial(heard, part.name, seed, n, order)
        for part in profile.tts
        for seed in results.study_seeds(profile)
        for n, order in drawn
    ]
    return pd.concat(in_any_order(steps), ignore_index=True)[list(COUNT_COLUMNS)]


def ensemble_spec(profile: Profile, kind: Ensemble, tts: str, sources: tuple[str, ...], seed: int) -> VectorSpec:
    """The vector of an ensemble."""
    part = profile.evaluation
    density = {"ties": part.ties_density, "dare": part.dare_density}.get(kind, 1.0)
    seeds = tuple(profile.seeds) if kind == "seed-averaged" else ()
    return VectorSpec(kind, tts, sources, seed, density, seeds)


def first_of(sources: Sequence[str], n: int, order: int) -> tuple[str, ...]:
    """The first n source domains of a seeded order, sorted: those of n are among those of n + 1."""
    drawn = np.random.default_rng(order).permutation(sorted(sources))
    return tuple(sorted(map(str, drawn[:n])))


def _heard(profile: Profile, target: str, vector: VectorSpec, seed: int, step: float) -> pd.DataFrame:
    """Scored rows of a target with a vector at the lam whose step |lam tau| is `step`; 0 where the vector is 0.

    The other targets that have this vector hear it at once, while it is in memory: the store keeps what they heard.
    """
    own = length(profile, vector)
    lam = round(step / own, 6) if own else 0.0
    fellows, folds = _fellows(profile, target), stages.folds(profile)
    found = in_any_order([partial(results.sweep, profile, fellow, vector, [lam], folds) for fellow in fellows])
    return found[fellows.index(target)].assign(target=target, seed=seed)


def step_length(profile: Profile, target: str, tts: str, seed: int) -> float:
    """|lam tau| of `adapted` at its chosen lam: the same for targets of the same source domains."""
    lam = results.chosen_lam(profile, target, tts, seed)
    return lam * length(profile, results.spec(profile, target, tts, seed))


def length(profile: Profile, vector: VectorSpec) -> float:
    """|tau|."""
    key = {"version": 1, "vector": stages.vector_key(profile, vector)}
    found = weightspace.cached(
        "lengths", vector.kind, key, lambda: pd.DataFrame({"length": [stages.vector(profile, vector).norm()]})
    )
    return float(found.length[0])


def _fellows(profile: Profile, target: str) -> list[str]:
    """The targets that have the same source domains and so the same lam, `target` among them."""
    if profile.evaluation.protocol == "paper":  # there each target has a lam of its own
        return [target]
    own = stages.source_domains(profile, target)
    return [other for other in profile.targets if stages.source_domains(profile, other) == own]
