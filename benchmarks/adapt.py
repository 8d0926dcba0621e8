"""What `syn2real adapt` says against what is true, and what it forgets: every domain of a carried corpus as a user's own.

    python benchmarks/adapt.py --language es --backbone base --tts pico -o figures/adapt-es

For each domain: its texts alone go in, then its real clips are heard by `pretrained`, `syn_target`, `adapted` and what `--keep`
makes of it, padded to 30 s as a pipeline hears them; so are a few clips of the corpus' other domains, and of another corpus. A
vector that heard speech of the domain is not used; what it promises was measured on all targets of its run, this one among them.
The folder gets rows.csv (a row per model and clip), verdicts.csv (what adapt said), truth.csv (both together), forgetting.csv
(each model against pretrained, over all domains) and before_after.png, which `syn2real figures` makes again. What stands in rows.csv is not heard again, so a second call
with `--keep` adds its models alone; nothing in the store is made again, and verdicts' minutes are what was left to do.
"""

import argparse
import os
import shutil
import time
from pathlib import Path

import pandas as pd

from syn2real_utils import beforeafter, checkpoints, machine, ready, stages
from syn2real_utils.adapt import adapt
from syn2real_utils.corpora.base import read_audiofolder
from syn2real_utils.evaluation import score
from syn2real_utils.handover import Adapted
from syn2real_utils.profile import Profile, load_profile
from syn2real_utils.progress import say
from syn2real_utils.store import Artifact, home, write_text_atomic

AT_LEAST = 30  # real clips of a domain: fewer prove nothing
EACH, OTHERS = 6, 48  # clips of each other domain of the corpus, and of the other corpus, by the hash of their texts
PHRASES = {"tuxpaint": None, "asterisk": ("calls", "conference", "voicemail")}  # no single letters and numbers


def main() -> None:
    """Every domain in turn."""
    given = arguments()
    own, other = (scoring(given, name) for name in (given.corpus, given.outside))
    rows, foreign = (read_audiofolder(stages.corpus(profile).path) for profile in (own, other))
    counts = rows.domain.value_counts()
    domains = given.domains.split(",") if given.domains else sorted(counts.index[counts >= AT_LEAST])
    panels = [("others", own, sample(rows, EACH)), ("outside", other, few(foreign, given.outside))]
    for domain in domains:
        if lacking := [name for name in models(given) if (domain, name) not in done(given.out)]:
            heard = [("own", own, rows[rows.domain == domain].reset_index(drop=True)), *panels]
            one_domain(given, domain, heard, lacking)
            beforeafter.redraw(given.out)  # after each: a call may be stopped


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--language", default="es")
    parser.add_argument("--backbone", default="base")
    parser.add_argument("--tts", default="pico", help="one or more, with commas")
    parser.add_argument("--corpus", default="tuxpaint")
    parser.add_argument("--outside", default="asterisk", help="the corpus that shows what was forgotten")
    parser.add_argument("--domains", default="", help=f"with commas; all with at least {AT_LEAST} clips")
    parser.add_argument("--vector", default="auto", choices=["auto", "none"])
    parser.add_argument("--keep", default="", help="shares of the pretrained weights to be heard too, with commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    return parser.parse_args()


def models(given: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Name -> the options of `adapt` that make it; `pretrained` is made by none."""
    kept = {f"keep {share}": {"keep": float(share)} for share in given.keep.split(",") if share}
    return {"pretrained": {}, "syn_target": {"vector": "none"}, "adapted": {}} | kept


def one_domain(
    given: argparse.Namespace, domain: str, heard: list[tuple[str, Profile, pd.DataFrame]], lacking: list[str]
) -> None:
    """Make the models, write what was said and then what is true."""
    start, texts = time.perf_counter(), heard[0][2].drop_duplicates("text_id").transcription
    work = home() / "runs" / "bench-adapt" / domain
    work.mkdir(parents=True, exist_ok=True)
    write_text_atomic(work / f"{domain}.txt", "\n".join(texts) + "\n")
    how = {"vector": choose(given, domain, heard[0][1]), "threads": threads(), "overwrite": True, "domain": domain}
    call = (work / f"{domain}.txt", given.language, given.backbone, given.tts.split(","))
    made = {
        name: adapt(*call, work / name, seed=given.seed, **how | models(given)[name])
        for name in lacking
        if name != "pretrained"
    }
    minutes = (time.perf_counter() - start) / 60
    found = {name: artifact(work / name) if name in made else None for name in lacking}
    table = pd.concat([hear(name, model, *panel) for name, model in found.items() for panel in heard])
    if "adapted" in made:
        append(pd.DataFrame([verdict(given, domain, made["adapted"], minutes)]), given.out / "verdicts.csv", ["domain"])
    # last, for a domain counts as done by its rows: a kill before loses nothing but time
    append(
        table.assign(domain=domain)[list(beforeafter.ROWS)],
        given.out / "rows.csv",
        ["domain", "model", "place", "utterance"],
    )
    shutil.rmtree(work)


def verdict(given: argparse.Namespace, domain: str, made: Adapted, minutes: float) -> dict[str, object]:
    """What was said of a domain, and how it was made."""
    said = {"domain": domain, "language": given.language, "backbone": given.backbone, "tts": given.tts}
    said |= {"texts": len(made.texts.kept), "vector": "+".join(v.name for v in made.vectors) or "none", "lam": made.lam}
    said |= {"go": made.go, "reason": made.reason, "minutes": round(minutes, 1), "seed": given.seed}
    return said | {"commit": machine.commit(), "machine": machine.about()["machine"]}


def hear(name: str, model: Artifact | None, place: str, profile: Profile, rows: pd.DataFrame) -> pd.DataFrame:
    """Counted rows of one model on some clips, padded to 30 s."""
    found = stages.transcripts(profile, model, rows, full=True).set_index("utterance").hypothesis[rows.utterance]
    counted = score(rows, found, profile.corpus.language)
    return counted.assign(model=name, place=place, corpus=profile.corpus.name, heard=rows.domain.to_numpy())


def choose(given: argparse.Namespace, domain: str, profile: Profile) -> str:
    """`auto`, which prefers vectors that did not hear the domain; none where there is none of those for each TTS."""
    there = ready.find(stages.parent(profile), given.language, given.tts.split(","))
    clean = {vector.tts for vector in there if domain not in vector.domains}
    return "auto" if given.vector == "auto" and clean.issuperset(given.tts.split(",")) else "none"


def scoring(given: argparse.Namespace, corpus: str) -> Profile:
    """A profile that reads the whole of a corpus."""
    values = {"corpus.name": corpus, "corpus.language": given.language, "corpus.max_utterances": None}
    return load_profile("quickstart", values | {"backbone.name": given.backbone, "threads": threads()})


def sample(rows: pd.DataFrame, each: int) -> pd.DataFrame:
    """So many clips of each domain, by the hash of their texts."""
    return rows.sort_values(["text_id", "utterance"]).groupby("domain").head(each).reset_index(drop=True)


def few(rows: pd.DataFrame, corpus: str) -> pd.DataFrame:
    """Clips of another corpus."""
    kept = rows[rows.domain.isin(PHRASES[corpus] or rows.domain)]
    return sample(kept, OTHERS // kept.domain.nunique())


def artifact(folder: Path) -> Artifact:
    """A model folder as what the store would know it by."""
    return Artifact(folder, checkpoints.weights_hash(folder))


def append(table: pd.DataFrame, file: Path, key: list[str]) -> None:
    """Add rows to a CSV in the place of those of the same key; it is replaced when they are whole."""
    before = [pd.read_csv(file)] if file.is_file() else []
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(
        file, pd.concat([*before, table]).drop_duplicates(key, keep="last").to_csv(index=False, lineterminator="\n")
    )


def done(folder: Path) -> set[tuple[str, str]]:
    """Domain and model of what was heard."""
    file = folder / "rows.csv"
    return set(pd.read_csv(file)[["domain", "model"]].itertuples(index=False, name=None)) if file.is_file() else set()


def threads() -> int:
    """Of torch; results are the same bytes for the same number only."""
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


if __name__ == "__main__":
    main()
    say("done")
