"""Which speech there is: the corpus and what TTS engines make of its texts, and which of it is trained on and scored.

The first two stages of the graph (stages.py), and the choice of their rows.
"""

import os
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd

from syn2real_utils import text
from syn2real_utils.corpora.base import check_domains, prepare, read_audiofolder
from syn2real_utils.errors import UserError, names
from syn2real_utils.lineage import REAL
from syn2real_utils.profile import Profile, TtsPart
from syn2real_utils.store import DONE, Artifact, Store, fingerprint
from syn2real_utils.tts import speakers
from syn2real_utils.tts.base import check_tts, synthesize

VERSIONS = {"corpus": 1, "synthetic": 1}  # raise a stage's number when its code would make something else
CORPORA, SYNTHETIC = "data/corpora", "data/synthetic"
MANY = 10_000
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
    """The real utterances of the profile's domains, with the `path` of each clip."""
    rows = read_audiofolder(corpus(profile).path)
    named = [] if profile.sources == "all" else profile.sources
    check_domains(rows, [*profile.targets, *named])
    return rows[rows.domain.isin([*profile.targets, *named])].reset_index(drop=True) if named else rows


def source_domains(profile: Profile, target: str) -> tuple[str, ...]:
    """The source domains of a target, sorted: the profile's sources but the target itself."""
    rows = real_rows(profile)
    named = set(rows.domain) if profile.sources == "all" else set(profile.sources)
    found = tuple(sorted(named - {profile.check_target(target)}))
    if len(found) < 2:
        raise UserError(
            f"target '{target}' has {len(found)} source domains: at least 2 are needed, add some to `sources`"
        )
    return found


def check_domains_and_folds(profile: Profile) -> None:
    """Raise UserError unless every target has source domains, and every domain has clips in every fold."""
    for target in profile.targets:
        for domain in (target, *source_domains(profile, target)):
            for fold in folds(profile):
                test_rows(profile, domain, fold)


def synthetic(profile: Profile, tts: str, domain: str) -> Artifact:
    """The texts of one domain of the corpus spoken by one TTS engine, as an AudioFolder."""
    check(profile)
    rows = real_rows(profile)
    return spoken_texts(profile, tts, rows[rows.domain == domain])


def spoken_texts(profile: Profile, tts: str, rows: pd.DataFrame) -> Artifact:
    """Texts of one domain, of whatever origin, spoken by one TTS engine, as an AudioFolder."""
    part, language, store = profile.tts_part(tts), profile.corpus.language, Store()
    settled = with_speakers(profile, part)
    columns = ["text_id", "transcription", "split", "fold"]
    texts = rows.drop_duplicates("text_id").sort_values("text_id")[columns].astype(str).values.tolist()
    key: dict[str, object] = {
        "version": VERSIONS["synthetic"],
        "text": text.VERSION,
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
    listen = partial(_listen, part.round_trip.asr, language) if part.round_trip else None
    label = f"{tts}-{language}-{rows.domain.iloc[0]}"
    return store.build(
        SYNTHETIC, label, key, lambda into: synthesize(rows, settled, language, store, into, profile.threads, listen)
    )


def with_speakers(profile: Profile, part: TtsPart) -> TtsPart:
    """A TTS part whose speakers are a folder of x-vectors in the store, where they are those of real clips.

    `source` takes the clips of the source domains that are no target: of a target, nothing but texts may be seen.
    """
    if part.speakers in (None, speakers.ARCTIC):
        return part
    if part.speakers != speakers.SOURCE:
        clips = speakers.clips_of_folder(Path(str(part.speakers)))
    else:
        rows = real_rows(profile)
        rows = rows[~rows.domain.isin(profile.targets) & rows.split.isin(["", "train"]) & (rows.speaker != "")]
        clips = {str(name): [Path(path) for path in group.path] for name, group in rows.groupby("speaker")}
        if not clips:
            raise UserError(
                f"TTS '{part.name}' has speakers: source, but no clip with a known speaker lies outside the targets "
                f"{names(profile.targets)}: name a folder of clips, or {speakers.ARCTIC}"
            )
    found = speakers.from_clips(clips, Store(), part.model)
    return part.model_copy(update={"speakers": str(found.path)})


def _listen(asr: str, language: str, clips: list[Path]) -> list[str]:
    from syn2real_utils.transcription import transcribe  # imports transformers, which takes seconds

    return [transcript.text for transcript in transcribe(asr, clips, language)]


def synthetic_rows(profile: Profile, tts: str, domains: Sequence[str]) -> pd.DataFrame:
    """All synthetic utterances of some domains; `quality` says what is wrong with a clip, or "ok"."""
    folders = [synthetic(profile, tts, domain).path for domain in domains]
    return pd.concat([read_audiofolder(folder, synthetic=True) for folder in folders], ignore_index=True)


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


def folds(profile: Profile) -> list[int | None]:
    """The parts of a domain that are scored in turn; [None]: all at once.

    All at once where the texts are known (protocol `catalogue`) and where the corpus has an official split.
    """
    if profile.evaluation.protocol == "catalogue" or (real_rows(profile).split != "").any():
        return [None]
    return list(range(profile.evaluation.folds))


@lru_cache(maxsize=8)
def _whole(folder: Path, _: int) -> Artifact | None:
    """A corpus of the store, if none of its files is missing or cut short: looked at once, for it may have 70,000 of them."""
    artifact = Artifact(folder, folder.name.rsplit("-", 1)[1])
    return None if artifact.damage() else artifact


def _corpus_address(profile: Profile) -> tuple[str, str, dict]:
    part = profile.corpus
    key = {
        "version": VERSIONS["corpus"],
        "text": text.VERSION,
        "corpus": part.model_dump(mode="json", exclude={k for k in LATER if getattr(part, k) == LATER[k]}),
        "folds": profile.evaluation.folds,
        "files": _user_files(part.path),
    }
    return CORPORA, f"{part.name}-{part.language}", key


def _user_files(path: str | None) -> list[list[object]] | None:
    """Name, size and time of every file of a user's folder: when one changes, the corpus is prepared anew.

    Of a folder of more than `MANY` files only how many there are and when one came or went: it is looked at at every step.
    """
    if path is None or not Path(path).expanduser().is_dir():
        return None
    found: list[tuple[Path, int, int]] = []
    for folder, _, files in os.walk(Path(path).expanduser()):
        here = Path(folder)
        if len(files) > MANY:
            found.append((here, len(files), here.stat().st_mtime_ns))
        else:
            stats = [(here / name, (here / name).stat()) for name in files if (here / name).is_file()]
            found += [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
    return [[str(file.relative_to(Path(path).expanduser())), size, time] for file, size, time in sorted(found)]
