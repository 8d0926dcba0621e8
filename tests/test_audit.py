"""Raw scoring and the scoring audit."""

import numpy as np
import pandas as pd
import pytest

from syn2real_utils import anatomy, audit, figures_errors, statistics, tables
from syn2real_utils.errors import UserError
from syn2real_utils.evaluation import rescore, score
from tests.made import utterances


def scored(*pairs: tuple[str, str]) -> pd.DataFrame:
    """Rows of `(transcription, hypothesis)`."""
    texts = {"utterance": [f"u{i}" for i in range(len(pairs))], "text_id": [f"{i:012x}" for i in range(len(pairs))]}
    rows = pd.DataFrame(texts | {"fold": 0, "duration": 1.0, "transcription": [said for said, _ in pairs]})
    return score(rows, [heard for _, heard in pairs], "es")


def test_raw_scoring_counts_what_normalisation_takes_away():
    rows = scored(("¡El 5 perro!", "El cinco perro."), ("Sol", "sol"))
    assert rows.errors.tolist() == [0, 0] and rows.raw_reference.tolist() == ["¡El 5 perro!", "Sol"]
    assert rows.raw_hypothesis.tolist() == ["El cinco perro.", "sol"]
    as_released = rescore(rows)
    assert as_released.errors.tolist() == [3, 1]  # "¡El 5 perro!" against "el cinco perro"
    assert rescore(rows, "raw_reference", "raw_hypothesis").errors.tolist() == [3, 1]
    assert set(as_released.normaliser) == {"basic-es/2 raw_reference:hypothesis"}
    assert as_released.hypothesis.equals(rows.hypothesis) and as_released.reference.equals(rows.reference)
    with pytest.raises(UserError, match="no column raw_reference: score them again"):
        rescore(rows.drop(columns="raw_reference"))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "seconds", "kind"),
    [
        ("un perro", "un perro un perro un perro un perro", 1.0, "loop"),
        ("no", "no no no", 1.0, "loop"),
        ("no no no", "no no no", 1.0, ""),  # as it was said
        ("no no no", "no no no no", 1.0, ""),
        ("", "gracias por ver el video", 1.0, "hallucination"),
        ("", "", 1.0, ""),
        ("un perro", "un perro que come en el parque", 3.0, "hallucination"),
        ("sol", "el sol", 1.0, ""),
        ("una ballena", "buena bad dinner", 0.92, ""),  # misheard, and no more
        ("uno", "jk xyz wvuq zzzz", float("nan"), "hallucination"),
        ("sol y mar", "los hipopótamos caminan", 0.6, "hallucination"),  # 21 letters and more in 0.6 s
        ("un oso", "", 1.0, ""),
    ],
)
def test_loops_and_hallucinations(reference, hypothesis, seconds, kind):
    assert audit.kind_of(reference, hypothesis, seconds) == kind


def test_repeats_counts_phrases_not_words():
    assert [audit.repeats(text.split()) for text in ("", "a", "a b", "a a", "a b a b a b", "a b c a b c x")] == [
        0,
        1,
        1,
        2,
        3,
        2,
    ]


def test_the_audit_agrees_with_the_error_rates_and_has_the_floor():
    rows = utterances()
    found, wer = audit.audit_table(rows), statistics.wer_table(rows, 50)
    for row in found.itertuples():
        said = tables.headline(wer, row.target, row.tts)[row.model]
        assert row.wer == pytest.approx(said.wer) and row.n_words == said.n_words
        assert row.substitutions + row.deletions + row.insertions == pytest.approx(row.wer, abs=3e-4)
        assert row.floor == 100 and row.wer_raw_reference >= row.floor  # "Uno, dos, tres." is never "uno dos tres"
    assert found.target.tolist()[-1] == "all" and (found.hallucinations == 0).all()


def test_examples_of_loops_come_with_how_many_there_are():
    rows = utterances()
    own = (rows.model == "pretrained") & (rows.tts == "pico") & (rows.target == "food")
    rows.loc[own, "hypothesis"] = "uno dos uno dos uno dos uno dos"
    found = audit.hallucinations_table(rows, most=2)
    found = found[(found.model == "pretrained") & (found.tts == "pico") & (found.target == "food")]
    assert found["rank"].tolist() == [1, 2] and set(found.of) == {12} and set(found.kind) == {"loop"}
    table = audit.audit_table(rows)
    assert table.query("tts == 'pico' and model == 'pretrained' and target == 'food'").loops.tolist() == [100]


def test_quality_stands_beside_the_gain():
    from tests.made import synthetic

    changes = statistics.changes_table(utterances(), samples=50)
    found = audit.quality_table(synthetic(), changes)
    assert (
        len(found) == 4
        and set(found.pace) == {0.8}
        and set(found.flagged) == {10.0}
        and found.cer_synthetic.isna().all()
    )
    heard = audit.quality_table(synthetic().assign(char_errors=3, n_chars=60), changes)
    assert set(heard.cer_synthetic) == {5.0}
    ranks = audit.rank_correlation(pd.Series([1.0, 2, 3, None]), pd.Series([9.0, 4, 1, 7]))
    assert ranks == pytest.approx(-1) and pd.isna(audit.rank_correlation(pd.Series([1.0, 2]), pd.Series([1.0, 2])))


def test_a_rank_correlation_has_the_p_of_chance():
    five = pd.Series([1.0, 2, 3, 4, 5])
    assert audit.rank_p(five, five**2) == pytest.approx(2 / 120, abs=0.004), (
        "two of the 120 orders are as far from none"
    )
    assert audit.rank_p(five, -five) == audit.rank_p(five, five), "either way"
    assert audit.rank_p(five, pd.Series([1.0, 4, 5, 3, 1])) > 0.5 and pd.isna(audit.rank_p(five, five * 0))
    many = pd.DataFrame({"target": [f"d{i}" for i in range(8)], "tts": "pico", "flagged": 0.0, "cer_synthetic": np.nan})
    many = many.assign(
        pace=range(8), relative_change=[1, -3, 2, 0, -1, 3, -2, 1], ci_low=-9.0, ci_high=9.0, protocol="strict"
    )
    figure = figures_errors.quality(many)
    assert "(not significant)" in figure.axes[0].get_title(loc="left")
    assert figure.get_supxlabel().startswith("Protocol strict. ") and "permutations" in figure.get_supxlabel()


def test_the_anatomy_sums_to_the_whole():
    rows = utterances()
    table = anatomy.anatomy_table(rows, samples=100)
    changes = statistics.changes_table(rows, samples=100)
    for tts in ("kokoro", "pico"):
        whole = changes[
            (changes.tts == tts) & (changes.target == "all") & (changes.model == "adapted") & (changes.lam == 0.5)
        ]
        for by in ("domain", "words", "seconds"):
            part = table[(table.tts == tts) & (table.by == by)]
            assert part.n_words.sum() == 72
            difference = (part.difference * part.n_words).sum() / part.n_words.sum()
            assert difference == pytest.approx(whole.difference.iloc[0], abs=1e-3)
        assert table[(table.tts == tts) & (table.by == "domain")].value.tolist() == ["animals", "food"]
    assert set(table.value[table.by == "words"]) == {"3 words"}


def test_words_are_counted_once_for_each_time_they_were_said():
    rows = utterances()
    table = anatomy.words_table(rows)
    one = table[(table.tts == "pico") & (table.word == "dos")].iloc[0]
    assert one.n == 24 and one.net == one.gained - one.lost == one.wrong_before - one.wrong_after
    assert anatomy.heard("el sol rojo", "sol roja") == {1} and anatomy.heard("", "sol") == frozenset()
