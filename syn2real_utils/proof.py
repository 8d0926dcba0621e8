"""The proof on a user's own real clips: what each model hears in them, against the pretrained one."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch

from syn2real_utils import checkpoints, machine, selection, stages, statistics
from syn2real_utils.anatomy import words_between
from syn2real_utils.backbones.base import Backbone
from syn2real_utils.backbones.clips import Clips
from syn2real_utils.corpora.base import LEAST, read_audiofolder, read_metadata
from syn2real_utils.errors import UserError
from syn2real_utils.evaluation import score, sweep
from syn2real_utils.profile import CorpusPart, Profile
from syn2real_utils.statistics import CLIP, FULL
from syn2real_utils.store import Artifact, Store, fingerprint, sha256
from syn2real_utils.text import clean, normalise

# What is compared, all padded to 30 s as a pipeline hears: (model, against)
COMPARED = (("adapted", "pretrained"), ("adapted", "syn_target"), ("joint", "pretrained"), ("joint", "adapted"))
RATES = ("model", "context", "n_utterances", "n_words", "errors", "wer", "ci_low", "ci_high")
SAMPLE = (
    24  # synthetic clips that are heard where there are no real ones: 15 s of work at 30 s of context for Whisper base
)
CHANGES = ("model", "baseline", "relative_change", "ci_low", "ci_high", "p", "gained", "lost")


def of_folder(profile: Profile, folder: Path) -> Profile:
    """The profile with a user's AudioFolder as its corpus."""
    part = CorpusPart(name="folder", language=profile.corpus.language, path=str(folder.expanduser().resolve()))
    return profile.model_copy(update={"corpus": part})


def clips_of(profile: Profile) -> pd.DataFrame:
    """The clips of `of_folder`, all domains; what cannot be scored was dropped with a count."""
    return read_audiofolder(stages.corpus(profile).path)


def listed(profile: Profile, domain: str) -> int:
    """How many clips of `of_folder` are called as a domain, before any was dropped."""
    rows = read_metadata(Path(str(profile.corpus.path)), LEAST)
    return sum(clean(name) == domain for name in rows.domain) if "domain" in rows else 0


def check_apart(devel: pd.DataFrame, real: pd.DataFrame) -> None:
    """Raise UserError where a clip that is scored would be trained on."""
    trained = {sha256(Path(path)): name for path, name in zip(real.path, real.utterance, strict=True)}
    for path, name in zip(devel.path, devel.utterance, strict=True):
        if other := trained.get(sha256(Path(path))):
            raise UserError(f"the clip {name} of --devel is {other} of --real too: score clips that are not trained on")


def of_domain(rows: pd.DataFrame, domain: str) -> pd.DataFrame:
    """The rows that prove a model of `domain`: those of the domain where some are called so, else all."""
    own = rows.domain == domain
    return rows[own].reset_index(drop=True) if own.any() else rows


def known_texts(devel: pd.DataFrame, texts: pd.DataFrame, language: str) -> int:
    """How many of the scored clips say a text that is trained on."""
    trained = {normalise(text, language) for text in texts.transcription}
    return sum(normalise(text, language) in trained for text in devel.transcription)


def lam_curve(profile: Profile, base: Artifact, vector: tuple[Path, str], rows: pd.DataFrame) -> pd.DataFrame:
    """Errors and words over lam on the user's clips, each heard with its own context."""

    def counted(heard: dict[float, list[str]]) -> pd.DataFrame:
        parts = [score(rows, said, profile.corpus.language).assign(lam=lam) for lam, said in heard.items()]
        return pd.concat(parts)[["lam", "errors", "n_words"]].groupby("lam", as_index=False).sum()

    which = fingerprint([stages.corpus(profile).fingerprint, *rows.utterance])
    return selection.curve(
        swept(profile, base, vector, ("devel", which), lambda asr: Clips.of(asr, rows.path), counted)
    )


def swept(
    profile: Profile,
    base: Artifact,
    vector: tuple[Path, str],
    clips: tuple[str, object],
    features: Callable[[Backbone], Clips],
    told: Callable[[dict[float, list]], pd.DataFrame],
    sure: bool = False,
) -> pd.DataFrame:
    """A table of what `base + lam * vector` hears in a user's clips over the lam grid, kept in the store.

    Args:
        profile: its grid, backbone and threads.
        base: `syn_target`.
        vector: folder, and hash of what is in it.
        clips: what they are called, and what they are known by.
        features: of the clips.
        told: makes the table of what was heard at each lam.
        sure: hear with how sure the model is, as the backbone's `Heard`.
    """
    folder, digest = vector
    grid = profile.evaluation.lam_grid
    key = {
        "version": stages.VERSIONS["transcripts"],
        "base": base.fingerprint,
        "vector": digest,
        "lams": grid,
        "clips": clips[1],
        "backbone": stages.backbone_key(profile),
        "threads": profile.threads,
    }

    def make(into: Path) -> None:
        torch.set_num_threads(profile.threads)
        asr = stages.backbone(profile)
        heard = features(asr)
        tau, _ = checkpoints.load_vector(folder)
        table = told(sweep(asr, asr.load(base.path), tau, grid, heard, profile.evaluation.batch_size, sure=sure))
        table.to_csv(into / "table.csv", index=False, lineterminator="\n")
        machine.give_back_memory()

    found = Store().build(stages.TRANSCRIPTS, f"{clips[0]}-lams", key, make)
    return pd.read_csv(found.path / "table.csv")


def scores(profile: Profile, models: Mapping[str, Artifact | None], rows: pd.DataFrame) -> pd.DataFrame:
    """A row per model, context and clip; `pretrained` (None) is heard at 30 s alone."""
    parts = []
    for name, model in models.items():
        for context in (CLIP, FULL) if model else (FULL,):
            heard = stages.transcripts(profile, model, rows, full=context == FULL)
            said = heard.set_index("utterance").hypothesis[rows.utterance]
            counted = score(rows, said, profile.corpus.language)
            parts.append(counted.assign(model=name, context=context, domain=rows.domain.to_numpy()))
    table = pd.concat(parts, ignore_index=True)
    first = ["model", "context", "domain"]
    return table[[*first, *(c for c in table if c not in first)]]


def on_synthetic(profile: Profile, adapted: Artifact, clips: pd.DataFrame) -> pd.DataFrame:
    """`scores` of pretrained and adapted on `SAMPLE` of the synthetic clips, which adapted was trained on.

    They prove nothing of real speech. They show how far pretrained is from these texts as a TTS speaks them, and whether
    adapted hears at 30 s what it hears with a clip's own context.
    """
    rows = clips.loc[clips.utterance.map(fingerprint).sort_values().index[:SAMPLE]].reset_index(drop=True)
    key = {
        "version": [stages.VERSIONS[name] for name in ("transcripts", "padded")],
        "parent": stages.parent(profile),
        "model": adapted.fingerprint,
        "clips": [sha256(Path(path)) for path in rows.path],
        "backbone": stages.backbone_key(profile),
        "language": profile.corpus.language,
        "threads": profile.threads,
    }

    def make(into: Path) -> None:
        torch.set_num_threads(profile.threads)
        asr, table = stages.backbone(profile), rows[["utterance"]].copy()
        own, full = (Clips.of(asr, rows.path, full) for full in (False, True))
        table["pretrained"] = asr.transcribe(asr.load(), full, stages.FULL_BATCH)
        network = asr.load(adapted.path)
        table[CLIP] = asr.transcribe(network, own, profile.evaluation.batch_size)
        table[FULL] = asr.transcribe(network, full, stages.FULL_BATCH)
        table.to_csv(into / "table.csv", index=False, lineterminator="\n")
        machine.give_back_memory()

    found = Store().build(stages.TRANSCRIPTS, "synthetic", key, make)
    said = pd.read_csv(found.path / "table.csv", keep_default_na=False, dtype=str)
    named = (("pretrained", FULL, "pretrained"), ("adapted", CLIP, CLIP), ("adapted", FULL, FULL))
    parts = [
        score(rows, said[column], profile.corpus.language).assign(model=model, context=context, speaker="")
        for model, context, column in named
    ]
    return pd.concat(parts, ignore_index=True)


def rates(scored: pd.DataFrame) -> pd.DataFrame:
    """WER of each model and context with its bootstrap interval, over texts, and over speakers where there are many."""
    table = []
    for (model, context), rows in scored.groupby(["model", "context"], sort=False):
        counts = (len(rows), int(rows.n_words.sum()), int(rows.errors.sum()), statistics.corpus_wer(rows))
        table.append((model, context, *counts, *statistics.wer_interval(rows)))
    return pd.DataFrame(table, columns=list(RATES))


def changes(scored: pd.DataFrame) -> pd.DataFrame:
    """Each pair of `COMPARED` that was scored at 30 s: relative change, paired interval, words gained and lost."""
    full = dict(list(scored[scored.context == FULL].groupby("model")))
    table = []
    for model, baseline in COMPARED:
        if model in full and baseline in full:
            found = statistics.paired_change(full[model], full[baseline])
            gained, lost = words_between(full[baseline], full[model])
            numbers = (found.relative, found.low, found.high, found.p, gained.total(), lost.total())
            table.append((model, baseline, *numbers))
    return pd.DataFrame(table, columns=list(CHANGES))


def by_domain(scored: pd.DataFrame) -> pd.DataFrame | None:
    """A row per domain, at 30 s: what each model hears, and adapted against pretrained, which shows what was forgotten.

    Returns:
        `domain, n_utterances, n_words`, a column with the WER of each model, `relative_change, ci_low, ci_high`; None
        where there is one domain only.
    """
    full = scored[scored.context == FULL]
    if full.domain.nunique() < 2:
        return None
    table = []
    for domain, rows in full.groupby("domain"):
        models = dict(list(rows.groupby("model", sort=False)))
        found = statistics.paired_change(models["adapted"], models["pretrained"])
        counts = {"n_utterances": len(models["adapted"]), "n_words": int(models["adapted"].n_words.sum())}
        wers = {model: statistics.corpus_wer(part) for model, part in models.items()}
        interval = {"relative_change": found.relative, "ci_low": found.low, "ci_high": found.high}
        table.append({"domain": domain, **counts, **wers, **interval})
    return pd.DataFrame(table)
