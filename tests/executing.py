"""All notebooks of a run in this process: what the workflow does, without the seconds that each kernel takes to start."""

from pathlib import Path

import nbformat
import pytest

from syn2real_utils import notebook, report, results, runs
from syn2real_utils.profile import Profile


def cells(name: str, **given: object) -> None:
    """Execute the code of a notebook, with parameters."""
    space: dict[str, object] = {}
    for cell in nbformat.read(notebook.notebook_path(name), 4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, name, "exec"), space)
            if "parameters" in cell.metadata.get("tags", []):
                space |= given


def executed(profile: Profile, home: Path) -> Path:
    """The folder of a run whose notebooks and report were made; no file that it should have is missing."""
    folder = results.run_folder(profile)
    folder.mkdir(parents=True)
    runs.fetch(profile)
    runs.prepare(profile)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for path in map(notebook.notebook_path, runs.notebook_names()):
            targets = profile.targets if "target" in notebook.parameters(path) else [""]
            for target in targets:
                cells(path.stem, profile=str(folder / report.PROFILE), **({"target": target} if target else {}))
    runs.write_report(folder)
    lost = [file for file in runs.lacks(profile) if not file.startswith("notebooks/")]
    assert lost == [], "every table and figure, and the report"
    return folder
