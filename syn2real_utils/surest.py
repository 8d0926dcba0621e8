"""lam by a user's real clips without transcripts: where the moved model is surest of what it hears.

The selector `entropy` of a profile (selectors.py) does the same on the clips of a target; figures/tuxpaint-es says what it costs
against the oracle.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from syn2real_utils import proof, transcription
from syn2real_utils.backbones.base import Backbone, Heard
from syn2real_utils.backbones.clips import Clips
from syn2real_utils.errors import UserError
from syn2real_utils.profile import Profile
from syn2real_utils.store import Artifact, sha256
from syn2real_utils.vectorpick import Scaling


def choose_lam(profile: Profile, base: Artifact, vector: tuple[Path, str], clips: Sequence[str]) -> Scaling:
    """The lam of the grid with the lowest entropy; of equal ones the smallest.

    Args:
        profile: whose `evaluation.lam_grid` is tried.
        base: `syn_target`.
        vector: folder, and hash of what is in it.
        clips: files of any length; long ones are cut, and what holds no sound is left out.

    Raises:
        UserError: an unreadable clip, or no clip has a sound.
    """
    table = curve(profile, base, vector, clips)
    lam = float(table.lam[table.entropy.idxmin()])
    return Scaling(lam, f"where the model is surest of the {len(clips)} clips of --unlabelled (entropy a token)")


def shared(clips: Sequence[str], proving: Iterable[str]) -> int:
    """How many of the clips are among those that prove the model, whatever they are called there."""
    there = {sha256(Path(clip)) for clip in proving}
    return sum(sha256(Path(clip)) in there for clip in clips)


def curve(profile: Profile, base: Artifact, vector: tuple[Path, str], clips: Sequence[str]) -> pd.DataFrame:
    """Entropy of what could have come in each token's place, in nats a token, over lam: `lam, entropy`."""

    def features(asr: Backbone) -> Clips:
        waves = Clips(asr.of_wave(wave) for wave in transcription.pieces(clips))
        if not len(waves):
            raise UserError(f"--unlabelled: none of the {len(clips)} clips has a sound: give clips of speech")
        return waves

    def entropy(heard: dict[float, list[Heard]]) -> pd.DataFrame:
        rates = {lam: sum(one.entropy for one in said) / sum(one.tokens for one in said) for lam, said in heard.items()}
        return pd.DataFrame(list(rates.items()), columns=["lam", "entropy"])

    which = [sha256(Path(clip)) for clip in clips]
    return proof.swept(profile, base, vector, ("unlabelled", which), features, entropy, sure=True)
