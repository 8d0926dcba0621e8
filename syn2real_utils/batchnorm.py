"""BatchNorm statistics of an adapted model: those of its target model, or estimated anew on the target's synthetic speech.

They are no parameters, so no vector holds them (parameters.py). Behind syn_target + lam * tau they may no longer fit what its
layers give; `backbone.batchnorm: re-estimate` lets the model hear the clips that its target model was trained on once more.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from syn2real_utils import machine
from syn2real_utils.backbones.base import Backbone
from syn2real_utils.backbones.clips import Clips, lengths
from syn2real_utils.errors import UserError
from syn2real_utils.lineage import read_lineage
from syn2real_utils.profile import Profile
from syn2real_utils.speech import training_rows
from syn2real_utils.store import Artifact, fingerprint


def speech(profile: Profile, base: Artifact) -> pd.DataFrame | None:
    """The clips that the statistics of base + lam * tau are estimated on: those of the base; None: they stay the base's."""
    if profile.backbone.batchnorm == "target":
        return None
    origin = read_lineage(base.path)
    if origin is None or origin.speech is None:
        raise UserError(f"backbone.batchnorm re-estimate: {base.path} does not say what it was trained on; use target")
    known = profile.evaluation.protocol == "catalogue"
    return training_rows(profile, origin.speech, origin.domains, origin.held_out, known)


def key(profile: Profile, base: Artifact) -> dict:
    """What the estimate adds to a store's key."""
    rows = speech(profile, base)
    if rows is None:
        return {}
    clips = fingerprint([*rows.utterance])
    return {"batchnorm": "re-estimate", "speech": clips, "size": profile.training.batch_size}


def settler(profile: Profile, base: Artifact, backbone: Backbone) -> Callable[[nn.Module], None] | None:
    """What estimates the statistics of a model in memory; None where they stay the base's."""
    rows = speech(profile, base)
    if rows is None:
        return None
    clips = Clips.of(backbone, rows.path)
    size = profile.training.batch_size

    def settle(model: nn.Module) -> None:
        with machine.enough_memory("BatchNorm statistics", machine.lower("training.batch_size", size)):
            re_estimate(backbone, model, clips, size)

    return settle


def settle_folder(profile: Profile, base: Artifact, backbone: Backbone, folder: Path) -> None:
    """Estimate the statistics of base + lam * tau in a folder, where the profile asks for it."""
    settle = settler(profile, base, backbone)
    if settle:
        from syn2real_utils.training import save  # imports transformers, which takes seconds

        torch.set_num_threads(profile.threads)
        model = backbone.load(folder)
        settle(model)
        save(backbone, model, folder)


@torch.no_grad()
def re_estimate(backbone: Backbone, model: nn.Module, clips: Sequence[torch.Tensor], batch_size: int) -> None:
    """Set the statistics to their mean over batches of clips of like length; all else stays as it is.

    Raises:
        UserError: the model has no BatchNorm.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise UserError(f"backbone.batchnorm re-estimate: {backbone.folder.name} has no BatchNorm; use target")
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, each alike
        norm.train()
    times = lengths(clips)
    order = sorted(range(len(clips)), key=lambda i: times[i])
    device = next(model.parameters()).device
    for at in range(0, len(order), batch_size):
        batch = backbone.stacked([clips[i] for i in order[at : at + batch_size]])
        with backbone.hearing(model, {name: tensor.to(device) for name, tensor in batch.items()}) as heard:
            model(**heard)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
