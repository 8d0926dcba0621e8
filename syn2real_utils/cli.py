"""The command line: `syn2real ...`. Exit status 0 done, 2 bad input (one clear line), 1 a fault of ours."""

import contextlib
import errno
import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from syn2real_utils import __version__
from syn2real_utils.cli_shared import Json, Out, Overwrite, Private, RepoId, as_json
from syn2real_utils.cli_vector import vector
from syn2real_utils.errors import JobError, UserError, disk_full, out_of_memory
from syn2real_utils.signals import ended_like_interrupted

# Modules that import torch or transformers are imported by the command that needs them: `--help` answers at once.

app = typer.Typer(
    name="syn2real",
    help="SYN2REAL: task arithmetic that closes the synthetic-to-real gap in speech recognition.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(vector, name="vector")

# What the system says of a path that a user gave: too long, not permitted, in a file, there already, read only
PATH_ERRORS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EROFS)
STOPPED = 130  # exit status after Ctrl-C, as shells have it, and after kill
# Parameters of notebooks that can be a path
PATHS = ("profile", "texts", "backbone", "vector", "devel", "real", "unlabelled")
WORDS = ("auto", "none")  # what the parameter `vector` can be instead
Parameters = Annotated[list[str] | None, typer.Option("-p", "--parameter", help="name=value; may be given again.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key=value of the profile, e.g. training.epochs=1.")]


@app.command()
def doctor(in_json: Json = False) -> None:
    """Say what this machine has, and what each profile lacks."""
    from syn2real_utils import doctor as examination

    found = examination.examine()
    typer.echo(as_json(found) if in_json else examination.text(found))


@app.command()
def run(
    profile: Annotated[str, typer.Argument(help="Name of a profile, or the path of its YAML file.")],
    cores: Annotated[int, typer.Option(help="Cores of this machine to use; 0: all.", min=0)] = 0,
    executor: Annotated[str, typer.Option(help="Where jobs run: local, slurm or kubernetes.")] = "local",
    jobs: Annotated[int, typer.Option(help="Most jobs at once on a cluster; 0: no limit.", min=0)] = 0,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--executor-option",
            metavar="NAME=VALUE",
            help="An option of Snakemake's plug-in, e.g. slurm-status-command=squeue; may be given again.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done: jobs, hours, gigabytes.")] = False,
    settings: Settings = None,
    in_json: Json = False,
) -> None:
    """Run a profile: all notebooks, tables, figures and the report. A run that was stopped goes on where it was."""
    from syn2real_utils.executors import Executor
    from syn2real_utils.profile import load_profile, parse_overrides

    where = Executor(executor, cores, jobs, tuple(options or [])).check()
    resolved = load_profile(profile, parse_overrides(settings or []))
    from syn2real_utils import runs  # takes seconds to import: a mistyped profile is told before

    if dry_run:
        found = runs.preview(resolved, where)
        typer.echo(as_json(found.as_data()) if in_json else found.text())
    elif in_json:
        raise UserError("--json is for --dry-run: a finished run has its numbers in runs/NAME/tables")
    else:
        typer.echo(runs.run(resolved, where))


@app.command()
def notebook(
    name: Annotated[str, typer.Argument(help="Name or number of a notebook, e.g. 03_finetune or 03.")],
    parameters: Parameters = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The executed copy; default runs/notebooks/NAME.ipynb.")
    ] = None,
) -> None:
    """Execute one notebook through papermill, its parameters checked first."""
    from syn2real_utils import notebook as runner
    from syn2real_utils.store import home

    given = _pairs("-p", parameters)
    if Path.cwd() != home():  # the kernel works in the project's folder
        given |= _absolute(given)
    target = out or home() / "runs" / "notebooks" / f"{runner.notebook_path(name).stem}.ipynb"
    with runner.telling():
        runner.execute(name, given, target)
    typer.echo(f"executed {target}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a model, or the name of a backbone.")],
    corpus: Annotated[Path, typer.Argument(help="AudioFolder with metadata.csv: file_name,transcription,domain.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV to write: one row per utterance.")],
    domain: Annotated[str | None, typer.Option(help="Only this domain.")] = None,
    language: Annotated[str | None, typer.Option(help="ISO 639-1; default: the folder's column `language`.")] = None,
    full_context: Annotated[bool, typer.Option("--full-context", help="Pad every clip to 30 s.")] = False,
    in_json: Json = False,
) -> None:
    """Score a model on real speech: WER and CER with their intervals, and a row of edit counts per utterance."""
    from syn2real_utils import standalone

    with contextlib.redirect_stdout(sys.stderr):  # what is said on the way is no part of the answer
        result = standalone.evaluate(model, corpus, out, domain, language, full_context)
    typer.echo(as_json(result.as_data()) if in_json else result.line())


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.csv", help="Utterance rows of the baseline.")],
    b: Annotated[
        Path, typer.Argument(metavar="B.csv", help="Utterance rows of what is compared with it; may be A.csv.")
    ],
    only: Annotated[list[str] | None, typer.Option("--only", help="column=value of both, e.g. tts=pico.")] = None,
    only_a: Annotated[list[str] | None, typer.Option("--a", help="column=value of A, e.g. model=syn_target.")] = None,
    only_b: Annotated[list[str] | None, typer.Option("--b", help="column=value of B, e.g. lam=chosen.")] = None,
    samples: Annotated[int, typer.Option(help="Bootstrap resamples.")] = 10_000,
    confidence: Annotated[float, typer.Option(help="Of the intervals; p below 1 - this is significant.")] = 0.95,
    in_json: Json = False,
) -> None:
    """Compare two systems on the same utterances: WER of both, the difference, its interval and p, by domain and pooled."""
    from syn2real_utils import comparison, tables

    of_both = _pairs("--only", only)
    of_a, of_b = of_both | _pairs("--a", only_a), of_both | _pairs("--b", only_b)
    found = comparison.compare(a, b, of_a, of_b, samples, confidence)
    if in_json:
        typer.echo(as_json([asdict(row) for row in found]))
    else:
        typer.echo(tables.as_text(comparison.as_table(found, confidence, samples), 118))


@app.command()
def transcribe(
    model: Annotated[str, typer.Argument(help="Folder of a model, or the name of a backbone.")],
    clips: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CLIPS...", help="wav, flac, ogg or mp3 of any length; folders are searched."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; for SRT of several clips, a folder.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="text, json, csv or srt (subtitles).")] = "text",
    language: Annotated[str | None, typer.Option(help="ISO 639-1; default: the model's own.")] = None,
    full_context: Annotated[bool, typer.Option("--full-context", help="Pad every piece to 30 s.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace transcripts that stand there.")] = False,
) -> None:
    """Print what a model hears in clips, or write it to a file."""
    from syn2real_utils.transcripts import Output, find_clips

    files = find_clips(clips or [])
    output = Output(form, out, overwrite).check(files)
    from syn2real_utils import transcription  # imports torch

    with contextlib.redirect_stdout(sys.stderr):  # what is said on the way is no part of the answer
        heard = transcription.transcribe(model, files, language, full_context)
    typer.echo(output.write(heard), nl=False)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Folder of a Whisper, or the name of a backbone.")],
    to: Annotated[str, typer.Option("--to", help="ctranslate2 (for faster-whisper) or ggml (for whisper.cpp).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder (ctranslate2) or file (ggml) to write.")],
    quantization: Annotated[str, typer.Option(help="float16; for ctranslate2 also float32 and int8.")] = "float16",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that stands there.")] = False,
) -> None:
    """Write a model for faster-whisper or whisper.cpp."""
    from syn2real_utils import exports
    from syn2real_utils.backbones import sources
    from syn2real_utils.store import Store

    with contextlib.redirect_stdout(sys.stderr):  # what is said on the way is no part of the answer
        own = Path(model).is_dir() and not sources.carried(model)
        folder = Path(model) if own else sources.resolve(model, Store())
        exports.export(folder, to, out, quantization, overwrite)
    typer.echo(f"wrote {out}")


@app.command()
def adapt(
    texts: Annotated[Path, typer.Option(help="Texts of your domain: .txt (a text a line), .csv or .jsonl.")],
    language: Annotated[str, typer.Option(help="ISO 639-1, such as es.")],
    tts: Annotated[str, typer.Option(help="Engines that speak the texts, such as kokoro,pico.")],
    out: Out,
    backbone: Annotated[str, typer.Option(help="base, tiny.en, a local folder or a hub name.")] = "base",
    vector: Annotated[
        str,
        typer.Option(
            help="auto, none, the folder of a vector, of a run or of several vectors, or owner/name on the hub."
        ),
    ] = "auto",
    lam: Annotated[str, typer.Option(help="auto, a number, or devel (the best on the clips of --devel).")] = "auto",
    domain: Annotated[str | None, typer.Option(help="What the domain is called; default: as the file.")] = None,
    takes: Annotated[int, typer.Option(help="Clips of each text and TTS.")] = 1,
    keep: Annotated[float, typer.Option(help="Share of the pretrained weights in the result, 0 to 1.")] = 0.0,
    devel: Annotated[
        Path | None,
        typer.Option(help="Real clips that prove it: a folder with them and metadata.csv (file_name,transcription)."),
    ] = None,
    real: Annotated[Path | None, typer.Option(help="AudioFolder of real clips for the rival `joint`.")] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="Folder of real clips without transcripts: lam is where the model is surest of them."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the fine-tunes and of the voices.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Default: one for each core.")] = None,
    overwrite: Overwrite = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before long work.")] = False,
    repo_id: RepoId = None,
    private: Private = False,
) -> None:
    """Make a model for real speech of your own domain from its texts alone."""
    from syn2real_utils.adapt import adapt as make

    make(
        texts, language, backbone, tts, out, vector=vector, lam=lam, domain=domain, takes=takes, keep=keep, devel=devel,
        real=real, unlabelled=unlabelled, seed=seed, threads=threads, overwrite=overwrite, yes=yes, push_to_hub=repo_id, private=private,
    )  # fmt: skip


@app.command()
def figures(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run, or a folder of its CSV.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Copy them here, rows and all, to be committed.")
    ] = None,
) -> None:
    """Make every table and figure of a run again from its CSV; neither a model nor torch is needed."""
    from syn2real_utils import committed, report

    folder = report.find(run_name)
    if out:
        committed.check_into(folder, out)
    if out and report.is_flat(folder) and out.resolve() != folder.resolve():  # what is committed stays as it is
        committed.keep(folder, out)
        folder = out
    if report.is_flat(folder):
        out = None
    drawn = report.redraw(folder)
    for path in drawn if out is None else committed.keep(folder, out):
        typer.echo(path)


@app.command(name="report")
def report_command(run_name: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run.")]) -> None:
    """Write the HTML report of a run, with the clips of its examples inside."""
    from syn2real_utils import notebook, runs

    with notebook.telling():
        typer.echo(runs.write_report(runs.find(run_name)))


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="train, decode, lam-sweep, vector, synthesize, quickstart or executor.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file to write as well.")] = None,
) -> None:
    """Measure speed against what people would otherwise use, in one run; print JSON with the ratio."""
    from syn2real_utils.bench import base
    from syn2real_utils.store import check_writable, write_text_atomic

    if out and out.is_dir():
        raise UserError(f"{out} is a folder: name the JSON file to write, such as {out / f'{name}.json'}")
    if out:
        check_writable(out)
    with contextlib.redirect_stdout(sys.stderr):  # what is said on the way is no part of the answer
        found = as_json(base.run(name))
    if out:
        write_text_atomic(out, found + "\n")
    typer.echo(found)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context, show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Answer --version."""
    if show:
        typer.echo(f"syn2real {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `syn2real`."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows only ASCII shows the rest as escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _check_names(sys.argv[1:] if arguments is None else arguments)
        with ended_like_interrupted():
            status = app(arguments, standalone_mode=False)
    except UserError as error:
        _refuse(str(error))
    except JobError as error:
        sys.stderr.write(f"failed: {error}\n")
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except Exception as error:
        if disk_full(error):
            _refuse(f"no space left on the disk: free some and call again ({error})".replace("\n", " "))
        if out_of_memory(error):
            _refuse(
                "the GPU's memory does not suffice: use another GPU, or the processor alone (set CUDA_VISIBLE_DEVICES to nothing)"
            )
        if isinstance(error, OSError) and error.filename and error.errno in PATH_ERRORS:
            _refuse(f"{str(error.filename)[:200]}: {str(error.strerror).lower()}; name another path")
        if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # of Path.resolve
            _refuse(f"{str(error).removeprefix('Symlink loop from ')} is a link to itself; name another path")
        if isinstance(error, RuntimeError) and str(error).startswith("Could not determine home"):  # of Path.expanduser
            _refuse("a path begins with ~ and the name of nobody on this machine; write it out")
        if not hasattr(error, "format_message"):  # what typer makes of a wrong option or argument
            raise
        _refuse(error.format_message())
    if status == STOPPED:  # typer makes a status of Ctrl-C, or raises what it was, by its version
        sys.stderr.write("stopped; call again to go on\n")
    sys.exit(status if isinstance(status, int) else 0)


def _check_names(arguments: list[str]) -> None:
    for argument in arguments:
        if any("\udc80" <= letter <= "\udcff" for letter in argument):
            raise UserError(f"{argument!a} is not UTF-8: rename the file, or call from a terminal in UTF-8")


def _refuse(message: str) -> NoReturn:
    if sys.stderr is None:  # closed by the caller
        sys.exit(2)
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(2)


def _absolute(given: dict[str, str]) -> dict[str, str]:
    """The parameters that name what is here, as whole paths; a profile is a file, never a folder that is called so."""
    from syn2real_utils.backbones.sources import carried

    def is_name(parameter: str, value: str) -> bool:  # whatever lies here
        return (parameter == "backbone" and bool(carried(value))) or (parameter == "vector" and value in WORDS)

    paths = {name: given[name] for name in PATHS if given.get(name)}
    here = {name: Path(p).expanduser() for name, p in paths.items() if not is_name(name, p)}
    return {name: str(p.resolve()) for name, p in here.items() if p.is_file() or (name != "profile" and p.is_dir())}


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    """The name=value of an option that may be given several times, each name once."""
    pairs = [_pair(text) for text in texts or []]
    if len(found := dict(pairs)) < len(pairs):
        twice = next(name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1)
        raise UserError(f"{option} {twice}=... is given more than once: choose one value")
    return found


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UserError(f"parameter '{text}': expected name=value, e.g. profile=quickstart")
    return name, value


if __name__ == "__main__":
    main()
