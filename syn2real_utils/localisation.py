"""Where the signal lies: parts of the task vector alone, over depth, across TTS engines, and the target's loss around it.

`profile.evaluation.places`, `transfer` and `loss_plane` switch these on. They look at the target's labels to explain, never to
choose: lam is the one that was chosen for `adapted`.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch

from syn2real_utils import (
    checkpoints,
    committed,
    geometry,
    machine,
    parameters,
    results,
    selection,
    stages,
    statistics,
    weightspace,
)
from syn2real_utils.backbones.clips import Examples
from syn2real_utils.directions import Direction, block_of
from syn2real_utils.parameters import State
from syn2real_utils.profile import Profile
from syn2real_utils.rivals import Case, about, sweep
from syn2real_utils.store import Artifact

VERSION = 1  # raise it when the same models would give other tables
LOW, HIGH = -0.5, 1.5  # of both axes of the plane: 0 and 1 are on the grid where its side has 4 n + 1 points
NORM_COLUMNS = (
    "target", "tts", "seed", "module", "layer", "kind", "norm", "norm_pretrained", "cosine_target", "cosine_other_tts",
)  # fmt: skip
PLANE_COLUMNS = ("target", "tts", "seed", "model", "x", "y", "distance", "loss", "n_tokens")


def all_places(profile: Profile) -> pd.DataFrame:
    """tables/places.csv: syn_target + lam * a part of tau, in the columns of tables/utterances.csv; `model` is the place."""
    shown = committed.rows(profile, "places")
    if shown is not None:
        return shown
    if not profile.evaluation.places:
        return _table([])
    parts = [
        _marked(case, place, sweep(case, Case.syn_target, _only(case.tau().at(place)), stages.folds(profile)))
        for case in _cases(profile)
        for place in profile.evaluation.places
    ]
    return _table(parts)


def all_transfers(profile: Profile) -> pd.DataFrame:
    """tables/transfer.csv: syn_target of one TTS + lam * the tau of another, whose name is in `model`: "tau of pico"."""
    shown = committed.rows(profile, "transfer")
    if shown is not None:
        return shown
    if not profile.evaluation.transfer:
        return _table([])
    parts = []
    for case in _cases(profile):
        for other in (part.name for part in profile.tts if part.name != case.tts):
            tau = Case(profile, other, case.target, case.sources, case.seed).tau()
            parts.append(
                _marked(case, f"tau of {other}", sweep(case, Case.syn_target, _only(tau), stages.folds(profile)))
            )
    return _table(parts)


def all_norms(profile: Profile) -> pd.DataFrame:
    """tables/norms.csv: length and angle of tau in every layer and kind of parameter, first seed.

    Returns:
        The columns of `NORM_COLUMNS`. `cosine_target`: with syn_target - pretrained, the step that the target's synthetic
        speech asks for. `cosine_other_tts`: with the tau of the next TTS of the profile.
    """
    shown = committed.rows(profile, "norms")
    if shown is not None:
        return shown
    if not profile.evaluation.places:
        return pd.DataFrame(columns=list(NORM_COLUMNS))
    cases = [case for case in _cases(profile) if case.seed == profile.seeds[0]]
    return pd.concat([_norms(case) for case in cases], ignore_index=True)


def all_loss_planes(profile: Profile) -> pd.DataFrame:
    """tables/loss_plane.csv: loss on the target's real speech over a plane of models, first seed.

    The plane is pretrained + x * (syn_target - pretrained) + y * tau. Loss is the cross entropy of the right transcript, in nats
    per token, each given the right ones before it: an analysis that looks at the target's labels.

    Returns:
        The columns of `PLANE_COLUMNS`: points of the grid have no `model`. Models that lie outside the plane stand at the foot of
        their perpendicular, `distance` (in the norm of the weights) away, with their own loss.
    """
    shown = committed.rows(profile, "loss_plane")
    if shown is not None:
        return shown
    if not profile.evaluation.loss_plane:
        return pd.DataFrame(columns=list(PLANE_COLUMNS))
    cases = [case for case in _cases(profile) if case.seed == profile.seeds[0]]
    return pd.concat([loss_plane(case) for case in cases], ignore_index=True)


def loss_plane(case: Case) -> pd.DataFrame:
    """`all_loss_planes` of one target and TTS; the models and clips are those of the first fold."""
    profile, fold = case.profile, stages.folds(case.profile)[0]
    rows, models = stages.test_rows(profile, case.target, fold), _models(case)
    lam = results.chosen_lam(profile, case.target, case.tts, case.seed)
    side = np.linspace(LOW, HIGH, profile.evaluation.loss_plane).round(6).tolist()
    key = {
        "version": VERSION,
        "models": {name: model.fingerprint for name, model in models.items()},
        "side": side,
        "lam": lam,
    }
    key |= {"clips": [stages.corpus(profile).fingerprint, *rows.utterance], "batch_size": profile.evaluation.batch_size}

    def make() -> pd.DataFrame:
        torch.set_num_threads(profile.threads)
        places = _coordinates(models) | {"adapted": (1.0, lam, 0.0)}
        points = [("", x, y, 0.0) for x, y in itertools.product(side, side)]
        points += [(name, *place) for name, place in places.items()]
        losses = _losses(case, models, rows, [(name, x, y) for name, x, y, _ in points])
        table = [(*point, *loss) for point, loss in zip(points, losses, strict=True)]
        return pd.DataFrame(table, columns=list(PLANE_COLUMNS[3:]))

    table = weightspace.cached("loss_plane", f"{case.tts}-{case.target}-s{case.seed}", key, make)
    table = table.assign(target=case.target, tts=case.tts, seed=case.seed, model=table.model.fillna(""))
    return table[list(PLANE_COLUMNS)]


def _losses(
    case: Case, models: dict[str, Artifact], rows: pd.DataFrame, points: Sequence[tuple[str, float, float]]
) -> Iterator[tuple[float, int]]:
    """(nats per token, tokens) of each (model, x, y); a model that lies outside the plane is heard itself."""
    asr, size = stages.backbone(case.profile), case.profile.evaluation.batch_size
    examples = Examples.of(asr, rows.path, rows.transcription)
    model, start = asr.load(), checkpoints.load_state(models["pretrained"].path)
    for name, x, y in points:
        parts = _direction(models, x, y)
        if name in ("real_source", "syn_source"):
            parts = ((1.0, models[name]), (-1.0, models["pretrained"]))
        Direction(parts).vector().write_into(model.state_dict(), start, 1.0)
        with machine.enough_memory("the plane of losses", machine.lower("evaluation.batch_size", size)):
            nats, tokens = asr.loss(model, examples, size)
        yield nats / tokens, tokens
    del model
    machine.give_back_memory()


def _direction(models: dict[str, Artifact], x: float, y: float) -> tuple[tuple[float, Artifact], ...]:
    weights = {"pretrained": -x, "syn_target": x, "real_source": y, "syn_source": -y}
    return tuple((weight, models[name]) for name, weight in weights.items())


def _coordinates(models: dict[str, Artifact]) -> dict[str, tuple[float, float, float]]:
    """Model -> (x, y, distance from the plane): least squares on inner products."""
    others = [name for name in models if name != "pretrained"]
    pairs = [("pretrained", name) for name in others] + [("syn_source", "real_source")]
    products = geometry.gram([checkpoints.difference(models[a].path, models[b].path) for a, b in pairs])["all"]
    axes = [others.index("syn_target"), len(others)]
    found = {"pretrained": (0.0, 0.0, 0.0)}
    for i, name in enumerate(others):
        x, y = np.linalg.solve(products[np.ix_(axes, axes)], products[axes, i])
        away = products[i, i] - x * products[axes[0], i] - y * products[axes[1], i]
        found[name] = (float(x), float(y), float(np.sqrt(max(away, 0.0))))
    return found


def _norms(case: Case) -> pd.DataFrame:
    profile, engines, models = case.profile, [str(part.name) for part in case.profile.tts], _models(case)
    other = engines[(engines.index(case.tts) + 1) % len(engines)]
    key = {"version": VERSION, "models": [model.fingerprint for model in models.values()]}
    second = Case(profile, other, case.target, case.sources, case.seed).trained(other, case.sources)
    key |= {"other": second.fingerprint}

    def make() -> pd.DataFrame:
        torch.set_num_threads(profile.threads)
        folders = {name: model.path for name, model in models.items()}
        taus = [
            checkpoints.difference(folders["syn_source"], folders["real_source"]),
            checkpoints.difference(folders["pretrained"], folders["syn_target"]),
            checkpoints.difference(second.path, folders["real_source"]),
        ]
        table, whole = [], _lengths(checkpoints.load_state(folders["pretrained"]))
        for block, products in geometry.gram(taus, block_of).items():
            angles, lengths = geometry.cosines(products), np.sqrt(np.diag(products))
            module, layer, kind = block.split("/") if block != "all" else ("all", "", "all")
            table.append((module, layer, kind, lengths[0], whole[block], angles[0, 1], angles[0, 2]))
        return pd.DataFrame(table, columns=list(NORM_COLUMNS[3:]))

    table = weightspace.cached("norms", f"{case.tts}-{case.target}-s{case.seed}", key, make)
    if other == case.tts:
        table["cosine_other_tts"] = np.nan
    table["layer"] = table.layer.astype("Int64")  # empty outside the layers
    return table.assign(target=case.target, tts=case.tts, seed=case.seed)[list(NORM_COLUMNS)]


def _lengths(state: State) -> dict[str, float]:
    """Norm of the weights, of "all" and of each block; of a weight-normed weight as it multiplies."""
    squares: dict[str, float] = {}
    for name, key in parameters.keys_of(state).items():
        square = float(parameters.parameter(state, key).double().square().sum())
        for block in ("all", block_of(name)):
            squares[block] = squares.get(block, 0.0) + square
    return {block: square**0.5 for block, square in squares.items()}


def _models(case: Case) -> dict[str, Artifact]:
    (_, real), (_, syn) = case.tau().parts
    return {
        "pretrained": case.pretrained(),
        "syn_target": case.syn_target(stages.folds(case.profile)[0]),
        "real_source": real,
        "syn_source": syn,
    }


def _cases(profile: Profile) -> Iterator[Case]:
    for target in profile.targets:
        for part in profile.tts:
            for seed in results.study_seeds(profile):
                yield Case(profile, part.name, target, stages.source_domains(profile, target), seed)


def _only(direction: Direction):
    return lambda *_: direction


def _marked(case: Case, model: str, rows: pd.DataFrame) -> pd.DataFrame:
    lam = results.chosen_lam(case.profile, case.target, case.tts, case.seed)
    return selection.mark(about(case, rows).assign(model=model), model, lam).assign(lam_choice="adapted")


def _table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    columns = [*statistics.UTTERANCE_COLUMNS, "lam_choice"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
