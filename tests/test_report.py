"""Tables, figures and the report are made from a run's CSV alone."""

import gzip
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from syn2real_utils import diagrams, figures, report, tables
from syn2real_utils.errors import UserError
from syn2real_utils.profile import load_profile
from tests import made, test_beforeafter


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
        "synthetic": made.synthetic(),
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
        "audit.png", "anatomy.png", "words.png", "quality.png",
    ]  # fmt: skip
    written = sorted(path.name for path in (run / "tables").iterdir())
    assert written == sorted(
        [f"{n}.csv" for n in (*report.ROWS, "wer", "cer", "changes", "baselines", "lam", "context_gaps", "examples")]
        + [f"{n}.csv" for n in ("audit", "hallucinations", "quality", "anatomy", "words")]
        + ["results.md"]
    )
    said = (run / "tables" / "results.md").read_text(encoding="utf-8")
    assert "recordings of Tux Paint GPL-2" in said and "commercial" not in said
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
    assert page.count("<audio") == sum(len(report.read(run, name)) for name in ("examples", "hallucinations")) > 0
    assert page.count("data:image/png") == 11 and "data:audio/ogg" in page
    assert "&lt;test&gt;" in page and 'src="http' not in page


def test_every_table_names_its_protocol_and_what_each_p_says(run):
    report.redraw(run)
    for name in report.COMPUTED:
        table = report.read(run, name)
        assert set(table.protocol) == {"strict"}, name
        if "p_holm" in table:
            claims = table[table.p_holm.notna()]
            assert set(claims.verdict) <= {"better", "worse", "not significant"} and len(claims), name
            assert (claims.verdict[claims.p_holm >= 0.05] == "not significant").all(), name
    shown = (run / "tables" / "results.md").read_text(encoding="utf-8")
    assert shown.count("rotocol strict") == 2 and "## Against other models" in shown and "| real_source |" in shown


def test_a_missing_run_or_table_is_named(run, tmp_path):
    with pytest.raises(UserError, match="no run at .*nowhere"):
        report.redraw(tmp_path / "nowhere")
    (run / "tables" / "cosines.csv").unlink()
    with pytest.raises(UserError, match=r"has no tables/cosines.csv: finish it with 'syn2real run quickstart'"):
        report.redraw(run)


def blocked(folder: Path) -> subprocess.CompletedProcess:
    """`syn2real figures FOLDER` where torch, transformers and the network's libraries cannot be imported."""
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "datasets", "huggingface_hub", "snakemake"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
from syn2real_utils.cli import main
main()
"""
    return subprocess.run([sys.executable, "-c", code, "figures", str(folder)], capture_output=True, text=True)


def test_figures_and_every_table_without_torch_also_from_a_folder_of_csv(run, tmp_path):
    report.redraw(run)
    flat = tmp_path / "committed"
    flat.mkdir()
    for name in report.ROWS:
        report.read(run, name).to_csv(flat / f"{name}.csv", index=False, lineterminator="\n")
    rows = (flat / "utterances.csv").read_bytes()
    (flat / "utterances.csv").unlink()
    (flat / "utterances.csv.gz").write_bytes(gzip.compress(rows))
    (flat / "profile.yaml").write_text((run / "profile.yaml").read_text())
    (flat / "manifest.json").write_text('{"profile": "quickstart"}')
    done = blocked(flat)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9 and not (flat / "utterances.csv").exists()
    for name in (*(f"{name}.csv" for name in report.COMPUTED), "results.md"):
        assert (flat / name).read_bytes() == (run / "tables" / name).read_bytes(), name
    assert (flat / "wer.png").read_bytes() == (run / "figures" / "wer.png").read_bytes()


def test_what_adapt_was_told_is_compared_again_without_torch(tmp_path):
    """Rows of benchmarks/adapt.py: what README rests on is computed from them, and names what was known of the target."""
    kept = {
        "rows": test_beforeafter.made().assign(corpus="tuxpaint"),
        "verdicts": pd.DataFrame({"domain": ["food", "town"], "go": [True, False]}),
    }
    for name, table in kept.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    done = blocked(tmp_path)
    assert done.returncode == 0 and done.stdout.split() == [str(tmp_path / "before_after.png")], done.stderr
    truth, forgetting = (tables.read_csv(tmp_path / f"{name}.csv") for name in ("truth", "forgetting"))
    assert truth.surely_better.tolist() == [True, False] and set(forgetting.place) == {"own", "others"}
    assert set(truth.protocol) == set(forgetting.protocol) == {"catalogue"}
    kept["rows"].drop(columns="heard").to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(UserError, match=r"rows.csv cannot be read \(it has no column heard"):
        report.redraw(tmp_path)


def test_a_folder_of_csv_that_lacks_rows_gives_what_they_allow(run, tmp_path):
    flat = tmp_path / "committed"
    flat.mkdir()
    (flat / "manifest.json").write_text('{"profile": "quickstart"}')
    with pytest.raises(UserError, match=r"has no utterances.csv or utterances.csv.gz: copy it from tables/ of the run"):
        report.redraw(flat)
    made.utterances().query("tts == 'pico'").to_csv(flat / "utterances.csv", index=False)
    drawn = {path.name for path in report.redraw(flat)}
    assert {"wer.png", "audit.png"} <= drawn and not {"geometry.png", "quality.png"} & drawn
    assert (flat / "changes.csv").exists() and not (flat / "context_gaps.csv").exists()


def test_rows_of_before_raw_texts_were_kept_still_make_every_table(run):
    old = made.utterances().drop(columns=["raw_reference", "raw_hypothesis", "speaker"])
    report.write_rows(run, {"utterances": old})
    (run / "tables" / "synthetic.csv").unlink()
    assert "quality.png" not in {path.name for path in report.redraw(run)}
    assert report.read(run, "audit").wer_raw.isna().all()


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
