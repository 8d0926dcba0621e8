"""The graph: corpus -> synthetic -> finetuned -> vector -> transcripts.

Each stage is a plain function that asks the store for its fingerprint (inputs, the part of the profile that it reads, the
version of its code), returns at once when the artifact is there, and otherwise calls its upstream stages and makes it.
So any notebook runs alone, and a killed run goes on where it was.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch

from syn2real_utils import batchnorm, checkpoints, machine, merging, origins, tensorfiles
from syn2real_utils.backbones import sources
from syn2real_utils.checkpoints import Lineage
from syn2real_utils.directions import Direction
from syn2real_utils.errors import names
from syn2real_utils.lineage import REAL
from syn2real_utils.profile import BackbonePart, Profile
from syn2real_utils.progress import say
from syn2real_utils.selection import DIGITS
from syn2real_utils.speech import (
    check,
    check_domains_and_folds,
    corpus,
    devel_rows,
    folds,
    has_corpus,
    judges,
    real_rows,
    selection_domains,
    source_domains,
    spoken_texts,
    synthetic,
    synthetic_rows,
    test_rows,
    to_speak,
    training_rows,
)
from syn2real_utils.store import Artifact, Store, fingerprint, in_any_order, sha256
from syn2real_utils.vectors import TaskVector

if TYPE_CHECKING:  # transformers takes seconds to import: only where a model is loaded
    from syn2real_utils.backbones.base import Backbone, Heard

__all__ = [
    "VectorSpec",
    "adapted",
    "backbone",
    "check",
    "check_domains_and_folds",
    "corpus",
    "devel_rows",
    "finetuned",
    "finetuned_on",
    "folds",
    "has_corpus",
    "lineage_of",
    "mixed_source",
    "model_key",
    "models_of",
    "parent",
    "pretrained",
    "pretrained_model",
    "real_rows",
    "selection_domains",
    "source_domains",
    "spoken_texts",
    "syn_target",
    "synthetic",
    "synthetic_rows",
    "task_vector",
    "test_rows",
    "to_speak",
    "training_rows",
    "transcripts",
    "vector",
    "vector_key",
    "vector_models",
]

# Raise a stage's number when its code would make something else from the same inputs.
VERSIONS = {"model": 5, "transcripts": 6, "padded": 5}  # padded: transcripts at 30 s
MODELS, VECTORS = "runs/artifacts/models", "runs/artifacts/vectors"
SURENESS = ("tokens", "logprob", "entropy")  # columns of transcripts that say how sure the model was
FULL_BATCH = 4  # clips of 30 s that are heard at once: more take much memory and save no time
ADAPTED, TRANSCRIPTS = "runs/artifacts/adapted", "runs/artifacts/transcripts"


@dataclass(frozen=True)
class VectorSpec:
    """Which task vector: of the pooled source domains, or one made of a vector per domain (of the pooled ones per seed)."""

    kind: Literal["pooled", "mean", "norm-weighted", "similarity-weighted", "ties", "dare", "seed-averaged"]
    tts: str
    domains: tuple[str, ...]
    seed: int
    density: float = 1.0  # the share of elements that TIES or DARE keeps
    seeds: tuple[int, ...] = ()  # of a vector that is averaged over them


def pretrained(profile: Profile) -> Path:
    """The folder of the backbone as downloaded, fetched and converted at first use."""
    return sources.resolve(profile.backbone.name, Store())


def pretrained_model(profile: Profile) -> Artifact:
    """`pretrained` as fine-tunes begin with it."""
    return Artifact(pretrained(profile), parent(profile))


def backbone(profile: Profile) -> "Backbone":
    """Features, tokens and decoding of the backbone."""
    return _backbone(pretrained(profile), profile.corpus.language, profile.backbone)


def syn_target(profile: Profile, tts: str, target: str, seed: int, fold: int | None) -> Artifact:
    """`pretrained` fine-tuned on synthetic speech of the target's texts, without those of the fold that is scored.

    Protocol `catalogue`: all texts, those that are scored too. Protocol `paper`: `mixed_source` takes the place of `pretrained`.
    """
    if profile.evaluation.protocol == "paper":
        start, rate = mixed_source(profile, tts, source_domains(profile, target), seed), profile.training.mixed.factor
        return finetuned(profile, tts, [target], seed, fold, start=start, rate=rate)
    return finetuned(profile, tts, [target], seed, fold, known=profile.evaluation.protocol == "catalogue")


def mixed_source(profile: Profile, tts: str, domains: Sequence[str], seed: int) -> Artifact:
    """`pretrained` fine-tuned on real and synthetic speech of the source domains: the first of the two stages of protocol `paper`."""
    domains = tuple(sorted(domains))
    rows = pd.concat([training_rows(profile, speech, domains) for speech in (REAL, tts)], ignore_index=True)
    first = profile.model_copy(update={"training": profile.training.first_stage()})
    return finetuned_on(first, rows, lineage_of(profile, f"{REAL}+{tts}", domains, seed))


def models_of(profile: Profile, target: str, seed: int) -> dict[tuple[str, str], Artifact]:
    """The models behind a target: real_source, and of each TTS syn_source and the syn_target of each fold.

    Returns:
        (name, what it heard) -> model.
    """
    sources, steps = source_domains(profile, target), {}
    for speech in (REAL, *(part.name for part in profile.tts)):
        steps["real_source" if speech == REAL else "syn_source", speech] = partial(
            finetuned, profile, speech, sources, seed
        )
    for tts in (part.name for part in profile.tts):
        for fold in folds(profile):
            steps["syn_target", f"{tts}, fold {fold}"] = partial(syn_target, profile, tts, target, seed, fold)
    return dict(zip(steps, in_any_order(list(steps.values())), strict=True))


def finetuned(
    profile: Profile,
    speech: str,
    domains: Sequence[str],
    seed: int,
    held_out: int | None = None,
    known: bool = False,
    start: Artifact | None = None,
    rate: float = 1.0,
) -> Artifact:
    """`pretrained` fine-tuned on what `training_rows` gives; `start` and `rate` as in `finetuned_on`.

    real_source: `speech="real"`, the source domains. syn_source: a TTS, the source domains. syn_target: see there.
    """
    domains = tuple(sorted(domains))
    rows = training_rows(profile, speech, domains, held_out, known)
    return finetuned_on(profile, rows, lineage_of(profile, speech, domains, seed, held_out), start, rate)


def finetuned_on(
    profile: Profile, rows: pd.DataFrame, lineage: Lineage, start: Artifact | None = None, rate: float = 1.0
) -> Artifact:
    """`pretrained` fine-tuned on clips of artifacts; with early stopping, the real devel part of `judges` chooses the checkpoint.

    Args:
        profile: of the run.
        rows: clips with `utterance, transcription, path`.
        lineage: what the clips are, and the seed.
        start: a fine-tuned model to go on from instead of `pretrained`: the second stage of two.
        rate: times the profile's learning rate.
    """
    seed = lineage.seed or 0
    label = _model_label(str(lineage.speech), lineage.domains, seed, lineage.held_out)
    key, devel = model_key(profile, rows, seed), None
    if start is not None or rate != 1:  # a plain fine-tune keeps its key
        key |= {"start": start.fingerprint if start else None, "rate": rate}
    if profile.training.early_stopping:
        devel = devel_rows(profile, judges(profile, lineage.domains))
        key["devel"] = fingerprint([corpus(profile).fingerprint, *devel.utterance])
        # The checkpoint that is kept is the one that was heard best.
        key["heard"] = [VERSIONS["transcripts"], profile.evaluation.batch_size]
    return Store().build(MODELS, label, key, lambda into: _finetune(profile, rows, lineage, into, start, rate, devel))


def model_key(profile: Profile, rows: pd.DataFrame, seed: int) -> dict:
    """All that a model depends on that is fine-tuned from `pretrained` for all its steps."""
    sets = sorted({_fingerprint_of(Path(path)) for path in rows.path})
    return {
        "version": VERSIONS["model"],
        "parent": parent(profile),
        "backbone": backbone_key(profile),
        "training": profile.training.key("save_steps", "gradient_checkpointing", "processes", "mixed"),
        "language": profile.corpus.language,
        "clips": fingerprint(rows[["utterance", "transcription"]].values.tolist()),
        "sets": sets,
        "seed": seed,
        "threads": profile.threads,
    }


def vector_models(profile: Profile, spec: VectorSpec) -> list[tuple[Artifact, Artifact]]:
    """(real_source, syn_source) behind a vector: one pair, or one for each domain or seed."""
    pooled = spec.kind in ("pooled", "seed-averaged")
    parts = [spec.domains] if pooled else [(domain,) for domain in spec.domains]
    steps = [
        partial(finetuned, profile, speech, part, seed)
        for seed in spec.seeds or (spec.seed,)
        for part in parts
        for speech in (REAL, spec.tts)
    ]
    models = in_any_order(steps)
    return list(zip(models[::2], models[1::2], strict=True))


def vector(profile: Profile, spec: VectorSpec | Direction) -> TaskVector:
    """The vector that a spec names, in memory."""
    if isinstance(spec, Direction):
        return spec.vector()
    folders = tuple((real.path, syn.path) for real, syn in vector_models(profile, spec))
    return _vector(spec.kind, folders, spec.density, spec.seed)


def vector_key(profile: Profile, spec: VectorSpec | Direction) -> list:
    """All that a vector depends on."""
    if isinstance(spec, Direction):
        return ["direction", *spec.key()]
    kind: list = [spec.kind] if spec.kind not in ("ties", "dare") else [spec.kind, spec.density, spec.seed]
    return [*kind, *([real.fingerprint, syn.fingerprint] for real, syn in vector_models(profile, spec))]


def task_vector(profile: Profile, spec: VectorSpec) -> Artifact:
    """A pooled or mean vector as a folder with vector.safetensors; other kinds are made in memory alone."""
    if spec.kind not in ("pooled", "mean"):
        raise ValueError(f"no folder is made of a {spec.kind} vector: expected pooled or mean")
    pairs, store = vector_models(profile, spec), Store()
    key = {"kind": spec.kind, "models": [[real.fingerprint, syn.fingerprint] for real, syn in pairs]}

    def make(into: Path) -> None:
        if spec.kind == "pooled":
            ((real, syn),) = pairs
            checkpoints.subtract(real.path, syn.path, into, overwrite=True)
        else:
            pooled = [task_vector(profile, VectorSpec("pooled", spec.tts, (d,), spec.seed)) for d in spec.domains]
            checkpoints.mean([part.path for part in pooled], into, overwrite=True)

    what = spec.domains[0] if len(spec.domains) == 1 else f"{spec.kind}{len(spec.domains)}"
    return store.build(VECTORS, f"{spec.tts}-{what}-s{spec.seed}", key, make)


def adapted(profile: Profile, base: Artifact, spec: VectorSpec, lam: float) -> Artifact:
    """theta_base + lam * tau as a folder that `transformers.pipeline` opens."""
    tau = task_vector(profile, spec)
    settled = batchnorm.key(profile, base) if lam else {}
    key = {"base": base.fingerprint, "vector": tau.fingerprint, "lam": lam} | settled
    label = f"{base.path.name.rsplit('-', 1)[0]}-lam{lam:g}"

    def make(into: Path) -> None:
        checkpoints.apply(base.path, tau.path, lam, into, overwrite=True)
        if settled:
            batchnorm.settle_folder(profile, base, backbone(profile), into)

    return Store().build(ADAPTED, label, key, make)


def transcripts(
    profile: Profile,
    model: Artifact | None,
    rows: pd.DataFrame,
    spec: VectorSpec | Direction | None = None,
    lams: Sequence[float] = (0.0,),
    full: bool = False,
    sure: bool = False,
) -> pd.DataFrame:
    """What `model + lam * vector` hears in clips; with a vector, the model alone (lam 0) is heard first, and kept for all vectors.

    Args:
        profile: of the run.
        model: a fine-tuned model; None: `pretrained`, which is heard with the full context of 30 s.
        rows: utterances of the corpus, or synthetic ones.
        spec: the vector, of a fine-tuned model; None: the model as it is.
        lams: scaling factors.
        full: pad every clip to 30 s, as `pretrained` hears it always.
        sure: say how sure the model was.

    Returns:
        `lam, utterance, hypothesis`; if `sure`, `tokens, logprob, entropy` as in the backbone's `Heard`.
    """
    if spec is None:
        return _heard(profile, model, rows, full=full, sure=sure)
    if model is None:
        raise ValueError("pretrained is moved along no vector here: expected a fine-tuned model")
    plain = _heard(profile, model, rows, full=full, sure=sure or profile.evaluation.is_sure())
    found, moved = plain.assign(lam=0.0), [lam for lam in lams if lam]
    if moved:
        found = pd.concat([found, _heard(profile, model, rows, spec, moved, full, sure, plain.hypothesis.tolist())])
    columns = ["lam", "utterance", "hypothesis", *(SURENESS if sure else ())]
    found = found.assign(lam=found.lam.round(DIGITS))
    return pd.concat([found.loc[found.lam == round(lam, DIGITS), columns] for lam in lams], ignore_index=True)


def _heard(
    profile: Profile,
    model: Artifact | None,
    rows: pd.DataFrame,
    spec: VectorSpec | Direction | None = None,
    lams: Sequence[float] = (0.0,),
    full: bool = False,
    sure: bool = False,
    drafts: Sequence[str] | None = None,
) -> pd.DataFrame:
    """`transcripts` that are kept together; with a vector, those of every lam but 0, which vectors share.

    `drafts`: what the model alone hears.
    """
    full = full or model is None
    sets = sorted({_fingerprint_of(Path(path)) for path in rows.path} - {corpus(profile).fingerprint})
    key = {
        "version": VERSIONS["padded" if full else "transcripts"],
        "model": model.fingerprint if model else parent(profile),
        "vector": vector_key(profile, spec) if spec else None,
        "lams": list(lams),
        "clips": fingerprint([corpus(profile).fingerprint, *rows.utterance]),
        "language": profile.corpus.language,
        "backbone": backbone_key(profile),
        "batch_size": profile.evaluation.batch_size,
        "threads": profile.threads,
    }
    key |= {"full": True} if full else {}
    key |= {"sure": True} if sure else {}
    key |= {"sets": sets} if sets else {}  # of synthetic speech
    if spec and model:
        key |= batchnorm.key(profile, model)
    label = f"{model.path.name.rsplit('-', 1)[0] if model else 'pretrained'}{f'-{_vector_label(spec)}' if spec else ''}"
    found = Store().build(
        TRANSCRIPTS,
        label,
        key,
        lambda into: _transcribe(profile, model, rows, spec, lams, full, sure, into / "transcripts.csv", drafts),
    )
    return pd.read_csv(
        found.path / "transcripts.csv", keep_default_na=False, dtype={"utterance": str, "hypothesis": str}
    )


def parent(profile: Profile) -> str:
    """Hash of the pretrained weights: the parent in every lineage."""
    folder = pretrained(profile)  # one that was trained again in its place has other times
    return _weights_hash(folder, tuple(file.stat().st_mtime_ns for file in tensorfiles.weight_files(folder)))


def lineage_of(
    profile: Profile, speech: str, domains: tuple[str, ...], seed: int, held_out: int | None = None
) -> Lineage:
    """Lineage of a model that is fine-tuned from `pretrained`."""
    return Lineage(
        kind="model",
        architecture=checkpoints.architecture(pretrained(profile)),
        parent=parent(profile),
        corpus=f"{profile.corpus.name}-{profile.corpus.language}",
        speech=speech,
        domains=domains,
        held_out=held_out,
        seed=seed,
    )


def _finetune(
    profile: Profile,
    rows: pd.DataFrame,
    lineage: Lineage,
    into: Path,
    start: Artifact | None,
    rate: float,
    devel: pd.DataFrame | None,
) -> None:
    from syn2real_utils.backbones.clips import Examples
    from syn2real_utils.stopping import Devel
    from syn2real_utils.training import finetune

    _vector.cache_clear()  # a fine-tune needs the memory
    machine.give_back_memory()
    torch.set_num_threads(profile.threads)
    model = backbone(profile)
    what = f"fine-tune on {lineage.speech} {names(lineage.domains, 3)}"
    say(f"{what}: {len(rows)} clips, seed {lineage.seed}")
    model.check(rows.transcription.tolist())
    examples = Examples.of(model, rows.path, rows.transcription)
    part = profile.training.model_copy(update={"learning_rate": profile.training.learning_rate * rate})
    judge = None if devel is None else Devel(model, devel, profile.evaluation.batch_size)
    begin = start.path if start else None
    finetune(model, examples, part, lineage.seed or 0, profile.threads, what, into, start=begin, judge=judge)
    before = checkpoints.read_lineage(begin) if begin else None
    licences = origins.lines(origins.of_clips(profile, rows, judge is not None))
    licences = tuple(dict.fromkeys([*(before.licences if before else ()), *licences]))
    checkpoints.write_lineage(into, lineage.model_copy(update={"licences": licences}))


def _model_label(speech: str, domains: tuple[str, ...], seed: int, held_out: int | None) -> str:
    what = domains[0] if len(domains) == 1 else f"{len(domains)}domains"
    return f"{speech}-{what}{'' if held_out is None else f'-without{held_out}'}-s{seed}"


def _transcribe(
    profile: Profile,
    model: Artifact | None,
    rows: pd.DataFrame,
    spec: VectorSpec | Direction | None,
    lams: Sequence[float],
    full: bool,
    sure: bool,
    file: Path,
    drafts: Sequence[str] | None = None,
) -> None:
    from syn2real_utils.backbones.clips import Clips
    from syn2real_utils.evaluation import sweep

    torch.set_num_threads(profile.threads)
    asr = backbone(profile)
    size = min(profile.evaluation.batch_size, FULL_BATCH) if full else profile.evaluation.batch_size
    clips = Clips.of(asr, rows.path, full)
    tau = vector(profile, spec) if spec else None
    hear = asr.hear if sure else asr.transcribe
    remedy = machine.lower("evaluation.batch_size", profile.evaluation.batch_size, size)
    with machine.enough_memory(f"transcripts of {len(clips)} clips", f"{remedy}; finished models stay"):
        heard = asr.load(model.path if model else None)
        settle = batchnorm.settler(profile, model, asr) if tau and model else None
        if tau:
            texts = sweep(asr, heard, tau, lams, clips, size, settle, sure, drafts)
        else:
            texts = {0.0: hear(heard, clips, size)}
    table = [
        {"lam": lam, "utterance": utterance} | _said(said)
        for lam, transcripts in texts.items()
        for utterance, said in zip(rows.utterance, transcripts, strict=True)
    ]
    pd.DataFrame(table).to_csv(file, index=False, lineterminator="\n")
    del heard, tau
    gc.collect()  # the next model takes its place


def _said(heard: "str | Heard") -> dict[str, object]:
    """What was heard as columns."""
    if isinstance(heard, str):
        return {"hypothesis": heard}
    return {"hypothesis": heard.text} | {name: getattr(heard, name) for name in SURENESS}


@lru_cache(maxsize=1)  # folds and targets of a group have the same vector, one after the other
def _vector(kind: str, pairs: tuple[tuple[Path, Path], ...], density: float, seed: int) -> TaskVector:
    if kind in merging.RULES:
        return merging.merged(kind, pairs, density, seed)
    parts = (TaskVector.between(checkpoints.load_state(syn), checkpoints.load_state(real)) for real, syn in pairs)
    return TaskVector.mean(parts)


def _vector_label(spec: VectorSpec | Direction) -> str:
    return (spec.place or "direction") if isinstance(spec, Direction) else spec.kind


def _settings_key(profile: Profile) -> dict:
    """Hash of what lies beside the weights of a backbone that no package carries: words it may not say, its tokens, heads."""
    folder = pretrained(profile)
    if sources.carried(profile.backbone.name):  # pinned: its weights' hash stands for it all
        return {}
    files = [
        f for f in sorted(folder.iterdir()) if f.suffix in checkpoints.SETTINGS and f.name not in checkpoints.NOT_COPIED
    ]
    return {"settings": _settings_hash(tuple((file, file.stat().st_mtime_ns) for file in files))}


def backbone_key(profile: Profile) -> dict:
    """What decides, beside the weights, what a backbone hears and learns."""
    part = profile.backbone
    return part.key("name", "batchnorm") | {"precision": machine.precision(part.precision)} | _settings_key(profile)


def _fingerprint_of(clip: Path) -> str:
    """Fingerprint of the artifact that a clip lies in: `<label>-<fingerprint>/clips/<domain>/<clip>`."""
    return clip.parents[2].name.rsplit("-", 1)[1]


@lru_cache(maxsize=4)  # asked for at every step; a file that changes has another time
def _settings_hash(files: tuple[tuple[Path, int], ...]) -> str:
    return fingerprint([[file.name, sha256(file)] for file, _ in files])


@lru_cache(maxsize=4)
def _weights_hash(folder: Path, _: tuple[int, ...]) -> str:
    return checkpoints.weights_hash(folder)


@lru_cache(maxsize=2)
def _backbone(folder: Path, language: str, part: BackbonePart) -> "Backbone":
    from syn2real_utils.backbones.base import open_backbone

    return open_backbone(folder, language, part)
