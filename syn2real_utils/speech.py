"""Which speech there is: the corpus and what TTS engines make of its texts, and which of it is trained on and scored.

The first two stages of the graph (stages.py), and the choice of their rows.
"""

import os
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from syn2real_utils import machine, origins, text
from syn2real_utils.backbones.sources import carried
from syn2real_utils.corpora.base import assign_folds, check_domains, prepare, read_audiofolder
from syn2real_utils.errors import UserError, names
from syn2real_utils.lineage import REAL
from syn2real_utils.profile import Profile, TtsPart
from syn2real_utils.store import DONE, Artifact, Store, fingerprint, walk, write_text_atomic
from syn2real_utils.tts import speakers
from syn2real_utils.tts.base import check_tts, synthesize
from syn2real_utils.tts.quality import HEARD_BY

DEVEL = ("devel", "validation")  # names of the part on which protocol `paper` chooses
# Protocol `paper` where a corpus has no split of its own: the parts of each domain's texts, a quarter each, by hash. Our choice:
# the scored quarter is not smaller than the one that chooses, and half is left to train on.
PAPER_SPLIT = ("test", "devel", "train", "train")

VERSIONS = {"corpus": 1, "folder": 2, "synthetic": 1}  # raise a stage's number when its code would make something else
CORPORA, SYNTHETIC = "data/corpora", "data/synthetic"
MANY = 10_000
TEXTS = (".csv", ".json", ".jsonl", ".tsv")  # what a folder of speech says of itself
LATER = {"source": "official", "recordings": "all"}  # settings that came later: left out of the key at their defaults


def check(profile: Profile) -> None:
    """Raise UserError for what can be known to be wrong before anything is fetched: an unknown TTS, voice or language."""
    for part in profile.tts:
        own_voices = part.speakers not in (None, speakers.ARCTIC)  # known when their clips are
        check_tts(part.name, profile.corpus.language, None if own_voices else part.voices)


def corpus(profile: Profile) -> Artifact:
    """The corpus as an AudioFolder with folds."""
    part, folds, store = profile.corpus, profile.evaluation.folds, Store()
    kind, label, key = _corpus_address(profile)
    done = store.root / kind / f"{label}-{fingerprint(key)}" / DONE
    if done.is_file() and (artifact := _whole(done.parent, done.stat().st_mtime_ns)):
        return artifact
    return store.build(kind, label, key, lambda into: prepare(part, folds, store, into))


def has_corpus(profile: Profile) -> bool:
    """Whether the corpus was prepared already."""
    return Store().find(*_corpus_address(profile)) is not None


def real_rows(profile: Profile) -> pd.DataFrame:
    """The real utterances of the profile's domains, with the `path` of each clip.

    Protocol `paper`: each has a `split`, the corpus' own or that of `PAPER_SPLIT`.
    """
    rows = _recorded(profile)
    if profile.evaluation.protocol == "paper" and not (rows.split != "").any():
        rows["split"] = [PAPER_SPLIT[part] for part in assign_folds(rows, len(PAPER_SPLIT))]
    return rows


def _recorded(profile: Profile) -> pd.DataFrame:
    """The real utterances as the corpus has them."""
    rows = _read(corpus(profile).path).copy()
    named = [] if profile.sources == "all" else profile.sources
    check_domains(rows, [*profile.targets, *named])
    return rows[rows.domain.isin([*profile.targets, *named])].reset_index(drop=True) if named else rows


def source_domains(profile: Profile, target: str) -> tuple[str, ...]:
    """The source domains of a target, sorted: the profile's sources but the target and the other domains of its group."""
    rows = real_rows(profile)
    named = set(rows.domain) if profile.sources == "all" else set(profile.sources)
    found = tuple(sorted(named - set(group(profile, rows, profile.check_target(target)))))
    if len(found) < 2:
        raise UserError(
            f"target '{target}' has {len(found)} source domains: at least 2 are needed, add some to `sources`"
        )
    return found


def group(profile: Profile, rows: pd.DataFrame, target: str) -> tuple[str, ...]:
    """The domains that are no source of a target: its group's, or itself alone.

    Args:
        profile: with its `groups`.
        rows: the corpus: `domain, transcription`.
        target: one of the profile's.
    """
    if isinstance(profile.groups, int):
        groups = _divided(rows[rows.domain.isin(profile.targets)], profile.groups)
    else:
        groups = [tuple(sorted(domains)) for domains in (profile.groups or {}).values()]
        check_domains(rows, [domain for domains in groups for domain in domains])
    return next((domains for domains in groups if target in domains), (target,))


def selection_domains(profile: Profile, rows: pd.DataFrame, sources: Sequence[str]) -> tuple[str, ...]:
    """Those of a target's source domains that are left out in turn to choose lam, sorted.

    Args:
        profile: with its `evaluation.selection_domains`; a number means the domains of the most clips.
        rows: the corpus: `domain`.
        sources: of the target.
    """
    wanted = profile.evaluation.selection_domains
    if wanted is None:
        return tuple(sources)
    if isinstance(wanted, int):
        clips = rows.domain.value_counts()
        return tuple(sorted(sorted(sources, key=lambda domain: (-clips[domain], domain))[:wanted]))
    check_domains(rows, wanted)
    if not (found := tuple(sorted(set(wanted) & set(sources)))):
        raise UserError(
            f"none of the selection_domains {names(wanted)} is a source domain: use some of {names(sources)}"
        )
    return found


def check_domains_and_folds(profile: Profile) -> None:
    """Raise UserError unless every target has source domains, and every domain has clips in every fold."""
    for target in profile.targets:
        sources = source_domains(profile, target)
        selection_domains(profile, real_rows(profile), sources)
        for domain in (target, *sources):
            for fold in folds(profile):
                test_rows(profile, domain, fold)
        if profile.evaluation.protocol == "paper":
            devel_rows(profile, [target])


def synthetic(profile: Profile, tts: str, domain: str) -> Artifact:
    """The texts of one domain of the corpus spoken by one TTS engine, as an AudioFolder."""
    check(profile)
    rows = to_speak(profile)
    rows = rows[rows.domain == domain]
    if rows.empty:
        raise UserError(f"domain '{domain}' has no text to train on: all its clips are of the devel or test part")
    return spoken_texts(profile, tts, rows)


def to_speak(profile: Profile) -> pd.DataFrame:
    """The real utterances whose texts are spoken, the same in every protocol but `catalogue`.

    Where the corpus has a split, texts of its devel and test parts are not trained on, so they need no speech.
    """
    rows = _recorded(profile)
    return rows if profile.evaluation.protocol == "catalogue" else rows[rows.split.isin(["", "train"])]


def spoken_texts(profile: Profile, tts: str, rows: pd.DataFrame) -> Artifact:
    """Texts of one domain, of whatever origin, spoken by one TTS engine, as an AudioFolder."""
    part, language, store = profile.tts_part(tts), profile.corpus.language, Store()
    settled = with_speakers(profile, part)
    columns = ["text_id", "transcription", "split", "fold"]
    texts = rows.drop_duplicates("text_id").sort_values("text_id")[columns].astype(str).values.tolist()
    key: dict[str, object] = {
        "version": VERSIONS["synthetic"],
        "text": text.version(language),
        "tts": part.identity(),
        "language": language,
        "texts": texts,
    }
    if (
        settled.speakers != part.speakers
    ):  # an artifact of the store: its name holds the hash of the clips, wherever it lies
        key["tts"] = part.identity() | {"speakers": Path(str(settled.speakers)).name}
    if files := _user_files(part.model):
        key["model"] = files
    if part.round_trip and not carried(part.round_trip.asr) and (files := _user_files(part.round_trip.asr)):
        key["asr"] = files
    if part.round_trip:
        key["heard"] = HEARD_BY  # what is kept of it
    listen = partial(_listen, part.round_trip.asr, language) if part.round_trip else None
    label = f"{tts}-{language}-{rows.domain.iloc[0]}"

    def make(into: Path) -> None:
        workers = int(os.environ.get("SYN2REAL_WORKERS") or profile.threads)  # set by the workflow
        synthesize(rows, settled, language, store, into, workers, listen)
        said = origins.terms(origins.of_synthetic(profile, [tts]))
        write_text_atomic(into / origins.LICENCE, "\n".join(said) + "\n")

    return store.build(SYNTHETIC, label, key, make)


def with_speakers(profile: Profile, part: TtsPart) -> TtsPart:
    """A TTS part whose speakers are a folder of x-vectors in the store, where they are those of real clips.

    `source` takes the clips of the source domains that are no target: of a target, nothing but texts may be seen.
    """
    if part.speakers in (None, speakers.ARCTIC):
        return part
    source = origins.VOICES
    if part.speakers != speakers.SOURCE:
        clips = speakers.clips_of_folder(Path(str(part.speakers)))
    else:
        source = origins.of_corpus(profile)
        rows = real_rows(profile)
        rows = rows[~rows.domain.isin(profile.targets) & rows.split.isin(["", "train"]) & (rows.speaker != "")]
        clips = {str(name): [Path(path) for path in group.path] for name, group in rows.groupby("speaker")}
        if not clips:
            raise UserError(
                f"TTS '{part.name}' has speakers: source, but no clip with a known speaker lies outside the targets "
                f"{names(profile.targets)}: name a folder of clips, or {speakers.ARCTIC}"
            )
    found = speakers.from_clips(clips, Store(), part.model, source)
    return part.model_copy(update={"speakers": str(found.path)})


def _listen(asr: str, language: str, clips: list[Path]) -> list[str]:
    from syn2real_utils.transcription import transcribe  # imports transformers, which takes seconds

    with machine.enough_memory(f"the ASR {asr} of a round trip"):
        return [transcript.text for transcript in transcribe(asr, clips, language)]


def synthetic_rows(profile: Profile, tts: str, domains: Sequence[str]) -> pd.DataFrame:
    """All synthetic utterances of some domains; `quality` says what is wrong with a clip, or "ok"."""
    folders = [synthetic(profile, tts, domain).path for domain in domains]
    rows = pd.concat([_read(folder, synthetic=True) for folder in folders], ignore_index=True)
    if profile.evaluation.protocol == "paper":  # the speech is that of every protocol, the split may be this one's own
        real = real_rows(profile)
        rows["split"] = np.where(rows.text_id.isin(real.text_id[real.split == "train"]), "train", DEVEL[0])
    return rows


def training_rows(
    profile: Profile, speech: str, domains: Sequence[str], held_out: int | None = None, known: bool = False
) -> pd.DataFrame:
    """What a model is fine-tuned on: real speech or that of one TTS, without the texts of fold `held_out`.

    Where the corpus has an official split: its train part and, of synthetic speech, no text that its test part holds, unless
    the texts are `known` (protocol `catalogue`). Synthetic clips that quality control flagged are left out.
    """
    real = real_rows(profile)
    real = real[real.domain.isin(domains)]
    rows = real
    if speech != REAL:
        rows = synthetic_rows(profile, speech, domains)
        rows = rows[rows.quality == "ok"]
        if not known:
            rows = rows[~rows.text_id.isin(real.text_id[real.split == "test"])]
    if not known:
        rows = rows[rows.split.isin(["", "train"])]
    if held_out is not None:
        rows = rows[rows.fold != held_out]
    if rows.empty:
        raise UserError(f"no {speech} speech of {names(domains)} to train on: see the reports of corpus and TTS")
    return rows.sort_values("utterance").reset_index(drop=True)


def test_rows(profile: Profile, domain: str, fold: int | None) -> pd.DataFrame:
    """The real utterances of a domain that are scored: of one fold, or of the official test part."""
    rows = real_rows(profile)
    rows = rows[(rows.domain == domain) & rows.split.isin(["", "test"]) & ((rows.fold == fold) | (fold is None))]
    if rows.empty:
        raise UserError(f"domain '{domain}' has no real clips to score{'' if fold is None else f' in fold {fold}'}")
    return rows.reset_index(drop=True)


def devel_rows(profile: Profile, domains: Sequence[str]) -> pd.DataFrame:
    """The real utterances of some domains that choose checkpoint and lam in protocol `paper`; never those that are scored."""
    rows = real_rows(profile)
    rows = rows[rows.domain.isin(domains) & rows.split.isin(DEVEL)]
    if lacking := sorted(set(domains) - set(rows.domain)):
        raise UserError(
            f"protocol paper chooses on real clips of a devel part: domain '{lacking[0]}' has none, "
            "give some the split 'validation' or use another protocol"
        )
    return rows.reset_index(drop=True)


def judges(profile: Profile, domains: Sequence[str]) -> list[str]:
    """Domains whose devel part chooses the checkpoint of a model (protocol `paper`, as in the released code).

    A model of one domain: that domain. One of several source domains: the targets that it serves.
    """
    if len(domains) == 1:
        return list(domains)
    served = [target for target in profile.targets if set(source_domains(profile, target)) == set(domains)]
    if not served:
        raise UserError(f"no target of profile {profile.name} has the source domains {names(domains)}")
    return served


def folds(profile: Profile) -> list[int | None]:
    """The parts of a domain that are scored in turn; [None]: all at once.

    All at once where the texts are known (protocol `catalogue`) and where there is a split: the corpus' own, or that of
    protocol `paper`.
    """
    if profile.evaluation.protocol == "catalogue" or (real_rows(profile).split != "").any():
        return [None]
    return list(range(profile.evaluation.folds))


def _divided(rows: pd.DataFrame, n: int) -> list[tuple[str, ...]]:
    """The domains of some rows in n groups of about as many words: each, from the largest on, joins the smallest group."""
    words = rows.transcription.str.split().str.len().groupby(rows.domain).sum()
    groups: list[list[str]] = [[] for _ in range(n)]
    for domain in sorted(words.index, key=lambda domain: (-words[domain], domain)):
        min(groups, key=lambda members: int(words[members].sum())).append(domain)
    return [tuple(sorted(members)) for members in groups]


@lru_cache(maxsize=64)
def _read(folder: Path, synthetic: bool = False) -> pd.DataFrame:
    """Rows of an artifact, read once: the clip of each of 70,000 rows is looked up, and what the store holds never changes."""
    return read_audiofolder(folder, synthetic)


@lru_cache(maxsize=8)
def _whole(folder: Path, _: int) -> Artifact | None:
    """A corpus of the store, if none of its files is missing or cut short: looked at once, for it may have 70,000 of them."""
    artifact = Artifact(folder, folder.name.rsplit("-", 1)[1])
    return None if artifact.damage() else artifact


def _corpus_address(profile: Profile) -> tuple[str, str, dict]:
    part = profile.corpus
    key = {
        "version": VERSIONS["corpus"],
        "text": text.version(part.language),
        "corpus": part.model_dump(mode="json", exclude={k for k in LATER if getattr(part, k) == LATER[k]}),
        "folds": profile.evaluation.folds,
        "files": _user_files(part.path),
    }
    if part.name == "folder":
        key["clean"] = VERSIONS["folder"]
    return CORPORA, f"{part.name}-{part.language}", key


def _user_files(path: str | None) -> list[list[object]] | None:
    """Name, size and time of every file of a user's folder: when one changes, the corpus is prepared anew.

    Of a folder of more than `MANY` files only the `TEXTS`, how many files there are and when one came or went: it is looked
    at at every step.
    """
    if path is None or not Path(path).expanduser().is_dir():
        return None
    found: list[tuple[Path, int, int]] = []
    for here, files in walk(Path(path).expanduser()):
        if len(files) > MANY:
            found.append((here, len(files), here.stat().st_mtime_ns))
            files = [name for name in files if Path(name).suffix in TEXTS]
        stats = [(here / name, (here / name).stat()) for name in files if (here / name).is_file()]
        found += [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
    return [[str(file.relative_to(Path(path).expanduser())), size, time] for file, size, time in sorted(found)]
