"""Tables, figures and the report are made from a run's CSV alone."""

import pandas as pd
import pytest

from syn2real_utils import diagrams, figures, report
from syn2real_utils.errors import UserError
from syn2real_utils.profile import load_profile
from tests import made


@pytest.fixture
def run(tmp_path):
    """A run's folder with nothing but what needs models."""
    folder = tmp_path / "quickstart"
    rows = {
        "utterances": made.utterances(),
        "selection": made.selections(),
        "contexts": made.contexts(),
        "cosines": made.cosines(),
        "geometry": made.geometry(),
    }
    report.write_rows(folder, rows)
    profile = load_profile("quickstart", {"evaluation.bootstrap_samples": 200, "targets": ["animals", "food"]})
    (folder / "profile.yaml").write_text(profile.to_yaml(), encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_redraw_makes_every_table_and_figure_and_the_same_bytes_again(run):
    paths = report.redraw(run)
    assert [path.name for path in paths] == [
        "quadrants.png", "overview.png", "wer.png", "lam_curves.png", "geometry.png", "cosine_heatmap.png", "ensemble.png",
    ]  # fmt: skip
    tables = sorted(path.name for path in (run / "tables").iterdir())
    assert tables == sorted(
        [f"{n}.csv" for n in (*report.ROWS, "wer", "cer", "changes", "lam", "context_gaps", "examples")]
        + ["results.md"]
    )
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    report.redraw(run)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_tables_count_what_the_rows_say(run):
    report.redraw(run)
    wer, rows = report.read(run, "wer"), report.read(run, "utterances")
    cell = wer[(wer.target == "food") & (wer.tts == "pico") & (wer.model == "syn_target")].iloc[0]
    own = rows[(rows.target == "food") & (rows.tts == "pico") & (rows.model == "syn_target")]
    assert cell.errors == own.errors.sum() and cell.wer == pytest.approx(
        100 * own.errors.sum() / own.n_words.sum(), abs=1e-4
    )


def test_summary_names_the_table_and_every_place(run):
    report.redraw(run)
    text = report.summary(run)
    for word in ("animals", "kokoro", "adapted", "wer.csv", "figures", "notebooks", "report.html"):
        assert word in text


def test_report_is_one_file_with_its_audio(run, tmp_path):
    report.redraw(run)
    clip = tmp_path / "a.ogg"
    clip.write_bytes(b"OggS")
    clips = dict.fromkeys([f"u{i}" for i in range(12)], clip)
    page = report.write_html(run, clips, {"machine": "<test>"}).read_text(encoding="utf-8")
    assert page.count("<audio") == len(report.read(run, "examples")) > 0
    assert page.count("data:image/png") == 7 and "data:audio/ogg" in page
    assert "&lt;test&gt;" in page and 'src="http' not in page


def test_a_missing_run_or_table_is_named(run, tmp_path):
    with pytest.raises(UserError, match="no run at .*nowhere"):
        report.redraw(tmp_path / "nowhere")
    (run / "tables" / "cosines.csv").unlink()
    with pytest.raises(UserError, match=r"has no tables/cosines.csv: finish it with 'syn2real run quickstart'"):
        report.redraw(run)


def test_one_target_one_tts_is_enough_for_every_figure(run):
    rows = made.utterances().query("target == 'food' and tts == 'pico'")
    report.write_rows(
        run, {"utterances": rows, "geometry": made.geometry().query("target == 'food' and tts == 'pico'")}
    )
    assert all(path.stat().st_size > 5000 for path in report.redraw(run))


def test_figures_without_rows_say_what_is_missing():
    with pytest.raises(UserError, match="no cosines of module 'head'"):
        figures.cosine_heatmap(made.cosines(), "head")
    with pytest.raises(UserError, match="no points"):
        diagrams.geometry(pd.DataFrame())
