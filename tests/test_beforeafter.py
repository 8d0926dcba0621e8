"""What adapt said against what is true: the tables of `benchmarks/adapt.py`, and the figure."""

import pandas as pd

from syn2real_utils import beforeafter

RATES = {"pretrained": 3, "syn_target": 1, "adapted": 0}  # errors in each clip of four words


def rows(domain: str, place: str, heard: str, rates: dict[str, int]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"model": model, "text_id": [f"{heard}{i}" for i in range(8)], "errors": errors})
        for model, errors in rates.items()
    ]
    found = pd.concat(parts, ignore_index=True).assign(domain=domain, place=place, heard=heard, n_words=4)
    return found.assign(utterance=found.text_id)


def made() -> pd.DataFrame:
    worse = {"pretrained": 1, "syn_target": 2, "adapted": 2}
    return pd.concat(
        [
            rows("food", "own", "food", RATES),
            rows("food", "others", "town", worse),
            rows("food", "others", "food", RATES),  # heard already: no other domain
            rows("town", "own", "town", worse),
            rows("town", "others", "food", RATES),
        ],
        ignore_index=True,
    )


def test_what_was_said_stands_beside_what_is_true():
    found = beforeafter.truth(made(), pd.DataFrame({"domain": ["food", "town"], "go": [True, False]}))
    food, town = found.to_dict("records")
    assert food["go"] and food["better"] and food["surely_better"] and food["own_pretrained"] == 75.0
    assert (food["others_pretrained"], food["others_adapted"]) == (25.0, 50.0), "clips of its own domain are no others"
    assert food["others_change"] == 100.0 and food["others_low"] == 100.0
    assert not town["go"] and not town["better"] and not town["surely_better"]


def test_the_figure_has_a_point_and_an_interval_for_each_model_and_domain():
    own = made()[lambda table: table.place == "own"]
    found = beforeafter.table(own)
    assert found[["domain", "model", "wer"]].values.tolist()[:2] == [
        ["food", "pretrained", 75.0],
        ["food", "syn_target", 25.0],
    ]
    both = pd.concat([own.assign(context="30 s"), own.assign(context="clip", errors=0)])
    assert beforeafter.table(both).equals(found), "what a pipeline hears"
    (axes,) = beforeafter.figure(found).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["food", "town"]
    drawn = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert drawn == {"pretrained": [75.0, 25.0], "syn_target": [25.0, 50.0], "adapted": [0.0, 50.0]}


def test_forgetting_is_summed_over_domains_for_each_model_and_place():
    half = made()[lambda table: table.model == "adapted"].assign(model="keep 0.5", errors=2)
    every = beforeafter.forgetting(pd.concat([made(), half], ignore_index=True))
    found = every[every.baseline == "pretrained"].set_index(["place", "model"])
    own, others = found.loc[("own", "adapted")], found.loc[("others", "adapted")]
    assert (own.domains, own.n_utterances, own.n_words) == (2, 16, 64)
    assert (own.wer_baseline, own.wer, own.relative_change) == (50.0, 25.0, -50.0)
    assert (others.domains, others.n_utterances) == (2, 16), "clips of the domain itself are no others"
    assert (others.wer_baseline, others.wer) == (50.0, 25.0)
    assert found.loc[("own", "keep 0.5")].wer == 50.0 and list(found.index)[:2] == [
        ("own", "syn_target"),
        ("own", "adapted"),
    ]
    tau = every[every.baseline == "syn_target"].set_index(["place", "model"])
    assert set(tau.index.get_level_values("model")) == {"adapted", "keep 0.5"}, "what tau moved"
    assert tau.loc[("own", "adapted")].wer_baseline == found.loc[("own", "syn_target")].wer
