"""`syn2real compare`: any two files of utterance rows."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from syn2real_utils import cli, comparison, statistics
from syn2real_utils.comparison import compare
from syn2real_utils.errors import UserError
from tests.made import utterances


@pytest.fixture
def rows(tmp_path):
    """A run's utterances.csv."""
    file = tmp_path / "utterances.csv"
    utterances().to_csv(file, index=False)
    return file


BEFORE, AFTER = {"tts": "pico", "model": "syn_target"}, {"tts": "pico", "model": "adapted", "lam": "chosen"}


def write(file, **columns):
    pd.DataFrame(columns).to_csv(file, index=False)
    return file


def test_it_says_what_the_tables_of_the_run_say(rows):
    *domains, pooled = compare(rows, rows, BEFORE, AFTER, samples=300)
    table = statistics.changes_table(utterances(), samples=300)
    table = table[(table.tts == "pico") & (table.model == "adapted") & (table.lam == 0.5)].set_index("target")
    for found in (*domains, pooled):
        said = table.loc[found.domain]
        assert (round(found.p, 6), round(found.ci_low, 4), round(found.difference, 4)) == (
            said.p,
            said.ci_low,
            said.difference,
        )
    assert [d.domain for d in domains] == ["animals", "food"] and pooled.n_utterances == 24
    assert [d.p_holm for d in domains] == statistics.holm([d.p for d in domains]) and pooled.p_holm == pooled.p
    text = " ".join(comparison.as_table([*domains, pooled]).verdict)
    assert "not significant" in text


def test_rows_of_any_other_tool_will_do(tmp_path):
    texts = [f"uno dos {n}" for n in range(12)]
    a = write(tmp_path / "a.csv", utterance=range(12), reference=texts, hypothesis=["uno tres"] * 12)
    b = write(tmp_path / "b.csv", utterance=range(11, -1, -1), reference=texts[::-1], hypothesis=texts[::-1])
    (found,) = compare(a, b)
    assert (found.wer_a, found.wer_b, found.difference, found.relative_change) == (
        pytest.approx(200 / 3),
        0,
        -200 / 3,
        -100,
    )
    assert found.verdict == "better" and found.p < 0.01
    (same,) = compare(a, a)
    assert (same.difference, same.p, same.verdict) == (0, 1, "not significant")


def test_speakers_that_one_file_names_count_for_both(tmp_path):
    counts = {"utterance": range(20), "text_id": range(20), "n_words": 4}
    a = write(tmp_path / "a.csv", **counts, errors=[2] * 20)
    b = write(tmp_path / "b.csv", **counts, errors=[1] * 20, speaker=[f"s{i % 6}" for i in range(20)])
    (found,) = compare(a, b)
    assert found.p == 2**-5  # six speakers show no more, twenty texts would


@pytest.mark.parametrize(
    ("only_a", "only_b", "message"),
    [
        ({}, {}, "holds rows of several tts: kokoro, pico; choose one, such as --only tts=kokoro"),
        ({"tts": "pico"}, BEFORE, "several model: adapted, ensemble, pretrained"),
        ({"tts": "pico", "model": "adapted"}, BEFORE, "several lam: 0, 0.5, 1 or chosen"),
        ({"tts": "joe"}, BEFORE, "no rows of tts joe: it has kokoro, pico"),
        ({"engine": "joe"}, BEFORE, "no column 'engine'"),
        (AFTER | {"lam": "0.3"}, BEFORE, "no rows of lam 0.3: it has 0, 0.5, 1"),
        (AFTER | {"lam": "best"}, BEFORE, "lam=best: expected a number"),
        ({**BEFORE, "target": "food"}, BEFORE, r"A .* lacks 12 rows that the other has \(u0, u1, u10, ... "),
    ],
)
def test_what_does_not_name_one_system_is_refused_with_the_choices(rows, only_a, only_b, message):
    with pytest.raises(UserError, match=message):
        compare(rows, rows, only_a, only_b)


def test_files_that_do_not_fit_are_refused_with_what_differs(tmp_path):
    good = {
        "utterance": ["a", "b"],
        "text_id": ["1", "2"],
        "n_words": 2,
        "errors": [0, 1],
        "normaliser": "x/1",
        "reference": ["One, one", "two two"],
    }
    a = write(tmp_path / "a.csv", **good)
    for change, message in (
        ({"utterance": ["a", "c"]}, r"lacks 1 rows that the other has \(b\)"),
        ({"utterance": ["a", "a"]}, "several rows of a"),
        ({"normaliser": "y/1"}, "normaliser x/1, .* with y/1: score both with one"),
        ({"n_words": [2, 3]}, "the numbers of words of b differ between A and B: expected the same texts"),
        (
            {"reference": ["one one", "other words"]},
            "the references of b differ between A and B: expected the same texts",
        ),
        ({"text_id": ["t", "u"]}, "the text_id of "),
        ({"seed": [0, 1]}, r"has the seeds 0, B .* 0, 1: choose one"),
        ({"errors": ["many", "few"]}, "column errors must hold a whole number of 0 or more in every row"),
        ({"errors": [-3, 0]}, "column errors must hold a whole number of 0 or more in every row"),
        ({"errors": [float("inf"), 0]}, "column errors must hold a whole number of 0 or more in every row"),
        ({"n_words": [0, 0]}, "no reference has a word"),
        ({"text_id": ["", "u"]}, "column text_id is empty in some rows"),
    ):
        with pytest.raises(UserError, match=message):
            compare(a, write(tmp_path / "b.csv", **(good | change)))
    for lacking, message in (
        ("utterance", "has no column utterance"),
        ("errors", "has no column errors"),
        ("text_id", r"has no column text_id \(or reference and hypothesis\)"),
    ):
        less = {name: column for name, column in good.items() if name != lacking}
        with pytest.raises(UserError, match=message):
            compare(a, write(tmp_path / "b.csv", **less))
    with pytest.raises(UserError, match="no file .*none.csv"):
        compare(a, tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"b.csv cannot be read .*: expected a CSV with commas"):
        compare(a, tmp_path / "b.csv")


def test_the_command_prints_a_table_or_json_and_needs_no_torch(rows, capsys):
    options = ["--only", "tts=pico", "--a", "model=syn_target", "--b", "model=adapted", "--b", "lam=chosen"]
    with pytest.raises(SystemExit, match="0"):
        cli.main(["compare", str(rows), str(rows), *options, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [row["domain"] for row in found] == ["animals", "food", "all"] and found[-1]["n_words"] == 72
    block = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\nfrom syn2real_utils.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", block, "compare", str(rows), str(rows), *options], capture_output=True, text=True
    )
    assert done.returncode == 0 and "all domains" in done.stdout and "not significant" in done.stdout, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 118
