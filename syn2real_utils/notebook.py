"""Run a notebook with checked parameters. The only importer of papermill.

papermill passes an unknown parameter on with a warning, and any type; here both are errors, raised before the kernel starts.
"""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from traitlets.config import Config

from syn2real_utils.errors import JobError, UserError, names, user_errors
from syn2real_utils.progress import LINES, say
from syn2real_utils.store import check_writable, clear, home, partial_of, write_text_atomic

# jsonschema, which checks notebooks, would build a grammar of international addresses when it is imported: four seconds
# of every job, for a format that no notebook has. Told that the package is not there, it does without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import papermill  # noqa: E402
from nbconvert import HTMLExporter  # noqa: E402
from papermill.exceptions import PapermillExecutionError  # noqa: E402

TOLD = "SYN2REAL_TOLD"  # names the file in which a job of a run writes what the user has to mend
PARTIAL = ".partial.ipynb"  # papermill wants a name that ends so
TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "list": list}


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell."""

    name: str
    type: str
    default: str  # as it stands in the cell
    help: str


def folder() -> Path:
    """Where the notebooks lie."""
    found = home() / "notebooks"
    if not found.is_dir():
        raise UserError(f"no notebooks in {home()}: call from the project's checkout, or set SYN2REAL_HOME to it")
    return found


def notebook_names() -> list[str]:
    """Names of the notebooks in the order of the story."""
    return sorted(path.stem for path in folder().glob("[0-9]*.ipynb"))


def notebook_path(name: str) -> Path:
    """Path of a notebook by its name (03_finetune) or its number (03)."""
    found = [n for n in notebook_names() if n == name.removesuffix(".ipynb") or n.split("_")[0] == name]
    if len(found) != 1:
        raise UserError(f"no notebook '{name}': use one of {names(notebook_names())}")
    return folder() / f"{found[0]}.ipynb"


def parameters(path: Path) -> dict[str, Parameter]:
    """Parameters of a notebook by name."""
    found = papermill.inspect_notebook(str(path))
    return {
        name: Parameter(name, item["inferred_type_name"], item["default"], item["help"]) for name, item in found.items()
    }


def check_parameters(path: Path, given: Mapping[str, object]) -> dict[str, object]:
    """Return `given` if the notebook has these parameters and they are of its types; text is read as the type.

    Raises:
        UserError: an unknown parameter, or a value of another type.
    """
    known = parameters(path)
    for name in given:
        if name not in known:
            raise UserError(f"notebook {path.stem} has no parameter '{name}': it has {names(known)}")
    return {name: _typed(path.stem, known[name], value) for name, value in given.items()}


def execute(name: str, given: Mapping[str, object], out: Path) -> Path:
    """Execute a notebook into `out`, with an HTML page beside it.

    A notebook that fails leaves `<out>.failed.ipynb` and no `out`.

    Raises:
        UserError: no such notebook or parameter, or a cell met bad input.
        JobError: a cell failed.
    """
    path = notebook_path(name)
    if out.suffix != ".ipynb":
        raise UserError(f"{out} is no name of a notebook: expected one in .ipynb, such as {path.name}")
    if out.resolve().parent == folder().resolve():
        raise UserError(f"{out} lies among the notebooks that are executed: name another folder")
    checked = check_parameters(path, given)
    check_writable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.is_dir():
        raise UserError(f"{out} is a folder: name the executed notebook, such as {out / path.name}")
    partial = partial_of(out.with_suffix(""), PARTIAL)
    clear(out.with_suffix(""), PARTIAL)
    os.environ[LINES] = "1"
    say(f"notebook {path.stem}{''.join(f', {value}' for key, value in checked.items() if key != 'profile')}")
    logging.getLogger("papermill").setLevel(logging.WARNING)
    sockets = tempfile.mkdtemp(prefix="s2r-")
    try:
        executed = papermill.execute_notebook(
            str(path),
            str(partial),
            parameters=checked,
            kernel_name="python3",
            cwd=str(home()),
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            log_output=False,
            config=Config(
                {
                    # ports race when notebooks start together, and so do sockets of one folder
                    "KernelManager": {"transport": "ipc", "ip": f"{sockets}/k"},
                    # else a kernel that is asked to end says now and then that it was interrupted, as if it were an error
                    "NotebookClient": {"extra_arguments": ["--IPKernelApp.log_level=CRITICAL"]},
                }
            ),
        )
    except PapermillExecutionError as error:
        if error.ename in user_errors():
            partial.unlink(missing_ok=True)
            raise UserError(error.evalue) from error
        failed = out.with_suffix(".failed.ipynb")
        partial.replace(failed)
        raise JobError(f"notebook {path.stem} failed: {error.ename}: {error.evalue} (see {failed})") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(executed)
    write_text_atomic(out.with_suffix(".html"), page)
    partial.replace(out)
    out.with_suffix(".failed.ipynb").unlink(missing_ok=True)
    return out


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """In a job of a run, leave what the user has to mend where `run` finds it."""
    try:
        yield
    except UserError as error:
        if place := os.environ.get(TOLD):
            write_text_atomic(Path(place), str(error))
        raise


def _typed(notebook: str, parameter: Parameter, value: object) -> object:
    wanted = TYPES.get(parameter.type.split("[")[0])
    if wanted is None or (wanted is str and isinstance(value, str)):
        return value
    try:
        found = yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        found = value
    if wanted is float and isinstance(found, int) and not isinstance(found, bool):
        found = float(found)
    if not isinstance(found, wanted) or (isinstance(found, bool) and wanted is not bool):
        raise UserError(
            f"notebook {notebook}: parameter '{parameter.name}' must be {parameter.type}, such as {parameter.default}: found {value!r}"
        )
    return found
