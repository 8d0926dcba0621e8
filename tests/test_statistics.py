"""Rates, intervals, the choice of lam, and the tables that show them."""

import numpy as np
import pandas as pd
import pytest

from syn2real_utils import selection, statistics, tables
from syn2real_utils.errors import UserError
from tests.made import utterances


def rows(*counts: tuple[str, int, int], **more: object) -> pd.DataFrame:
    table = [{"utterance": f"{t}{i}", "text_id": t, "errors": e, "n_words": n} for i, (t, e, n) in enumerate(counts)]
    return pd.DataFrame(table).assign(char_errors=0, n_chars=1, **more)


def test_wer_is_summed_over_the_corpus_not_averaged():
    assert statistics.corpus_wer(rows(("a", 1, 1), ("b", 0, 9))) == 10.0
    assert np.isnan(statistics.corpus_wer(rows(("a", 1, 0))))


def test_interval_resamples_texts_not_utterances():
    """Eight recordings of two texts: as independent clips they would look far more certain."""
    blocked = rows(*[("a", 4, 4)] * 4, *[("b", 0, 4)] * 4)
    assert statistics.wer_interval(blocked) == (0.0, 100.0)
    single = blocked.assign(text_id=[str(i) for i in range(8)])
    low, high = statistics.wer_interval(single)
    assert 0 < low < 50 < high < 100
    assert statistics.wer_interval(blocked) == statistics.wer_interval(blocked.sample(frac=1, random_state=1))
    assert np.isnan(statistics.wer_interval(rows(("a", 1, 2)))).all()


def test_the_gap_between_contexts_is_in_points_and_paired():
    own = rows(("a", 1, 4), ("b", 0, 4), ("c", 2, 2), target="t", tts="pico", seed=0, lam=0.5, context=statistics.CLIP)
    worse = own.assign(context=statistics.FULL, errors=[2, 0, 2])
    (gap,) = statistics.context_gaps(pd.concat([own, worse])).to_dict("records")
    assert (gap["wer_clip"], gap["wer_full"], gap["difference"]) == (30.0, 40.0, 10.0)
    assert gap["ci_low"] == 0 and 10 < gap["ci_high"] < 30
    with pytest.raises(UserError, match="not scored on the same utterances"):
        statistics.context_gaps(pd.concat([own, worse.head(2)]))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    dice, hits = np.random.default_rng(0), 0
    for _ in range(200):
        errors = dice.binomial(4, 0.3, size=60)
        low, high = statistics.wer_interval(rows(*[(str(i), int(e), 4) for i, e in enumerate(errors)]), samples=500)
        hits += low <= 30 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_paired_change_of_a_constant_gain_is_certain():
    before = rows(*[(str(i), 2, 4) for i in range(20)])
    change = statistics.paired_change(before.assign(errors=1), before)
    assert (change.relative, change.low, change.high) == (-50.0, -50.0, -50.0) and change.p < 0.01
    same = statistics.paired_change(before, before)
    assert same.relative == 0 and same.p == 1
    with pytest.raises(UserError, match="not scored on the same utterances"):
        statistics.paired_change(before, before.head(19))


def test_holm():
    assert statistics.holm([0.01, 0.04, float("nan"), 0.03])[:2] == pytest.approx([0.03, 0.06])
    assert statistics.holm([0.5, 0.9])[1] == 1.0 or statistics.holm([0.5, 0.9])[1] >= 0.9


def test_wer_table_has_the_columns_of_the_issue_and_a_row_for_every_lam():
    table = statistics.wer_table(utterances(), samples=200)
    assert ",".join(table.columns) == (
        "target,tts,protocol,backbone,model,lam,lam_source,seed,n_utterances,n_words,errors,wer,ci_low,ci_high"
    )
    one = table[(table.target == "animals") & (table.tts == "pico") & (table.model == "adapted")]
    assert one.lam.tolist() == [0.0, 0.5, 1.0] and (one.n_utterances == 12).all()
    assert (one.ci_low <= one.wer).all() and (one.wer <= one.ci_high).all()
    pooled = table[table.target == "all"]
    assert set(pooled.model) == set(statistics.MODELS) and pooled.n_utterances.max() == 24


def test_pooled_seeds_keep_a_text_together():
    both = pd.concat([utterances(seed=0), utterances(seed=1)], ignore_index=True)
    table = statistics.wer_table(both, samples=200)
    pooled = table[(table.seed == "all") & (table.target == "animals") & (table.model == "syn_target")]
    assert (pooled.n_utterances == 24).all() and len(pooled) == 2


def test_changes_are_against_syn_target_and_lam_0_is_no_change():
    table = statistics.changes_table(utterances(), samples=200)
    zero = table[(table.lam == 0) & (table.model == "adapted")]
    assert (zero.relative_change == 0).all() and (zero.p == 1).all()
    assert set(table.model) == {"adapted", "ensemble"} and set(table.baseline) == {"syn_target"}
    with pytest.raises(UserError, match="no rows of 'syn_target'"):
        statistics.changes_table(utterances().query("model != 'syn_target'"))


def curve(*points: tuple[float, int], domain: str = "a") -> pd.DataFrame:
    return pd.DataFrame([{"lam": lam, "errors": e, "n_words": 10, "domain": domain} for lam, e in points])


def test_lam_is_the_best_over_all_source_domains_and_the_smallest_of_equals():
    both = pd.concat([curve((0, 5), (0.5, 1), (1.0, 3)), curve((0, 5), (0.5, 9), (1.0, 3), domain="b")])
    assert selection.choose(both) == 1.0
    assert selection.choose(curve((0.0, 2), (0.5, 1), (1.0, 1))) == 0.5
    with pytest.raises(UserError, match="source domain 'b' has no rows at lam 1"):
        selection.choose(pd.concat([curve((0, 1), (1.0, 2)), curve((0, 1), domain="b")]))


def test_oracle_is_never_worse_and_regret_is_the_difference():
    lam = selection.lam_table(utterances())
    assert (lam.regret >= 0).all() and (lam.regret - (lam.wer_chosen - lam.wer_oracle)).abs().max() < 2e-4
    one = utterances().query("target == 'animals' and tts == 'pico' and model == 'adapted'")
    with pytest.raises(UserError, match="lam 0.3 was chosen but adapted was not evaluated there"):
        selection.mark(one, "adapted", 0.3)


def test_results_table_for_a_terminal_and_markdown():
    found = utterances()
    table = tables.results_table(statistics.wer_table(found, 200), statistics.changes_table(found, samples=200))
    assert table["target"].tolist() == ["animals", "animals", "food", "food", "all targets", "all targets"]
    text = tables.as_text(table, 118)
    assert max(map(len, text.splitlines())) <= 118 and "real_" in text.splitlines()[0]
    assert tables.as_markdown(table).splitlines()[1].count("---") == len(table.columns)


def test_what_was_not_run_says_so():
    found = utterances().query("not (model == 'real_source' and target == 'food')")
    table = tables.results_table(statistics.wer_table(found, 200), statistics.changes_table(found, samples=200))
    food = table[table.target == "food"]
    assert (food.real_source == "not run").all() and (food.syn_source != "not run").all()


def test_examples_show_gains_and_losses_by_a_fixed_rule():
    found = tables.examples(utterances(), n=2)
    assert set(found.kind) == {"gain", "loss"} and (found["rank"] <= 2).all()
    gains = found[found.kind == "gain"]
    assert (gains.errors_after < gains.errors_before).all()
    assert found.equals(tables.examples(utterances().sample(frac=1, random_state=3), n=2))


def test_csv_keeps_words_that_look_like_nothing(tmp_path):
    made = utterances()
    made.loc[0, "hypothesis"] = "nan"
    made.loc[1, "hypothesis"] = ""
    made.to_csv(tmp_path / "u.csv", index=False)
    again = tables.read_csv(tmp_path / "u.csv")
    assert again.hypothesis[:2].tolist() == ["nan", ""] and np.isnan(again.lam[0])
    assert statistics.wer_table(again, 200).equals(statistics.wer_table(made, 200))
