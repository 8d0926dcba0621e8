"""Notebooks: one shape, thin, stripped; and the runner that checks parameters before it starts."""

import ast
import json

import nbformat
import pytest

from syn2real_utils import notebook
from syn2real_utils.errors import UserError
from tests.conftest import ROOT

PATHS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
NAMES = [
    "00_overview", "01_prepare_data", "02_synthesize_speech", "03_finetune", "04_vector_arithmetic",
    "05_lambda_curves", "06_cosine_heatmaps", "07_ensemble", "08_results", "09_your_own_domain",
]  # fmt: skip
each = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)


def cells(path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def test_all_notebooks_are_there():
    assert [path.stem for path in PATHS] == NAMES


@each
def test_thin(path):
    code = [cell.source for cell in cells(path, "code")]
    lines = [source.splitlines() for source in code]
    assert len(code) <= 20 and sum(map(len, lines)) <= 120
    assert all(len(cell) <= (30 if "import" in cell[0] else 20) for cell in lines)
    for source in code:
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(source).body)
        assert not any(line.lstrip().startswith(("!", "%")) for line in source.splitlines())


@each
def test_one_shape(path):
    all_cells = nbformat.read(path, 4).cells
    head = all_cells[0].source.splitlines()
    assert head[0].startswith(f"# {path.stem[:2]} · ") and head[1].startswith("*") and head[1].endswith("*")
    first = cells(path, "code")[0]
    assert first.metadata.tags == ["parameters"]
    for line, node in zip(first.source.splitlines(), ast.parse(first.source).body, strict=True):
        assert isinstance(node, ast.AnnAssign), "name: type = literal"
        ast.literal_eval(node.value)
        assert "  # " in line, "a help"
    assert "versions()" in cells(path, "code")[1].source
    assert cells(path, "code")[-1].source.startswith("assert") or "\nassert" in cells(path, "code")[-1].source
    last = all_cells[-1].source
    assert "## Exercise" in last and "<details>" in last and "## References" in last


@each
def test_stripped_with_ids_and_tags_kept(path):
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert all(cell["id"] for cell in raw["cells"])
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in raw["cells"] if "outputs" in cell)


def test_parameters_are_listed_with_their_help():
    found = notebook.parameters(notebook.notebook_path("03"))
    assert list(found) == ["profile", "target", "seed"]
    assert found["profile"].type == "str" and found["profile"].default == '"quickstart"' and found["profile"].help


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("03_finetun", {}, "no notebook '03_finetun': use one of 00_overview"),
        ("03_finetune", {"profil": "x"}, "03_finetune has no parameter 'profil': it has profile, target, seed"),
        ("03_finetune", {"seed": "one"}, "parameter 'seed' must be int, such as -1: found 'one'"),
        ("03_finetune", {"seed": True}, "parameter 'seed' must be int"),
        ("03_finetune", {"profile": 3}, "parameter 'profile' must be str"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(name, given, message, tmp_path):
    with pytest.raises(UserError, match=message):
        notebook.execute(name, given, tmp_path / "out.ipynb")
    assert not list(tmp_path.iterdir())


def test_text_is_read_as_the_parameters_type():
    path = notebook.notebook_path("03")
    assert notebook.check_parameters(path, {"seed": "3", "target": "12"}) == {"seed": 3, "target": "12"}


def test_bad_input_inside_a_notebook_is_the_users_one_line(tmp_path):
    with pytest.raises(UserError, match="no profile 'quikstart': use one of"):
        notebook.execute("00", {"profile": "quikstart"}, tmp_path / "out.ipynb")
    assert not list(tmp_path.iterdir())
