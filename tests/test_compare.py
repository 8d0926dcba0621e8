"""`syn2real compare`: any two files of utterance rows."""

import json
import math
import os
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


def test_without_a_text_id_both_orders_say_the_same(tmp_path):
    texts = ["hola", "Hola.", "si", "no", "tres", "Tres"]
    plain = ["hola", "hola", "si", "no", "tres", "tres"]
    a = write(tmp_path / "a.csv", utterance=range(6), reference=texts, hypothesis=texts)
    b = write(tmp_path / "b.csv", utterance=range(6), reference=plain, hypothesis=["x", "x", "x", "no", "x", "tres"])
    (there,), (back,) = compare(a, b), compare(b, a)
    assert (there.difference, there.p) == (-back.difference, back.p) and there.p == 2**-2  # three of four texts differ


def test_a_seed_is_a_whole_number_and_a_clip_is_counted_once(tmp_path):
    counts = {"utterance": [*range(10)] * 2, "text_id": [*range(10)] * 2, "n_words": 3}
    seeds = [20240101] * 10 + [20240102] * 10
    a = write(tmp_path / "a.csv", **counts, seed=seeds, errors=[1] * 10 + [3] * 10)
    (apart,) = compare(a, a, {"seed": "20240101"}, {"seed": "20240101"})
    (both,) = compare(a, a)
    assert (apart.wer_a, both.wer_a) == (pytest.approx(100 / 3), pytest.approx(200 / 3))
    assert (both.n_utterances, both.n_words) == (10, 30)
    with pytest.raises(UserError, match="has the seeds 20240101, B .* 20240102: leave column seed out"):
        compare(a, a, {"seed": "20240101"}, {"seed": "20240102"})


def test_a_domain_without_words_is_undefined_and_files_without_any_are_refused(tmp_path):
    rows = {"utterance": range(6), "text_id": range(6), "domain": list("aaabbb")}
    a = write(tmp_path / "a.csv", **rows, n_words=[2, 2, 2, 0, 0, 0], errors=1)
    b = write(tmp_path / "b.csv", **rows, n_words=[2, 2, 2, 0, 0, 0], errors=[0, 1, 1, 1, 1, 2])
    found = compare(a, b)
    shown = comparison.as_table(found).set_index("domain").loc["b"]
    assert math.isnan(found[1].p) and set(shown[["WER of_A", "difference in points", "verdict"]]) == {"undefined"}
    empty = write(tmp_path / "c.csv", utterance=["1"], reference=[""], hypothesis=["x"], text_id=["t"])
    with pytest.raises(UserError, match="c.csv: no reference has a word"):
        compare(empty, empty)
    with pytest.raises(UserError, match="a.csv: no reference has a word"):
        compare(a, b, {"domain": "b"}, {"domain": "b"})


def test_a_line_break_or_tab_parts_words_as_a_blank_does(tmp_path):
    said = {"utterance": range(3), "text_id": range(3), "reference": ["hola que tal", "a b", "uno  dos"]}
    a = write(tmp_path / "a.csv", **said, hypothesis=["hola que tal", "a b", "uno dos"])
    b = write(tmp_path / "b.csv", **said, hypothesis=["hola que\ntal", "a\tb", "uno dos"])
    (found,) = compare(a, b)
    assert (found.wer_a, found.wer_b, found.n_words) == (0, 0, 7)


def test_a_domain_that_is_called_as_all_of_them_is_refused(tmp_path):
    counts = {"utterance": range(4), "text_id": range(4), "n_words": 2, "errors": 1}
    a = write(tmp_path / "a.csv", **counts, domain=["all", "all", "b", "b"])
    with pytest.raises(UserError, match="a domain 'all', which stands for all of them"):
        compare(a, a)


def test_too_few_resamples_are_told(tmp_path):
    rows = {"utterance": range(20), "text_id": range(20), "n_words": 2}
    a, b = (write(tmp_path / f"{n}.csv", **rows, errors=n) for n in (2, 1))
    few, enough = (comparison.as_table(compare(a, b, samples=n), samples=n).attrs["note"] for n in (1, 3))
    assert "(1) let no p of a row be that small: give --samples 2 or more" in few and "few" not in enough
    with pytest.raises(UserError, match="bootstrap samples 1000000000: expected 1 to 1000000"):
        compare(a, b, samples=10**9)


def test_what_is_empty_or_given_twice(rows, capsys):
    pooled = compare(rows, rows, BEFORE | {"lam": "none"}, AFTER, samples=300)[-1]
    assert pooled.n_utterances == 24
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compare", str(rows), str(rows), "--a", "model=adapted", "--a", "model=syn_target"])
    assert capsys.readouterr().err == "error: --a model=... is given more than once: choose one value\n"


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
        (
            {**BEFORE, "target": "food"},
            BEFORE,
            r"A .* has the domains food, B .* animals, food: give both the same column",
        ),
        (
            AFTER,
            {"lam": "chosen", **BEFORE},
            "no rows of lam chosen: it has none",
        ),  # which rows have a lam depends on the model
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
        ({"utterance": ["a", "a"]}, "b.csv has several rows of a: expected one each"),
        (
            {"utterance": ["a", "a"], "place": ["own", "other"]},
            "several rows of a: choose by place, such as --only place=other",
        ),
        (
            {"normaliser": "y/1"},
            "normaliser x/1, .* with y/1: score both with one, or give both without n_words and errors",
        ),
        ({"speaker": ["s", "t"]}, "the speakers of b differ between A and B"),
        ({"domain": ["d", "e"]}, "has the domains none, B .* d, e: give both the same column target or domain"),
        ({"n_words": [2, 3]}, "the numbers of words of b differ between A and B: expected the same texts"),
        (
            {"reference": ["one one", "other words"]},
            "the references of b differ between A and B: expected the same texts",
        ),
        ({"text_id": ["t", "u"]}, "the text_id of "),
        ({"seed": [0, 20240101]}, r"has the seeds 0, B .* 0, 20240101: choose one, such as --only seed=0"),
        ({"errors": ["many", "few"]}, "column errors must hold a whole number of 0 or more in every row"),
        ({"errors": [True, False]}, "column errors must hold a whole number of 0 or more in every row"),
        ({"errors": [-3, 0]}, "column errors must hold a whole number of 0 or more in every row"),
        ({"errors": [float("inf"), 0]}, "column errors must hold a whole number of 0 or more in every row"),
        ({"n_words": [0, 0]}, "no reference has a word"),
        ({"text_id": ["", "u"]}, "column text_id is empty in some rows"),
        ({"text_id": "", "reference": ""}, "b.csv names no text: expected text_id or reference"),
    ):
        a = write(tmp_path / "a.csv", **good, **({"speaker": ["s", "u"]} if "speaker" in change else {}))
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
    for text, message in (
        ("utterance,reference,hypothesis\n1,si, claro,si\n", "line 2 has 4 fields, the heading 3"),
        ("utterance,reference,hypothesis\n1,si,si\n2,no\n", "line 3 has 2 fields, the heading 3"),
        ("utterance,reference,hypothesis,reference\n1,si,si,no\n", "it has the column reference twice"),
    ):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(UserError, match=rf"b.csv cannot be read \({message}\)"):
            compare(a, tmp_path / "b.csv")
    for packed in ("b.csv.gz", "b.csv.xz", "b.csv.bz2", "b.csv.zip", "b.csv.zst"):
        (tmp_path / packed).write_bytes(b"\xfd7zXZ\x00 no archive \xff")
        with pytest.raises(UserError, match="cannot be read"):
            compare(a, tmp_path / packed)
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"b.csv cannot be read .*: expected a CSV with commas"):
        compare(a, tmp_path / "b.csv")


def test_a_confidence_beyond_all_resamples_is_refused_and_none_is_advised(rows, capsys):
    options = ["--only", "tts=pico", "--a", "model=syn_target", "--b", "model=adapted", "--b", "lam=chosen"]
    for confidence, status in (("0.99999", "0"), ("0.9999999999999", "2")):
        with pytest.raises(SystemExit, match=status):
            cli.main(["compare", str(rows), str(rows), *options, "--confidence", confidence])
    said = capsys.readouterr()
    assert "give --samples 20000 or more" in said.out.replace("\n", " "), said.out
    assert "expected a number above 0 and at most 0.99999" in said.err and len(said.err.splitlines()) == 1


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
    command = [sys.executable, "-m", "syn2real_utils.cli", "compare", str(rows), str(rows), *options]
    narrow = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    assert narrow.returncode == 0 and "\\u2212" in narrow.stdout, "a minus sign that the terminal lacks is escaped"
    program = "from syn2real_utils.cli_shared import as_json; print(as_json({'ñ': '−'}))"
    plain = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert json.loads(plain.stdout) == {"ñ": "−"}
    assert max(map(len, done.stdout.splitlines())) <= 118
