"""Tables and figures that a profile switches on: their names, what is computed from their rows, and what they cost."""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from syn2real_utils import figures_evidence, studyfigures, studytables, versus
from syn2real_utils.counts import Counts
from syn2real_utils.profile import Profile

COMPARED = {
    "rivals": "rival_changes",
    "places": "place_changes",
    "transfer": "transfer_changes",
}  # rows -> table of changes
# Rival -> models that are trained for it, per target, TTS and seed, and those of each fold
TRAINED = {
    "null-shuffled": (2, 0),
    "joint": (0, 1),
    "two-stage": (1, 1),
    "specaugment": (0, 1),
    "noise": (0, 1),
    "rir": (0, 1),
}
OWN_LAM = ("null-seeds", "null-random", "wise-ft", "weight-average")  # rivals whose lam left-out source domains choose


def row_names(profile: Profile) -> list[str]:
    """Tables below tables/ that need models."""
    asked = profile.evaluation
    switches = {
        "rivals": asked.rivals,
        "places": asked.places,
        "norms": asked.places,
        "transfer": asked.transfer,
        "loss_plane": asked.loss_plane,
    }
    return [name for name, on in switches.items() if on] + studytables.asked(profile)


def computed_names(profile: Profile) -> list[str]:
    """Tables that are computed from those."""
    tables = COMPARED | studytables.STUDIES
    return [tables[name] for name in row_names(profile) if name in tables]


def compute(profile: Profile, rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Name -> table, for those of `computed_names` whose rows are there: a folder of committed CSV may lack some."""
    samples, confidence = profile.evaluation.bootstrap_samples, profile.evaluation.confidence
    compared = {
        COMPARED[name]: versus.compare(
            rows["utterances"], rows[name], samples, confidence, versus.BESIDE if name == "rivals" else ()
        )
        for name in row_names(profile)
        if name in COMPARED and name in rows
    }
    return compared | {
        studytables.STUDIES[name]: studytables.computed(name, rows, samples, confidence)
        for name in studytables.asked(profile)
        if name in rows
    }


def drawings(profile: Profile, found: dict[str, pd.DataFrame]) -> dict[str, Callable[[], Figure]]:
    """Figures by the name of their file."""
    every = {
        "rivals": lambda: figures_evidence.contest(found["rival_changes"]),
        "places": lambda: figures_evidence.contest(found["place_changes"]),
        "norms": lambda: figures_evidence.norms(found["norms"]),
        "transfer": lambda: figures_evidence.contest(found["transfer_changes"]),
        "loss_plane": lambda: figures_evidence.loss_plane(found["loss_plane"]),
        "selector_scores": lambda: studyfigures.selectors(found["selectors"]),
        "ensembles": lambda: studyfigures.ensembles(found["ensemble_wer"]),
        "source_counts": lambda: studyfigures.source_counts(found["source_count_wer"]),
    }
    return {name: every[name] for name in row_names(profile)}


CAPTIONS = {
    "rivals": "Null vectors and rivals beside the task vector, on the same clips.",
    "places": "Parts of the task vector, each added alone.",
    "norms": "Where the task vector is long, and which way it points.",
    "transfer": "The task vector of one TTS added to the target model of another.",
    "loss_plane": "Loss on the target's real speech over the plane of (syn_target - pretrained) and τ.",
    "selector_scores": "What each way to choose λ loses against the oracle, and what it looks at.",
    "ensembles": "Ways to make one vector of several, at one length of step, against the pooled vector.",
    "source_counts": "Word error rate over the number of source domains.",
}


def work(
    profile: Profile,
    counts: Counts,
    sources: dict[str, tuple[str, ...]],
    left_out: dict[str, tuple[str, ...]],
) -> tuple[int, float, int]:
    """What rivals, places, transfer and the loss plane add to a plan: models, clips times epochs, transcripts and losses of clips.

    Args:
        profile: of the run.
        counts: of the corpus.
        sources: target -> its source domains; targets of the same ones share what is trained on these alone.
        left_out: target -> those of them that choose lam.
    """
    asked, epochs, folds = profile.evaluation, profile.training.epochs, counts.folds
    seeds = min(asked.study_seeds, len(profile.seeds))
    models, trained, decoded = 0, 0.0, 0.0
    moved = len(asked.selection_grid) - 1  # lam but 0
    others_seed = "null-seeds" in asked.rivals and len(profile.seeds) == 1  # trained for it alone, once for all TTS
    reals, heard_twice = 0, 0.0
    for i, (target, domains) in enumerate(sources.items()):
        others, first = list(domains), domains not in list(sources.values())[:i]  # the first target of its group
        real, speech, own = counts.real[others].sum(), counts.texts[others].sum(), counts.spoken[target] * counts.seen
        if others_seed and first:
            reals, heard_twice = reals + 1 + len(domains), heard_twice + 2.0 * real
        for rival in asked.rivals:
            pooled, each = TRAINED.get(rival, (0, 0))
            models += pooled * first + each * folds
            trained += {"null-shuffled": real + speech, "two-stage": real + speech}.get(rival, 0) * first
            trained += each * folds * (own + (real if rival == "joint" else 0))
            chooses = counts.scored[list(left_out[target])].sum() * first if rival in OWN_LAM else 0
            heard = counts.scored[target] + chooses * counts.selected / folds
            decoded += (moved + (each > 0)) * heard  # at lam 0 a rival without a model of its own is syn_target
        parts = len(asked.places) + (len(profile.tts) - 1 if asked.transfer else 0)
        decoded += (parts * moved + asked.loss_plane**2 / folds / seeds) * counts.scored[target]
    each = len(profile.tts) * seeds
    return models * each + reals, (float(trained) * each + heard_twice) * epochs, round(decoded * each)
