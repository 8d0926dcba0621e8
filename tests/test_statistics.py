"""Rates, intervals, the choice of lam, and the tables that show them."""

import numpy as np
import pandas as pd
import pytest

from syn2real_utils import bootstrap, selection, statistics, tables
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
    assert (
        gap["ci_low"] == 0 and 10 < gap["ci_high"] < 30 and gap["p"] == gap["p_holm"] == 1
    )  # of one text alone nothing is sure
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
    assert set(table.model) == {"pretrained", "real_source", "syn_source", "adapted", "ensemble"}
    assert set(table.baseline) == {"syn_target"} and table.p.notna().all()
    points = table.wer_model - table.wer_baseline
    assert (table.difference - points).abs().max() < 2e-4
    assert (table.difference_low <= table.difference).all() and (table.difference <= table.difference_high).all()
    with pytest.raises(UserError, match="no rows of 'syn_target'"):
        statistics.changes_table(utterances().query("model != 'syn_target'"))


def test_what_a_user_could_have_instead_is_compared_too():
    rows = utterances()
    table = statistics.baselines_table(rows, samples=200)
    one = table[(table.target == "food") & (table.tts == "pico")].set_index(["model", "baseline"])
    assert list(one.index) == [
        (model, base) for model in statistics.MODELS for m, base in statistics.BASELINES if m == model
    ]
    own = rows[(rows.target == "food") & (rows.tts == "pico")]
    adapted = own[(own.model == "adapted") & (own.lam == 0.5)]
    for name in ("real_source", "pretrained"):
        found = statistics.paired_change(adapted, own[own.model == name], samples=200)
        row = one.loc["adapted", name]
        assert (row.relative_change, row.ci_low, row.p) == pytest.approx((found.relative, found.low, found.p), abs=1e-3)
    gaps = table[(table.model == "syn_target") & (table.baseline == "real_source")]
    single = gaps[gaps.target != "all"]
    assert len(single) == 4 and single.p_holm.tolist() == pytest.approx(statistics.holm(single.p), abs=1e-5)
    without = statistics.baselines_table(rows[rows.model != "ensemble"], samples=50)
    assert "ensemble" not in set(without.model) | set(without.baseline) and len(without) < len(table)


def test_p_of_the_chosen_lam_is_adjusted_over_targets_and_tts():
    table = statistics.changes_table(utterances(), samples=200)
    claims = table[(table.model == "adapted") & (table.lam == 0.5)]
    single = claims[claims.target != "all"]
    assert len(single) == 4 and single.p_holm.tolist() == pytest.approx(statistics.holm(single.p))
    pooled = claims[claims.target == "all"]
    assert pooled.p_holm.equals(pooled.p)
    assert table[(table.model == "adapted") & (table.lam != 0.5)].p_holm.isna().all()


def crossed(texts: int, speakers: int, errors) -> pd.DataFrame:
    """Each of some speakers reads each of some texts of ten words; `errors(text, speaker)`."""
    cells = [(t, s, errors(t, s)) for t in range(texts) for s in range(speakers)]
    table = [{"utterance": f"{t}-{s}", "text_id": f"t{t}", "speaker": f"s{s}", "errors": e} for t, s, e in cells]
    return pd.DataFrame(table).assign(n_words=10)


def width(rows: pd.DataFrame) -> float:
    low, high = statistics.wer_interval(rows)
    return high - low


def test_speakers_are_drawn_too_where_they_cross_the_texts():
    """Four of eight speakers make all errors: texts alone would know the rate to the digit."""
    rows = crossed(20, 8, lambda t, s: 4 if s < 4 else 0)
    assert width(rows.assign(speaker="")) == 0 and width(rows) > 20
    assert width(rows) == width(rows.sample(frac=1, random_state=1))


def test_the_interval_of_crossed_speakers_and_texts_covers_the_truth():
    dice, hits = np.random.default_rng(0), 0
    for _ in range(100):
        text, speaker = dice.normal(0, 0.06, 30), dice.normal(0, 0.1, 30)
        rows = crossed(30, 30, lambda t, s: dice.binomial(10, np.clip(0.4 + text[t] + speaker[s], 0, 1)))  # noqa: B023
        low, high = statistics.wer_interval(rows, samples=300)
        hits += low <= 40 <= high
    assert hits >= 88


def test_a_text_by_one_speaker_is_drawn_with_the_speaker():
    rows = pd.DataFrame({"utterance": range(40), "text_id": range(40), "speaker": [f"s{i // 5}" for i in range(40)]})
    rows = rows.assign(errors=[1] * 20 + [0] * 20, n_words=1)
    assert bootstrap.blocks(rows) == 8 and width(rows) > width(rows.assign(speaker="")) > 0
    assert bootstrap.blocks(rows.assign(speaker="one")) == bootstrap.blocks(rows.assign(speaker="")) == 40


def test_of_a_few_speakers_texts_are_drawn():
    """What two people say is no sample of people: their texts are drawn, and an interval has a width."""
    rows = pd.DataFrame({"utterance": range(40), "text_id": range(40), "speaker": [f"s{i % 2}" for i in range(40)]})
    before = rows.assign(errors=3, n_words=8)
    after = before.assign(errors=[(i // 2) % 2 for i in range(40)])
    assert bootstrap.blocks(rows) == 40
    found = statistics.paired_change(after, before)
    assert found.low < found.relative < found.high < 0 and found.p < 0.01
    assert found == statistics.paired_change(after.assign(speaker=""), before.assign(speaker=""))


def test_few_blocks_cannot_be_significant():
    rows = pd.DataFrame({"utterance": range(42), "text_id": range(42), "speaker": [f"s{i // 7}" for i in range(42)]})
    before = rows.assign(errors=2, n_words=4)
    assert statistics.paired_change(before.assign(errors=1), before).p == 2**-5
    assert statistics.paired_change(before.assign(errors=1, speaker=""), before.assign(speaker="")).p < 0.01


def test_texts_that_did_not_change_are_no_evidence():
    before = rows(*[(str(i), 1, 4) for i in range(20)])
    for changed in range(6):
        after = before.assign(errors=[int(i >= changed) for i in range(20)])
        assert statistics.paired_change(after, before).p >= min(1.0, 2.0 ** (1 - changed))
    assert statistics.paired_change(before, before).p == 1
    many = rows(*[(str(i), 1, 4) for i in range(40)])
    assert statistics.paired_change(many.assign(errors=0), many).p == pytest.approx(2 / 200_001, rel=1e-6)


def test_a_sure_change_among_hundreds_of_comparisons_is_significant():
    """As in a table of rivals: were its p no smaller than what 10,000 resamples can show, Holm would raise it above 0.05."""
    before = rows(*[(str(i), 1 + i % 2, 4) for i in range(60)])
    p = statistics.paired_change(before.assign(errors=1 - (np.arange(60) % 3 > 0)), before).p
    assert statistics.holm([p, *[0.5] * 359])[0] < 0.05


@pytest.mark.parametrize("speakers", [0, 8])
def test_more_draws_are_of_the_same_kind(speakers):
    """What is drawn for p alone spreads as what is drawn for the intervals, over seeds and speakers too."""
    dice = np.random.default_rng(1)
    parts = [
        rows(*[(str(i % 50), int(e), 4) for i, e in enumerate(dice.integers(0, 4, 150))], run=run) for run in (0, 1)
    ]
    named = {"speaker": [f"s{i % speakers}" for i in range(150)]} if speakers else {}
    before = pd.concat([part.assign(**named) for part in parts], ignore_index=True)
    after = before.assign(errors=np.maximum(before.errors - dice.integers(0, 2, 300), 0))
    one, other = (bootstrap.draw(table, ["errors"], 20_000, 0)[:, 0] for table in (after, before))
    difference, more = one - other, bootstrap._differences(after, before, 20_000, 0)
    for value in np.quantile(difference, [0.025, 0.25, 0.5, 0.75, 0.975]):
        assert (more <= value).mean() == pytest.approx((difference <= value).mean(), abs=0.015)


@pytest.mark.parametrize("count", [-1.0, np.nan, np.inf])
def test_what_is_no_count_is_refused(count):
    before = rows(*[(str(i), 1, 4) for i in range(5)])
    with pytest.raises(UserError, match="counts of .*1 are no numbers of 0 or more"):
        statistics.paired_change(before.assign(errors=[1, count, 1, 1, 1]), before)


def test_seeds_that_disagree_widen_the_interval():
    before = rows(*[(str(i), 2, 4) for i in range(40)], run=0)
    seeds = [before.assign(run=seed) for seed in range(4)]
    better = pd.concat([part.assign(errors=2 - (part.run < 2)) for part in seeds])
    change = statistics.paired_change(better, pd.concat(seeds))
    assert change.relative == -25 and change.low == -50 and change.high == 0 and change.p > 0.05
    same = statistics.paired_change(pd.concat(seeds).assign(errors=1), pd.concat(seeds))
    assert (same.low, same.high) == (-50, -50) and same.difference == -25


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
