"""What `syn2real adapt` is asked for, checked before anything is fetched, and what it will cost."""

import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from syn2real_utils import audio, recipe, stages, vectorpick
from syn2real_utils.corpora.base import LEAST, read_metadata
from syn2real_utils.errors import UserError
from syn2real_utils.profile import (
    MOST_THREADS,
    BackbonePart,
    CorpusPart,
    EvaluationPart,
    Profile,
    TrainingPart,
    TtsPart,
    rooted_backbone,
)
from syn2real_utils.progress import say
from syn2real_utils.store import check_writable
from syn2real_utils.tensorfiles import check_free
from syn2real_utils.texts import Texts, read_texts
from syn2real_utils.transcripts import find_clips
from syn2real_utils.tts.base import check_tts

DOMAIN = re.compile(r"[^\W_][\w-]{0,39}")


@dataclass(frozen=True)
class Order:
    """What is asked for, checked as far as nothing need be fetched for it."""

    texts: Texts
    domain: str
    profile: Profile
    out: Path
    vector: str
    lam: str | float
    keep: float
    devel: Path | None
    real: Path | None
    unlabelled: tuple[str, ...]  # clips
    overwrite: bool
    yes: bool


def check(
    texts: Path,
    language: str,
    backbone: str,
    tts: list[str],
    out: Path,
    *,
    vector: str,
    lam: str | float,
    domain: str | None,
    takes: int,
    keep: float,
    devel: Path | None,
    real: Path | None,
    unlabelled: Path | None,
    seed: int,
    threads: int | None,
    overwrite: bool,
    yes: bool,
) -> Order:
    """The order, once everything is checked that can be known to be wrong before anything is fetched.

    The arguments are those of `adapt.adapt`.
    """
    _check_options(tts, language, takes, keep, seed, threads)
    vectorpick.check_choice(vector, lam, devel, unlabelled)
    check_free(out, overwrite)
    check_writable(out)
    for option, folder in (("--devel", devel), ("--real", real)):
        if folder is not None and not folder.expanduser().is_dir():
            raise UserError(f"{option}: no folder {folder}: expected an AudioFolder with clips and metadata.csv")
        if folder is not None:
            read_metadata(folder.expanduser(), LEAST)
    clips = find_clips(unlabelled.expanduser()) if unlabelled else []
    checked = read_texts(texts, language)
    domain = _domain(domain, texts)
    profile = Profile(
        name="adapt",
        description=f"the user's texts of {domain}",
        corpus=CorpusPart(name="folder", language=language),
        targets=[domain],
        tts=[TtsPart(name=name, takes=takes, seed=seed) for name in tts],
        backbone=BackbonePart(name=rooted_backbone(backbone)),
        training=TrainingPart(epochs=recipe.EPOCHS, batch_size=recipe.BATCH, learning_rate=recipe.LEARNING_RATE),
        evaluation=EvaluationPart(protocol="catalogue", lam_grid=recipe.LAM_GRID, selection_grid=recipe.LAM_GRID),
        seeds=[seed],
        threads=threads or os.cpu_count() or 1,
    )
    return Order(checked, domain, profile, out, vector, lam, keep, devel, real, tuple(clips), overwrite, yes)


def _check_options(tts: list[str], language: str, takes: int, keep: float, seed: int, threads: int | None) -> None:
    for name in tts:
        check_tts(name, language)
    if len(set(tts)) < len(tts) or not tts:
        raise UserError(f"--tts {','.join(tts)}: name one or more TTS, each once")
    for option, value, least in (("--takes", takes, 1), ("--seed", seed, 0), ("--threads", threads, 1)):
        if value is not None and value < least:
            raise UserError(f"{option} {value}: expected {least} or more")
    if threads is not None and threads > MOST_THREADS:
        raise UserError(f"--threads {threads}: expected {MOST_THREADS} at most")
    if seed >= 2**32:
        raise UserError(f"--seed {seed}: expected less than 2**32")
    if not (math.isfinite(keep) and 0 <= keep <= 1):
        raise UserError(f"--keep {keep}: expected a share from 0 (all adapted) to 1 (all pretrained)")


def tell_cost(order: Order, joint: int, scored: int) -> None:
    """Print what it will cost; above `recipe.MANY_TEXTS` texts ask whether to go on.

    Raises:
        UserError: the user says no, or is not there to be asked.
    """
    profile, count = order.profile, len(order.texts.kept)
    tts, backbone = [part.name for part in profile.tts], stages.pretrained(profile)
    takes, threads = profile.tts[0].takes, profile.threads
    say(
        recipe.estimate(
            order.texts.letters(), count, tts, takes, backbone, threads, joint, scored, order.keep > 0, _swept(order)
        ).line()
    )
    if count <= recipe.MANY_TEXTS or order.yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{count} texts take long (see the estimate): call with --yes to go on, or give fewer texts")
    if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError(f"stopped before {count} texts were spoken: give fewer texts, or answer yes")


def _swept(order: Order) -> float:
    """Seconds of speech that are heard at every lam but 0, summed over these."""
    return (len(recipe.LAM_GRID) - 1) * sum(audio.duration(clip) for clip in order.unlabelled)


def _domain(given: str | None, file: Path) -> str:
    name = given if given is not None else re.sub(r"[^\w-]+|_+", "-", file.stem).strip("-")[:40] or "domain"
    if not DOMAIN.fullmatch(name) or name == "all":
        raise UserError(
            f"domain '{name}': expected letters, digits, _ and -, 40 at most, and not 'all': name it with --domain"
        )
    return name
