"""Edit counts, intervals and p against tools that others wrote: kaldialign and NIST's SCTK (Debian's package sctk)."""

import math
import platform
import random
import re
import subprocess
from pathlib import Path

import kaldialign
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from syn2real_utils import fetch, statistics
from syn2real_utils.evaluation import rescore

WORDS = "uno dos tres cuatro cinco seis siete ocho".split()
INSTALLED = Path("/usr/lib/sctk/bin")
SCTK = (
    "sctk",
    "2.4.10-20151007-1312Z+dfsg2-3.1",
    "5fe1eab7c08f814d1fc130e73fa7b434be68d92a7503db2e2c6b880ab26f603e",
)  # Debian 12 on x86-64


def heard(reference: list[str], rate: float, dice: random.Random) -> list[str]:
    """What a bad recogniser makes of a sentence."""
    said = []
    for word in reference:
        chance = dice.random() / rate
        said += [dice.choice(WORDS)] if chance < 1 else [] if chance < 1.3 else [word]
        said += [dice.choice(WORDS)] if dice.random() < rate / 4 else []
    return said


@pytest.fixture(scope="module")
def sentences() -> list[list[str]]:
    dice = random.Random(0)
    return [[dice.choice(WORDS) for _ in range(dice.randint(1, 8))] for _ in range(150)]


def system(sentences: list[list[str]], rate: float, seed: int) -> pd.DataFrame:
    dice = random.Random(seed)
    texts = {
        "reference": [" ".join(s) for s in sentences],
        "hypothesis": [" ".join(heard(s, rate, dice)) for s in sentences],
    }
    names = [f"s{i % 10}-{i:03d}" for i in range(len(sentences))]
    rows = pd.DataFrame({"utterance": names, "text_id": names, "normaliser": "none", **texts})
    return rescore(rows, "reference", "hypothesis")


def split(rows: pd.DataFrame, column: str) -> list[list[str]]:
    return [text.split() for text in rows[column]]


def test_edits_are_those_of_kaldialign(sentences):
    rows = system(sentences, 0.3, 1)
    for row in rows.itertuples():
        found = kaldialign.edit_distance(row.reference.split(), row.hypothesis.split())
        assert (row.errors, row.n_words) == (found["total"], found["ref_len"])
        assert row.insertions - row.deletions == found["ins"] - found["del"]
        assert row.char_errors == kaldialign.edit_distance(row.reference, row.hypothesis)["total"]


def test_interval_is_that_of_kaldialign(sentences):
    rows = system(sentences, 0.3, 1)
    found = kaldialign.bootstrap_wer_ci(split(rows, "reference"), split(rows, "hypothesis"), replications=5000)
    low, high = statistics.wer_interval(rows, samples=5000)
    assert statistics.corpus_wer(rows) == pytest.approx(
        100 * found["wer"], abs=0.2
    )  # theirs is the mean of the resamples
    assert (low, high) == (
        pytest.approx(100 * found["ci95min"], abs=0.6),
        pytest.approx(100 * found["ci95max"], abs=0.6),
    )


@pytest.mark.parametrize("rate", [0.3, 0.26, 0.22])
def test_p_is_that_of_kaldialign(sentences, rate):
    before, after = system(sentences, 0.3, 1), system(sentences, rate, 2)
    texts = (split(before, "reference"), split(before, "hypothesis"), split(after, "hypothesis"))
    better, worse = (  # in how many resamples the one has fewer errors than the other
        kaldialign.bootstrap_wer_ci(texts[0], *both, replications=5000)["p_s2_improv_over_s1"]
        for both in (texts[1:], texts[:0:-1])
    )
    p = statistics.paired_change(after, before, samples=5000).p
    assert p == pytest.approx(min(1, 2 * min(1 - better, 1 - worse)), abs=0.03)  # a tie speaks for neither


def test_blocks_of_several_utterances_are_drawn_as_scipy_draws_them(sentences):
    """Blocks by text, where speakers are few, and by speaker; scipy draws sums of blocks, and sees no utterance."""
    before, after = system(sentences, 0.3, 1), system(sentences, 0.24, 2)
    for blocks, extra in ((30, {}), (12, {"speaker": True})):
        number = [i % blocks for i in range(len(sentences))]
        named = {"text_id": [f"t{n}" for n in number]} if not extra else {"speaker": [f"s{n}" for n in number]}
        one, other = before.assign(**named), after.assign(**named)
        sums = [rows.groupby(number).agg({"errors": "sum", "n_words": "sum"}) for rows in (one, other)]

        def change(a, b, axis):
            return 100 * (b.sum(axis) - a.sum(axis)) / a.sum(axis)

        found = scipy.stats.bootstrap(
            [part.errors.to_numpy() for part in sums], change, paired=True, vectorized=True, n_resamples=9999,
            method="percentile", rng=1,
        )  # fmt: skip
        ours = statistics.paired_change(other, one)
        assert (ours.low, ours.high) == pytest.approx(tuple(found.confidence_interval), abs=1.0)
        drawn = found.bootstrap_distribution
        p = 2 * min((drawn <= 0).mean(), (drawn >= 0).mean())
        assert ours.p == pytest.approx(min(1, p), abs=0.02)


def test_seeds_cross_the_texts_as_numpy_draws_them(sentences):
    """Both factors drawn by hand, utterance by utterance: an interval that counts seeds is as wide as that."""
    parts = [
        [system(sentences, rate, 10 * seed + which).assign(seed=seed, run=seed) for seed in range(4)]
        for which, rate in enumerate((0.3, 0.24))
    ]
    one, other = (pd.concat(rows, ignore_index=True) for rows in parts)
    before, after = ([rows.errors.to_numpy(float) for rows in part] for part in parts)
    dice, drawn = np.random.default_rng(3), []
    for _ in range(4000):
        texts, seeds = dice.integers(0, len(sentences), len(sentences)), dice.integers(0, 4, 4)
        a, b = (sum(rows[seed][texts].sum() for seed in seeds) for rows in (before, after))
        drawn.append(100 * (b - a) / a)
    ours = statistics.paired_change(other, one)
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1.2)


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """Where NIST's programs lie: those of this machine, else fetched from Debian, which needs no root."""
    if INSTALLED.is_dir():
        return INSTALLED
    if platform.machine() != "x86_64":
        pytest.skip("SCTK is not installed: apt-get install sctk")
    try:
        return fetch.debian_tree(*SCTK, tmp_path_factory.mktemp("sctk")) / INSTALLED.relative_to("/")
    except fetch.UnreachableError as error:
        pytest.skip(str(error))


@pytest.fixture
def sctk(programs, sentences, tmp_path):
    """Score systems with sclite; `sctk(name=rows, ...)` gives the folder with an .sgml of alignments for each."""

    def call(name: str, *arguments: str, given: bytes = b"") -> str:
        done = subprocess.run([programs / name, *arguments], cwd=tmp_path, input=given, capture_output=True, check=True)
        return done.stdout.decode()

    def run(**systems: pd.DataFrame):
        for name, rows in systems.items():
            for kind, column in (("ref", "reference"), ("hyp", "hypothesis")):
                lines = [
                    f"{text} ({utterance})\n" for text, utterance in zip(rows[column], rows.utterance, strict=True)
                ]
                (tmp_path / f"{name}.{kind}").write_text("".join(lines))
            call(
                "sclite",
                "-r",
                f"{name}.ref",
                "trn",
                "-h",
                f"{name}.hyp",
                "trn",
                name,
                "-i",
                "spu_id",
                "-o",
                "sgml",
                "-O",
                ".",
            )
        return call

    return run


def test_edits_are_those_of_sclite(sentences, sctk, tmp_path):
    rows = system(sentences, 0.3, 1)
    sctk(one=rows)
    marked = dict(
        re.findall(r'<PATH id="\(([^)]+)\)".*?>\n(.*?)\n?</PATH>', (tmp_path / "one.hyp.sgml").read_text(), re.S)
    )
    assert len(marked) == len(rows)
    equal = 0
    for row in rows.itertuples():
        kinds = "".join(part[0] for part in marked[row.utterance].split(":") if part)
        found = kaldialign.edit_distance(row.reference.split(), row.hypothesis.split(), sclite_mode=True)
        assert (
            sum(kind in "SDI" for kind in kinds) == found["total"] >= row.errors
        )  # its weights 4, 3, 3 may cost an edit more
        equal += found["total"] == row.errors
    assert equal >= 0.97 * len(rows)


@pytest.mark.parametrize("rate", [0.3, 0.25, 0.12])
def test_significance_is_that_of_the_matched_pairs_test(sentences, sctk, tmp_path, rate):
    before, after = system(sentences, 0.3, 1), system(sentences, rate, 2)
    call = sctk(one=before, two=after)
    given = b"".join((tmp_path / f"{name}.hyp.sgml").read_bytes() for name in ("one", "two"))
    call("sc_stats", "-p", "-t", "mapsswe", "-v", "-n", "found", given=given)
    said = (tmp_path / "found.stats.mapsswe").read_text(errors="replace")
    (z,), (differ,) = re.findall(r"Z Stat: (\S+)\)", said), re.findall(r"Stat Diff: (\w+)", said)
    p = statistics.paired_change(after, before, samples=5000).p
    assert (p < 0.05) == (differ == "Yes")
    assert p == pytest.approx(math.erfc(abs(float(z)) / 2**0.5), abs=0.06)  # theirs cuts sentences into segments
