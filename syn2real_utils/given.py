"""The folders that a profile names: looked at before anything is fetched, spoken or trained."""

from pathlib import Path

from syn2real_utils.backbones import sources
from syn2real_utils.corpora import slurp
from syn2real_utils.errors import UserError
from syn2real_utils.profile import Profile, TtsPart
from syn2real_utils.tts import snapshots, speakers


def check(profile: Profile) -> None:
    """Raise UserError for a folder that is not there, or that holds something else; nothing is fetched."""
    part = profile.corpus
    own = part.name == "folder"
    if own and part.path is None:
        raise UserError("corpus.path is missing: name the AudioFolder of your speech")
    if part.path is not None and not Path(part.path).expanduser().is_dir():
        what = "your AudioFolder" if own else f"the folder of {part.name}, or leave the path out"
        raise UserError(f"corpus.path: no folder {part.path}: name {what}")
    if part.path is not None and part.name == "slurp":
        slurp.text_folder(Path(part.path).expanduser())
    sources.given(profile.backbone.name)
    for tts in profile.tts:
        _check_tts(tts)


def _check_tts(part: TtsPart) -> None:
    if part.model is not None:
        snapshots.given(part.model, "config.json")
    if part.speakers not in (None, speakers.ARCTIC, speakers.SOURCE):
        speakers.clips_of_folder(Path(str(part.speakers)))
    if part.round_trip:
        sources.given(part.round_trip.asr)
