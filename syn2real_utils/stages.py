"""The graph: corpus -> synthetic -> finetuned -> vector -> transcripts.

Each stage is a plain function that asks the store for its fingerprint (inputs, the part of the profile that it reads, the
version of its code), returns at once when the artifact is there, and otherwise calls its upstream stages and makes it.
So any notebook runs alone, and a killed run goes on where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch

from syn2real_utils import checkpoints, machine
from syn2real_utils.backbones import sources
from syn2real_utils.checkpoints import Lineage
from syn2real_utils.errors import names
from syn2real_utils.lineage import REAL
from syn2real_utils.profile import BackbonePart, Profile
from syn2real_utils.progress import say
from syn2real_utils.speech import (
    check,
    check_domains_and_folds,
    corpus,
    folds,
    has_corpus,
    real_rows,
    source_domains,
    spoken_texts,
    synthetic,
    synthetic_rows,
    test_rows,
    training_rows,
)
from syn2real_utils.store import Artifact, Store, fingerprint
from syn2real_utils.vectors import TaskVector

if TYPE_CHECKING:  # transformers takes seconds to import: only where a model is loaded
    from syn2real_utils.backbones.whisper import Whisper

__all__ = [
    "VectorSpec",
    "adapted",
    "backbone",
    "check",
    "check_domains_and_folds",
    "corpus",
    "finetuned",
    "finetuned_on",
    "folds",
    "has_corpus",
    "model_key",
    "parent",
    "pretrained",
    "real_rows",
    "source_domains",
    "spoken_texts",
    "syn_target",
    "synthetic",
    "synthetic_rows",
    "task_vector",
    "test_rows",
    "training_rows",
    "transcripts",
    "vector",
    "vector_models",
]

# Raise a stage's number when its code would make something else from the same inputs.
VERSIONS = {"model": 4, "transcripts": 4}
MODELS, VECTORS = "runs/artifacts/models", "runs/artifacts/vectors"
FULL_BATCH = 4  # clips of 30 s that are heard at once: more take much memory and save no time
ADAPTED, TRANSCRIPTS = "runs/artifacts/adapted", "runs/artifacts/transcripts"


@dataclass(frozen=True)
class VectorSpec:
    """Which task vector: of the pooled source domains, or the mean or sum of one vector per domain."""

    kind: Literal["pooled", "mean", "sum"]
    tts: str
    domains: tuple[str, ...]
    seed: int


def pretrained(profile: Profile) -> Path:
    """The folder of the backbone as downloaded, fetched and converted at first use."""
    return sources.resolve(profile.backbone.name, Store())


def backbone(profile: Profile) -> "Whisper":
    """Features, tokens and decoding of the backbone."""
    return _backbone(pretrained(profile), profile.corpus.language, profile.backbone)


def syn_target(profile: Profile, tts: str, target: str, seed: int, fold: int | None) -> Artifact:
    """`pretrained` fine-tuned on synthetic speech of the target's texts, without those of the fold that is scored.

    Protocol `catalogue`: all texts, those that are scored too.
    """
    return finetuned(profile, tts, [target], seed, fold, known=profile.evaluation.protocol == "catalogue")


def finetuned(
    profile: Profile,
    speech: str,
    domains: Sequence[str],
    seed: int,
    held_out: int | None = None,
    known: bool = False,
) -> Artifact:
    """`pretrained` fine-tuned on what `training_rows` gives.

    real_source: `speech="real"`, the source domains. syn_source: a TTS, the source domains. syn_target: see there.
    """
    domains = tuple(sorted(domains))
    rows = training_rows(profile, speech, domains, held_out, known)
    return finetuned_on(profile, rows, _lineage(profile, speech, domains, seed, held_out))


def finetuned_on(profile: Profile, rows: pd.DataFrame, lineage: Lineage) -> Artifact:
    """`pretrained` fine-tuned on clips of artifacts; the lineage says what they are, and holds the seed."""
    seed = lineage.seed or 0
    label = _model_label(str(lineage.speech), lineage.domains, seed, lineage.held_out)
    return Store().build(
        MODELS, label, model_key(profile, rows, seed), lambda into: _finetune(profile, rows, lineage, into)
    )


def model_key(profile: Profile, rows: pd.DataFrame, seed: int) -> dict:
    """All that a fine-tuned model depends on."""
    sets = sorted({_fingerprint_of(Path(path)) for path in rows.path})
    return {
        "version": VERSIONS["model"],
        "parent": parent(profile),
        "backbone": _backbone_key(profile),
        "training": profile.training.model_dump(exclude={"save_steps"}),
        "language": profile.corpus.language,
        "clips": fingerprint(rows[["utterance", "transcription"]].values.tolist()),
        "sets": sets,
        "seed": seed,
        "threads": profile.threads,
    }


def vector_models(profile: Profile, spec: VectorSpec) -> list[tuple[Artifact, Artifact]]:
    """(real_source, syn_source) behind a vector: one pair, or one for each domain."""
    parts = [spec.domains] if spec.kind == "pooled" else [(domain,) for domain in spec.domains]
    return [
        (finetuned(profile, REAL, part, spec.seed), finetuned(profile, spec.tts, part, spec.seed)) for part in parts
    ]


def vector(profile: Profile, spec: VectorSpec) -> TaskVector:
    """The task vector that a spec names, in memory."""
    parts = (_between(real, syn) for real, syn in vector_models(profile, spec))
    return TaskVector.sum(parts) if spec.kind == "sum" else TaskVector.mean(parts)


def task_vector(profile: Profile, spec: VectorSpec) -> Artifact:
    """A pooled or mean vector as a folder with vector.safetensors."""
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
    key = {"base": base.fingerprint, "vector": tau.fingerprint, "lam": lam}
    label = f"{base.path.name.rsplit('-', 1)[0]}-lam{lam:g}"
    return Store().build(
        ADAPTED, label, key, lambda into: checkpoints.apply(base.path, tau.path, lam, into, overwrite=True)
    )


def transcripts(
    profile: Profile,
    model: Artifact | None,
    rows: pd.DataFrame,
    spec: VectorSpec | None = None,
    lams: Sequence[float] = (0.0,),
    full: bool = False,
) -> pd.DataFrame:
    """What `model + lam * vector` hears in real clips.

    Args:
        profile: of the run.
        model: a fine-tuned model; None: `pretrained`, which is heard with the full context of 30 s.
        rows: real utterances.
        spec: the vector; None: the model as it is.
        lams: scaling factors.
        full: pad every clip to 30 s, as `pretrained` hears it always.

    Returns:
        `lam, utterance, hypothesis`.
    """
    full = full or model is None
    pairs = vector_models(profile, spec) if spec else []
    key = {
        "version": VERSIONS["transcripts"],
        "model": model.fingerprint if model else parent(profile),
        "vector": [spec.kind, *[[a.fingerprint, b.fingerprint] for a, b in pairs]] if spec else None,
        "lams": list(lams),
        "clips": fingerprint([corpus(profile).fingerprint, *rows.utterance]),
        "language": profile.corpus.language,
        "backbone": _backbone_key(profile),
        "batch_size": profile.evaluation.batch_size,
        "threads": profile.threads,
    }
    if full:
        key["full"] = True
    label = f"{model.path.name.rsplit('-', 1)[0] if model else 'pretrained'}{f'-{spec.kind}' if spec else ''}"
    found = Store().build(
        TRANSCRIPTS,
        label,
        key,
        lambda into: _transcribe(profile, model, rows, spec, lams, full, into / "transcripts.csv"),
    )
    return pd.read_csv(
        found.path / "transcripts.csv", keep_default_na=False, dtype={"utterance": str, "hypothesis": str}
    )


def parent(profile: Profile) -> str:
    """Hash of the pretrained weights: the parent in every lineage."""
    return _weights_hash(pretrained(profile))


def _finetune(profile: Profile, rows: pd.DataFrame, lineage: Lineage, into: Path) -> None:
    from syn2real_utils.backbones.whisper import Example
    from syn2real_utils.training import finetune

    torch.set_num_threads(profile.threads)
    model = backbone(profile)
    what = f"fine-tune on {lineage.speech} {names(lineage.domains, 3)}"
    say(f"{what}: {len(rows)} clips, seed {lineage.seed}")
    examples = [Example(model.features(p), model.labels(t)) for p, t in zip(rows.path, rows.transcription, strict=True)]
    finetune(model, examples, profile.training, lineage.seed or 0, profile.threads, what, into)
    checkpoints.write_lineage(into, lineage)


def _lineage(profile: Profile, speech: str, domains: tuple[str, ...], seed: int, held_out: int | None) -> Lineage:
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


def _model_label(speech: str, domains: tuple[str, ...], seed: int, held_out: int | None) -> str:
    what = domains[0] if len(domains) == 1 else f"{len(domains)}domains"
    return f"{speech}-{what}{'' if held_out is None else f'-without{held_out}'}-s{seed}"


def _transcribe(
    profile: Profile,
    model: Artifact | None,
    rows: pd.DataFrame,
    spec: VectorSpec | None,
    lams: Sequence[float],
    full: bool,
    file: Path,
) -> None:
    from syn2real_utils.evaluation import sweep

    torch.set_num_threads(profile.threads)
    asr = backbone(profile)
    size = min(profile.evaluation.batch_size, FULL_BATCH) if full else profile.evaluation.batch_size
    heard = asr.load(model.path if model else None)
    clips = [asr.features(path, full=full) for path in rows.path]
    tau = vector(profile, spec) if spec else None
    texts = sweep(asr, heard, tau, lams, clips, size) if tau else {0.0: asr.transcribe(heard, clips, size)}
    table = [
        {"lam": lam, "utterance": utterance, "hypothesis": hypothesis}
        for lam, said in texts.items()
        for utterance, hypothesis in zip(rows.utterance, said, strict=True)
    ]
    pd.DataFrame(table).to_csv(file, index=False, lineterminator="\n")
    del heard, tau
    machine.give_back_memory()


def _between(real: Artifact, syn: Artifact) -> TaskVector:
    return TaskVector.between(checkpoints.load_state(syn.path), checkpoints.load_state(real.path))


def _backbone_key(profile: Profile) -> dict:
    part = profile.backbone
    return part.model_dump(exclude={"name"}) | {"precision": machine.precision(part.precision)}


def _fingerprint_of(clip: Path) -> str:
    """Fingerprint of the artifact that a clip lies in: `<label>-<fingerprint>/clips/<domain>/<clip>`."""
    return clip.parents[2].name.rsplit("-", 1)[1]


@lru_cache(maxsize=4)
def _weights_hash(folder: Path) -> str:
    return checkpoints.weights_hash(folder)


@lru_cache(maxsize=2)
def _backbone(folder: Path, language: str, part: BackbonePart) -> "Whisper":
    from syn2real_utils.backbones.whisper import Whisper

    return Whisper(folder, language, part)
