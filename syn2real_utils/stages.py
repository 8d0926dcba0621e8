"""The graph: corpus -> synthetic -> finetuned -> vector -> transcripts.

Each stage is a plain function that asks the store for its fingerprint (inputs, the part of the profile that it reads, the
version of its code), returns at once when the artifact is there, and otherwise calls its upstream stages and makes it.
So any notebook runs alone, and a killed run goes on where it was.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pandas as pd

from syn2real_utils import checkpoints
from syn2real_utils.backbones import sources
from syn2real_utils.backbones.whisper import Example, Whisper
from syn2real_utils.checkpoints import Lineage
from syn2real_utils.corpora.base import check_domains, prepare, read_audiofolder
from syn2real_utils.errors import UserError, names
from syn2real_utils.evaluation import sweep
from syn2real_utils.profile import BackbonePart, Profile
from syn2real_utils.progress import say
from syn2real_utils.store import Artifact, Store, fingerprint, sha256
from syn2real_utils.training import finetune
from syn2real_utils.tts.base import synthesize
from syn2real_utils.vectors import TaskVector

# Raise a stage's number when its code would make something else from the same inputs.
VERSIONS = {"corpus": 1, "synthetic": 1, "model": 1, "vector": 1, "transcripts": 1}
REAL = "real"  # the kind of speech that is not some TTS


@dataclass(frozen=True)
class VectorSpec:
    """Which task vector: of the pooled source domains, or the mean or sum of one vector per domain."""

    kind: Literal["pooled", "mean", "sum"]
    tts: str
    domains: tuple[str, ...]
    seed: int


def corpus(profile: Profile) -> Artifact:
    """The corpus as an AudioFolder with folds."""
    part = profile.corpus
    key = {
        "version": VERSIONS["corpus"],
        "corpus": part.model_dump(),
        "folds": profile.evaluation.folds,
        "source": _user_files(part.path),
    }
    store = Store()
    return store.build(
        "data/corpora",
        f"{part.name}-{part.language}",
        key,
        lambda into: prepare(part, profile.evaluation.folds, store, into),
    )


def real_rows(profile: Profile) -> pd.DataFrame:
    """The real utterances of the profile's domains, with the `path` of each clip."""
    rows = read_audiofolder(corpus(profile).path)
    wanted = profile.targets if profile.sources == "all" else [*profile.targets, *profile.sources]
    check_domains(rows, wanted)
    return rows if profile.sources == "all" else rows[rows.domain.isin(wanted)].reset_index(drop=True)


def source_domains(profile: Profile, target: str) -> tuple[str, ...]:
    """The source domains of a target, sorted: the profile's sources but the target itself."""
    found = tuple(sorted(set(real_rows(profile).domain) - {target}))
    if len(found) < 2:
        raise UserError(
            f"target '{target}' has {len(found)} source domains: at least 2 are needed, add some to `sources`"
        )
    return found


def synthetic(profile: Profile, tts: str, domain: str) -> Artifact:
    """The texts of one domain spoken by one TTS engine, as an AudioFolder."""
    part, language = profile.tts_part(tts), profile.corpus.language
    rows = real_rows(profile)
    rows = rows[rows.domain == domain]
    texts = rows.drop_duplicates("text_id").sort_values("text_id")[["text_id", "transcription"]].values.tolist()
    key = {
        "version": VERSIONS["synthetic"],
        "tts": part.model_dump(),
        "language": language,
        "texts": texts,
        "folds": rows.fold.tolist(),
    }
    store = Store()
    return store.build(
        "data/synthetic", f"{tts}-{language}-{domain}", key, lambda into: synthesize(rows, part, language, store, into)
    )


def synthetic_rows(profile: Profile, tts: str, domains: Sequence[str]) -> pd.DataFrame:
    """The synthetic utterances of some domains that passed quality control."""
    rows = pd.concat(
        [read_audiofolder(synthetic(profile, tts, d).path, synthetic=True) for d in domains], ignore_index=True
    )
    return rows[rows.quality == "ok"].reset_index(drop=True)


def backbone(profile: Profile) -> Whisper:
    """The `pretrained` backbone, fetched and converted at first use."""
    return _backbone(sources.resolve(profile.backbone.name, Store()), profile.corpus.language, profile.backbone)


def training_rows(profile: Profile, speech: str, domains: Sequence[str], held_out: int | None) -> pd.DataFrame:
    """What a model is fine-tuned on: real speech or that of one TTS, without the texts of fold `held_out`."""
    if speech == REAL:
        rows = real_rows(profile)
        rows = rows[rows.domain.isin(domains)]
    else:
        rows = synthetic_rows(profile, speech, domains)
    return rows[rows.fold != held_out] if held_out is not None else rows


def finetuned(
    profile: Profile, speech: str, domains: Sequence[str], seed: int, held_out: int | None = None
) -> Artifact:
    """`pretrained` fine-tuned on real speech or on that of one TTS engine.

    real_source: `speech="real"`, the source domains. syn_source: a TTS, the source domains. syn_target: a TTS, the target
    domain, without the texts of the fold that is scored (`held_out`; None: all texts, protocol `catalogue`).
    """
    domains = sorted(domains)
    rows = training_rows(profile, speech, domains, held_out).sort_values("utterance")
    if rows.empty:
        raise UserError(f"no {speech} speech of {names(domains)} to train on")
    model = backbone(profile)
    parent = pretrained_hash(model.folder)
    key = {
        "version": VERSIONS["model"],
        "parent": parent,
        "backbone": profile.backbone.model_dump(exclude={"name"}),
        "training": profile.training.model_dump(exclude={"save_steps"}),
        "language": profile.corpus.language,
        "clips": [[name, text] for name, text in zip(rows.utterance, rows.transcription, strict=True)],
        "speech": [Path(p).parent.name for p in sorted({str(_audiofolder(p)) for p in rows.path})],
        "seed": seed,
        "threads": profile.threads,
    }
    part = "all" if held_out is None else f"without{held_out}"
    label = f"{speech}-{domains[0] if len(domains) == 1 else f'{len(domains)}domains'}-{part}-s{seed}"
    lineage = Lineage(
        kind="model",
        architecture=checkpoints.architecture(model.folder),
        parent=parent,
        corpus=f"{profile.corpus.name}-{profile.corpus.language}",
        speech=speech,
        domains=domains,
        held_out=held_out,
        seed=seed,
    )

    def make(into: Path) -> None:
        say(f"fine-tune on {speech} speech of {names(domains)}: {len(rows)} clips")
        examples = [
            Example(model.features(p), model.labels(t)) for p, t in zip(rows.path, rows.transcription, strict=True)
        ]
        finetune(model, examples, profile.training, seed, profile.threads, f"fine-tune {label}", into)
        checkpoints.write_lineage(into, lineage)

    return Store().build("runs/artifacts/models", label, key, make)


def task_vector(profile: Profile, spec: VectorSpec) -> Artifact:
    """tau = real_source - syn_source as a file of its own (of the pooled source domains)."""
    real, syn = pair(profile, spec.tts, spec.domains, spec.seed)
    key = {"version": VERSIONS["vector"], "real": real.fingerprint, "syn": syn.fingerprint}
    return Store().build(
        "runs/artifacts/vectors",
        f"{spec.tts}-{len(spec.domains)}domains-s{spec.seed}",
        key,
        lambda into: checkpoints.subtract(real.path, syn.path, into / "vector"),
    )


def pair(profile: Profile, tts: str, domains: Sequence[str], seed: int) -> tuple[Artifact, Artifact]:
    """real_source and syn_source of some domains."""
    return finetuned(profile, REAL, domains, seed), finetuned(profile, tts, domains, seed)


def vector(profile: Profile, spec: VectorSpec) -> TaskVector:
    """The task vector that a spec names, in memory."""
    if spec.kind == "pooled":
        return checkpoints.load_vector(task_vector(profile, spec).path / "vector")[0]
    parts = (domain_vector(profile, spec.tts, d, spec.seed) for d in spec.domains)
    return TaskVector.mean(parts) if spec.kind == "mean" else TaskVector.sum(parts)


def domain_vector(profile: Profile, tts: str, domain: str, seed: int) -> TaskVector:
    """tau of one source domain."""
    real, syn = pair(profile, tts, [domain], seed)
    return TaskVector.between(checkpoints.load_state(syn.path), checkpoints.load_state(real.path))


def transcripts(
    profile: Profile,
    model: Artifact | None,
    rows: pd.DataFrame,
    spec: VectorSpec | None = None,
    lams: Sequence[float] = (0.0,),
) -> pd.DataFrame:
    """What `model + lam * vector` hears in real clips.

    Args:
        model: a fine-tuned model; None: `pretrained`, which is heard with the full context of 30 s.
        rows: real utterances.
        spec: the vector; None: the model as it is.
        lams: scaling factors.

    Returns:
        `lam, utterance, hypothesis`.
    """
    asr = backbone(profile)
    key = {
        "version": VERSIONS["transcripts"],
        "model": model.fingerprint if model else pretrained_hash(asr.folder),
        "vector": _vector_key(profile, spec) if spec else None,
        "lams": list(lams),
        "corpus": corpus(profile).fingerprint,
        "utterances": rows.utterance.tolist(),
        "language": profile.corpus.language,
        "backbone": profile.backbone.model_dump(exclude={"name"}),
        "batch_size": profile.evaluation.batch_size,
        "threads": profile.threads,
    }

    def make(into: Path) -> None:
        import torch

        torch.set_num_threads(profile.threads)
        heard = asr.load(model.path if model else None)
        clips = [asr.features(p, full=model is None) for p in rows.path]
        batch = profile.evaluation.batch_size
        tau = vector(profile, spec) if spec else None
        texts = sweep(asr, heard, tau, lams, clips, batch) if tau else {0.0: asr.transcribe(heard, clips, batch)}
        table = [
            {"lam": lam, "utterance": u, "hypothesis": h}
            for lam, hs in texts.items()
            for u, h in zip(rows.utterance, hs, strict=True)
        ]
        pd.DataFrame(table).to_csv(into / "transcripts.csv", index=False)

    label = f"{model.path.name.rsplit('-', 1)[0] if model else 'pretrained'}{f'-{spec.kind}' if spec else ''}"
    found = Store().build("runs/artifacts/transcripts", label, key, make)
    return pd.read_csv(found.path / "transcripts.csv", keep_default_na=False)


@lru_cache(maxsize=4)
def pretrained_hash(folder: Path) -> str:
    """Hash of the pretrained weights: the parent in every lineage."""
    return checkpoints.weights_hash(folder)


@lru_cache(maxsize=2)
def _backbone(folder: Path, language: str, part: BackbonePart) -> Whisper:
    return Whisper(folder, language, part)
