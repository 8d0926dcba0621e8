"""Where a run's models and vectors lie in the space of weights: cosines between vectors, the plane of the models."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from syn2real_utils import checkpoints, committed, geometry, stages, tables
from syn2real_utils.directions import Direction
from syn2real_utils.lineage import REAL
from syn2real_utils.profile import Profile
from syn2real_utils.stages import VectorSpec
from syn2real_utils.store import Store, in_any_order


def domain_cosines(profile: Profile) -> pd.DataFrame:
    """Cosine between the vectors of any two (TTS, source domain), whole and by module.

    Returns:
        `seed, tts_a, domain_a, tts_b, domain_b, module, cosine, norm_a, norm_b`.
    """
    shown = committed.rows(profile, "cosines")
    if shown is not None:
        return shown
    return pd.concat([_cosines(profile, seed) for seed in profile.seeds], ignore_index=True)


def model_plane(profile: Profile, target: str, tts: str, seed: int) -> pd.DataFrame:
    """Where a run's models lie in the plane through syn_source, real_source and syn_target (of the first fold).

    Returns:
        `target, tts, seed, model, lam, x, y, distance`; `lam` is empty but for `adapted`, on the grid.
    """
    shown = committed.rows(profile, "geometry", target=target, tts=tts, seed=seed)
    if shown is not None:
        return shown
    sources, fold = stages.source_domains(profile, target), stages.folds(profile)[0]
    models = {
        "real_source": stages.finetuned(profile, REAL, sources, seed),
        "syn_source": stages.finetuned(profile, tts, sources, seed),
        "syn_target": stages.syn_target(profile, tts, target, seed, fold),
    }
    key = {"version": 1, "parent": stages.parent(profile), **{n: m.fingerprint for n, m in models.items()}}

    def make() -> pd.DataFrame:
        torch.set_num_threads(profile.threads)
        folders = {"pretrained": stages.pretrained(profile)} | {name: model.path for name, model in models.items()}
        start = folders.pop("syn_source")
        found = geometry.plane({name: checkpoints.difference(start, folder) for name, folder in folders.items()})
        points = [{"model": name, "x": x, "y": y, "distance": away} for name, (x, y, away) in found.items()]
        return pd.DataFrame(points)

    points = cached("geometry", f"{tts}-{target}-s{seed}", key, make)
    length, start = (points[points.model == name].iloc[0] for name in ("real_source", "syn_target"))
    moved = [
        {"model": "adapted", "lam": lam, "x": start.x + lam * length.x, "y": start.y, "distance": 0.0}
        for lam in profile.evaluation.lam_grid
    ]
    table = pd.concat([points, pd.DataFrame(moved)], ignore_index=True).assign(target=target, tts=tts, seed=seed)
    return table[["target", "tts", "seed", "model", "lam", "x", "y", "distance"]]


def length(direction: Direction) -> float:
    """Its norm over all parameters, kept in the store."""
    table = cached(
        "lengths", "direction", {"version": 2, "direction": direction.key()},
        lambda: pd.DataFrame({"length": [direction.norm()]}),
    )  # fmt: skip
    return float(table.length[0])


def as_long_as(direction: Direction, other: Direction) -> Direction:
    """A direction with the length of another one, so that one lam is one length of step along both."""
    own = length(direction)
    return direction.times(length(other) / own) if own else direction


def all_planes(profile: Profile) -> pd.DataFrame:
    """`model_plane` of every target and TTS, first seed."""
    seed = profile.seeds[0]
    parts = [model_plane(profile, target, part.name, seed) for target in profile.targets for part in profile.tts]
    return pd.concat(parts, ignore_index=True)


def _cosines(profile: Profile, seed: int) -> pd.DataFrame:
    domains = sorted({d for target in profile.targets for d in stages.source_domains(profile, target)})
    named = [(part.name, domain) for part in profile.tts for domain in domains]
    specs = [VectorSpec("pooled", tts, (domain,), seed) for tts, domain in named]
    made = in_any_order([partial(stages.vector_models, profile, spec) for spec in specs])
    pairs = [pair for (pair,) in made]
    key = {"version": 1, "pairs": [[real.fingerprint, syn.fingerprint] for real, syn in pairs]}

    def make() -> pd.DataFrame:
        torch.set_num_threads(profile.threads)
        taus = [checkpoints.difference(syn.path, real.path) for real, syn in pairs]
        table = []
        for module, products in geometry.gram(taus).items():
            angles = geometry.cosines(products)
            for i, (tts_a, domain_a) in enumerate(named):
                for j, (tts_b, domain_b) in enumerate(named):
                    names = {"tts_a": tts_a, "domain_a": domain_a, "tts_b": tts_b, "domain_b": domain_b}
                    norms = {"norm_a": products[i, i] ** 0.5, "norm_b": products[j, j] ** 0.5}
                    table.append(names | {"module": module, "cosine": angles[i, j]} | norms)
        return pd.DataFrame(table)

    return cached("cosines", f"{len(named)}vectors-s{seed}", key, make).assign(seed=seed)


def cached(kind: str, label: str, key: dict, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table that needs models to be made, kept in the store."""

    def write(into: Path) -> None:
        make().to_csv(into / "table.csv", index=False, lineterminator="\n", float_format="%.9g")

    found = Store().build(f"runs/artifacts/{kind}", label, key, write)
    return tables.read_csv(found.path / "table.csv")
