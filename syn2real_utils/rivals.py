"""Null vectors and rivals of the task vector: what else could be done, on the same clips, in one table.

A rival is a model to begin with, a direction to move it along, or both; a null vector is a direction that training or chance
gave, without the step from synthetic to real speech. `profile.evaluation.rivals` switches them on.

The lam of a rival is chosen as that of `adapted`, on left-out source domains and without labels of the target, where that
takes no more training ("own" in tables/rival_changes.csv); else it is the lam that was chosen for `adapted`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd

from syn2real_utils import augmentation, committed, results, selection, speech, stages, statistics, weightspace
from syn2real_utils.directions import Direction, between, total
from syn2real_utils.lineage import REAL
from syn2real_utils.profile import Profile
from syn2real_utils.store import Artifact, in_any_order
from syn2real_utils.versus import WITH_TAU

Base = Callable[["Case", int | None], Artifact]
Move = Callable[["Case", Artifact], Direction]


@dataclass(frozen=True)
class Case:
    """A domain to be recognised, and the source domains that may help."""

    profile: Profile
    tts: str
    target: str
    sources: tuple[str, ...]
    seed: int

    def syn_target(self, fold: int | None) -> Artifact:
        """`pretrained` fine-tuned on synthetic speech of the domain."""
        return stages.syn_target(self.profile, self.tts, self.target, self.seed, fold)

    def trained(self, what: str, domains: tuple[str, ...], seed: int | None = None) -> Artifact:
        """`pretrained` fine-tuned on all real or synthetic speech of some domains."""
        return stages.finetuned(self.profile, what, domains, self.seed if seed is None else seed)

    def pretrained(self) -> Artifact:
        """The backbone."""
        return stages.pretrained_model(self.profile)

    def tau(self) -> Direction:
        """real_source - syn_source of the pooled source domains."""
        return between(self.trained(REAL, self.sources), self.trained(self.tts, self.sources))

    def left_out(self) -> list["Case"]:
        """Each source domain that chooses lam as if it were the target."""
        chosen = stages.selection_domains(self.profile, stages.real_rows(self.profile), self.sources)
        rest = {d: tuple(other for other in self.sources if other != d) for d in chosen}
        return [Case(self.profile, self.tts, domain, others, self.seed) for domain, others in rest.items()]


@dataclass(frozen=True)
class Rival:
    """One line of the table; its name is its key in `RIVALS`."""

    about: str
    source: str  # who did so before
    base: Base = Case.syn_target
    move: Move | None = None  # None: the base, and the base + lam * tau
    guess: Move | None = None  # `move` for a left-out source domain, from models that are there anyway


def _between_seeds(case: Case, domains: tuple[str, ...]) -> Direction:
    seeds = case.profile.seeds
    other = seeds[(seeds.index(case.seed) + 1) % len(seeds)] if len(seeds) > 1 else case.seed + 1
    return between(case.trained(REAL, domains, other), case.trained(REAL, domains))


def _stand_in(case: Case, step: Callable[[tuple[str, ...]], Direction]) -> Direction:
    """What stands for a pooled step of the other source domains where one is left out: see `results.selection_scores`."""
    every = tuple(sorted((*case.sources, case.target)))
    return weightspace.as_long_as(total([step((domain,)) for domain in case.sources]), step(every))


def _left_out_tau(case: Case) -> Direction:
    return _stand_in(case, lambda domains: between(case.trained(REAL, domains), case.trained(case.tts, domains)))


def _shuffled(case: Case, _: Artifact) -> Direction:
    """Real and synthetic clips change sides for a random half of the texts: both sides have every text, half of it real."""
    profile, domains = case.profile, tuple(sorted(case.sources))
    real, syn = (speech.training_rows(profile, what, domains) for what in (REAL, case.tts))
    texts = sorted(set(real.text_id) & set(syn.text_id))  # a text_id is a hash, so this is no order of theirs
    first = set(pd.Series(texts).sample(frac=0.5, random_state=case.seed))
    both = set(texts)
    sides = []
    for side in (first, both - first):
        rows = pd.concat([real[real.text_id.isin(side)], syn[syn.text_id.isin(both - side)]], ignore_index=True)
        sides.append(_finetuned(case, rows.sort_values("utterance"), f"shuffled-{case.tts}", domains))
    return between(*sides)


def _joint(case: Case, fold: int | None) -> Artifact:
    return _finetuned(case, _mixed(case, fold), f"joint-{case.tts}", (*case.sources, case.target), fold)


def _two_stage(case: Case, fold: int | None) -> Artifact:
    profile = case.profile
    start = stages.mixed_source(profile, case.tts, case.sources, case.seed)
    known, rate = profile.evaluation.protocol == "catalogue", profile.training.mixed.factor
    return stages.finetuned(profile, case.tts, [case.target], case.seed, fold, known, start, rate)


def _augmented(how: str) -> Base:
    def base(case: Case, fold: int | None) -> Artifact:
        rows = augmentation.with_augmented(case.profile, case.tts, _target_rows(case, fold), how)
        return _finetuned(case, rows, f"{how}-{case.tts}", (case.target,), fold)

    return base


def _masked(case: Case, fold: int | None) -> Artifact:
    masking = case.profile.augmentation.model_dump(include={"mask_time_prob", "mask_feature_prob"})
    training = case.profile.training.model_copy(update=masking)
    profile = case.profile.model_copy(update={"training": training})
    lineage = stages.lineage_of(profile, f"specaugment-{case.tts}", (case.target,), case.seed, fold)
    return stages.finetuned_on(profile, _target_rows(case, fold), lineage)


def _mixed(case: Case, fold: int | None) -> pd.DataFrame:
    """Real speech of the source domains and synthetic speech of the target."""
    real = speech.training_rows(case.profile, REAL, case.sources)
    return pd.concat([real, _target_rows(case, fold)], ignore_index=True)


def _target_rows(case: Case, fold: int | None) -> pd.DataFrame:
    known = case.profile.evaluation.protocol == "catalogue"
    return speech.training_rows(case.profile, case.tts, [case.target], fold, known)


def _finetuned(
    case: Case, rows: pd.DataFrame, what: str, domains: tuple[str, ...], fold: int | None = None
) -> Artifact:
    lineage = stages.lineage_of(case.profile, what, tuple(sorted(domains)), case.seed, fold)
    return stages.finetuned_on(case.profile, rows, lineage)


def _towards_pretrained(case: Case, base: Artifact) -> Direction:
    return between(case.pretrained(), base)


def _towards_sources(case: Case, base: Artifact) -> Direction:
    """To what stands for a real_source of the source domains."""
    step = _stand_in(case, lambda domains: between(case.trained(REAL, domains), case.pretrained()))
    return total([step, between(case.pretrained(), base)])


def _noise(tau: Direction, case: Case) -> Direction:
    return Direction(tau.parts, noise=case.seed)


WORTSMAN = "Wortsman et al., CVPR 2022 (arXiv 2109.01903)"
RIVALS = {
    "null-seeds": Rival(
        "null vector: real_source of another seed - real_source of this one; what another seed moves",
        "our choice",
        move=lambda case, _: _between_seeds(case, case.sources),
        guess=lambda case, _: _stand_in(case, lambda domains: _between_seeds(case, domains)),
    ),
    "null-shuffled": Rival(
        "null vector: as tau, but for a random half of the texts the real and the synthetic clips change sides",
        "our choice: training, texts and voices as in tau, no step from synthetic to real",
        move=_shuffled,
    ),
    "null-random": Rival(
        "null vector: Gaussian noise in which every tensor, and so every module, has the norm that it has in tau",
        "our choice",
        move=lambda case, _: _noise(case.tau(), case),
        guess=lambda case, _: _noise(_left_out_tau(case), case),
    ),
    "wise-ft": Rival(
        "weight average of syn_target and pretrained; lam is the share of pretrained",
        WORTSMAN,
        move=_towards_pretrained,
        guess=_towards_pretrained,
    ),
    "weight-average": Rival(
        "weight average of syn_target and real_source; lam is the share of real_source",
        "Wortsman et al., ICML 2022 (arXiv 2203.05482)",
        move=lambda case, base: between(case.trained(REAL, case.sources), base),
        guess=_towards_sources,
    ),
    "joint": Rival(
        "pretrained fine-tuned on real speech of the sources and synthetic speech of the target together",
        "our choice: needs the real speech when a target comes",
        base=_joint,
    ),
    "two-stage": Rival(
        "pretrained -> real and synthetic speech of the sources -> synthetic speech of the target at a lower rate",
        "released code",
        base=_two_stage,
    ),
    "specaugment": Rival(
        "syn_target trained with stretches of frames and mel bins masked",
        "Park et al., Interspeech 2019 (arXiv 1904.08779)",
        base=_masked,
    ),
    "noise": Rival(
        "syn_target trained on synthetic clips with noise of a drawn colour and level",
        "our choice of levels",
        base=_augmented("noise"),
    ),
    "rir": Rival(
        "syn_target trained on synthetic clips with the echo of drawn rooms (pyroomacoustics)",
        "the idea: arXiv 2606.29031; our choice of rooms",
        base=_augmented("rir"),
    ),
}


def described(names: list[str]) -> pd.DataFrame:
    """What each rival is, and where it comes from."""
    table = [{"rival": name, "what": RIVALS[name].about, "source": RIVALS[name].source} for name in names]
    return pd.DataFrame(table, columns=["rival", "what", "source"])


def rival_rows(profile: Profile, target: str) -> pd.DataFrame:
    """The rivals of one target in the columns of tables/utterances.csv, and `lam_choice` ("own" or "adapted")."""
    shown = committed.rows(profile, "rivals", target=target)
    if shown is not None:
        return shown
    columns = [*statistics.UTTERANCE_COLUMNS, "lam_choice"]
    if not profile.evaluation.rivals:  # then not even the corpus is looked at
        return pd.DataFrame(columns=columns)
    steps = [
        partial(_rows, case, name, RIVALS[name])
        for seed in results.study_seeds(profile)
        for tts in (part.name for part in profile.tts)
        for case in [Case(profile, tts, target, stages.source_domains(profile, target), seed)]
        for name in profile.evaluation.rivals
    ]
    return pd.concat(in_any_order(steps), ignore_index=True)[columns]


def all_rivals(profile: Profile) -> pd.DataFrame:
    """tables/rivals.csv: `rival_rows` of every target."""
    return pd.concat([rival_rows(profile, target) for target in profile.targets], ignore_index=True)


def _rows(case: Case, name: str, rival: Rival) -> pd.DataFrame:
    """Rows of one rival: its base alone where it has no direction of its own, and the swept direction."""
    rows = about(case, sweep(case, rival.base, rival.move or (lambda own, _: own.tau()), stages.folds(case.profile)))
    swept = name if rival.move else name + WITH_TAU
    lam, choice = _choose(case, rival)
    parts = [selection.mark(rows.assign(model=swept), swept, lam).assign(lam_choice=choice)]
    if not rival.move:
        plain = rows[rows.lam == 0].assign(model=name, lam=float("nan"), lam_source="", lam_choice="")
        parts = [plain, *parts]
    return pd.concat(parts, ignore_index=True)


def about(case: Case, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with what tells of their case."""
    profile = case.profile
    return rows.assign(
        target=case.target, tts=case.tts, seed=case.seed,
        protocol=profile.evaluation.protocol, backbone=profile.backbone.name,
    )  # fmt: skip


def _choose(case: Case, rival: Rival) -> tuple[float, str]:
    """The rival's lam, and whose it is."""
    profile = case.profile
    if rival.guess is None:
        return results.chosen_lam(profile, case.target, case.tts, case.seed), "adapted"
    folds = stages.folds(profile)[: profile.evaluation.selection_folds]
    left_out = case.left_out()
    heard = in_any_order([partial(sweep, left, rival.base, rival.guess, folds) for left in left_out])
    parts = [
        rows.groupby("lam", as_index=False)[["errors", "n_words"]].sum().assign(domain=left.target)
        for left, rows in zip(left_out, heard, strict=True)
    ]
    return selection.choose(pd.concat(parts, ignore_index=True)), "own"


def sweep(case: Case, base: Base, move: Move, folds: list[int | None]) -> pd.DataFrame:
    """Scored rows of base + lam * direction over the selection grid, each fold heard by the model that did not see its texts."""
    profile = case.profile

    def heard(fold: int | None) -> pd.DataFrame:
        model, rows = base(case, fold), stages.test_rows(profile, case.target, fold)
        said = stages.transcripts(profile, model, rows, move(case, model), profile.evaluation.selection_grid)
        return results.scored(profile, rows, said)

    return pd.concat(in_any_order([partial(heard, fold) for fold in folds]), ignore_index=True)
