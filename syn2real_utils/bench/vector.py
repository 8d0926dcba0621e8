"""theta_base + lam * tau on disk, against `cp` of the base and against mergekit's `linear` merge.

The checkpoint has the shapes of Whisper large-v3 (1.54 billion parameters) in four shards, and its type, float16: that is how it is
published, and the hardest case, because tau is float32 and twice as large. Floor: 6 bytes of each parameter are read and 2
written, where `cp` reads 2 and writes 2. Before each run its inputs are read once, and the output of the last one is deleted.

Measured twice. In memory: outputs go to a file system in memory (/dev/shm, where it has room), so that only work counts; on a disk
the kernel slows down whoever writes 3 GB at once, one run in two on a machine with 24 GB. On the disk: the seconds until
everything is written, `sync` included. `cp` and ours take turns, so that a slow minute of the machine is slow for both.
mergekit comes last: what it reads would leave no room for the page cache.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage, rmtree
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import WhisperConfig, WhisperForConditionalGeneration

from syn2real_utils import checkpoints
from syn2real_utils.bench.base import Goal, Measured, Side, check_equal, peer
from syn2real_utils.errors import JobError, UserError
from syn2real_utils.progress import say
from syn2real_utils.store import home
from syn2real_utils.tensorfiles import INDEX

LAM = 0.4
ROUNDS, PEER_ROUNDS = 5, 2
FREE_GB = 26  # three models of 3 GB, tau of 6 GB, two outputs, and some room
SHARD_BYTES = 1_000_000_000
MERGEKIT = [
    "mergekit==0.1.5",
    "peft==0.21.2",
    "immutables==0.21",
]  # LGPL-3: run, not copied; what it needs else we have
# Source: config.json of openai/whisper-large-v3.
LARGE: dict[str, Any] = {
    "vocab_size": 51866,
    "num_mel_bins": 128,
    "d_model": 1280,
    "encoder_layers": 32,
    "decoder_layers": 32,
    "encoder_attention_heads": 20,
    "decoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "decoder_ffn_dim": 5120,
}
IN_PROCESS = """
import sys, time
from syn2real_utils import checkpoints
start = time.perf_counter()
checkpoints.apply(*sys.argv[1:])
print(time.perf_counter() - start)
"""
# mergekit 0.1.5 lacks a dot in what it knows of Whisper's decoder, and stops at "model.decoderembed_tokens.weight".
LINEAR = """
from mergekit.architecture.json_definitions import NAME_TO_ARCH
from mergekit.scripts.run_yaml import main
for known in NAME_TO_ARCH["WhisperForConditionalGeneration"]:
    known.modules["decoder"] = known.modules["decoder"].model_copy(update={"weight_prefix": "model.decoder."})
main()
"""


@dataclass
class Turns:
    """A command that is run again and again, and what its processes took."""

    command: list[object]
    out: Path
    inputs: list[Path]  # read once before each run
    rounds: int = ROUNDS
    durable: bool = False  # until the disk has it
    seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0  # resident, files mapped into memory included
    anonymous_mib: float = 0  # resident, without files

    def median(self) -> float:
        """Seconds of the middle run."""
        return statistics.median(self.seconds)

    def side(self, name: str, **more: object) -> Side:
        """The median, with the peaks of memory."""
        peaks = {"peak resident MiB": round(self.peak_mib), "of that anonymous MiB": round(self.anonymous_mib)}
        return Side(name, self.median(), self.seconds, peaks | more)


def measure() -> Measured:
    """Build the models, let every side work, compare what they wrote."""
    packages = peer("mergekit", MERGEKIT)
    runs = home() / "runs"
    runs.mkdir(exist_ok=True)
    if (free := disk_usage(runs).free / 1e9) < FREE_GB:
        raise UserError(f"the bench needs {FREE_GB} GB of disk below {runs}, found {free:.0f}: free some")
    with tempfile.TemporaryDirectory(prefix="bench-vector-", dir=runs) as folder:
        return _measure(Path(folder), packages)


def build(folder: Path, sizes: dict[str, Any], shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Write base, real and syn: float16 models near a common one, in shards with an index."""
    config = WhisperConfig(**sizes, architectures=["WhisperForConditionalGeneration"], dtype="float16")
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items() if key != "proj_out.weight"}  # tied
    numbers = max(shape.numel() for shape in shapes.values()) + 1009  # every tensor takes them from another start
    common = torch.randn(numbers, generator=torch.Generator().manual_seed(0)) * 0.02
    made = []
    for seed, name in enumerate(("base", "real", "syn"), 1):
        say(f"  making {name}")
        values = common + 1e-3 * torch.randn(numbers, generator=torch.Generator().manual_seed(seed))
        made.append(folder / name)
        config.save_pretrained(made[-1])
        _write_shards(made[-1], shapes, values.half(), shard_bytes)
    return made


def _write_shards(folder: Path, shapes: dict[str, torch.Size], values: Tensor, shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    for place, (key, shape) in enumerate(shapes.items()):
        if sum(tensor.nbytes for tensor in shards[-1].values()) + 2 * shape.numel() > shard_bytes:
            shards.append({})
        start = place * 8191 % (len(values) - shape.numel())
        shards[-1][key] = values[start : start + shape.numel()].view(shape)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({key: tensor.clone() for key, tensor in shard.items()}, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, name)
    size = 2 * sum(shape.numel() for shape in shapes.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}))


def _measure(folder: Path, packages: Path) -> Measured:
    base, real, syn = build(folder, LARGE)
    tau = folder / "tau"
    checkpoints.subtract(real, syn, tau)
    os.sync()
    for source in (real, syn):
        _forget(source)
    with tempfile.TemporaryDirectory(prefix="bench-vector-", dir=_memory(base) or folder) as quick:
        cp, whole, core = (_side(name, Path(quick), base, tau) for name in ("cp", "whole", "core"))
        cp_disk, whole_disk = (_side(name, folder, base, tau, durable=True) for name in ("cp", "whole"))
        _rounds([cp, whole, core, cp_disk, whole_disk], packages)
        recipe = _recipe(folder / "linear.json", base, real, syn)
        theirs = Path(quick) / "theirs"  # where `whole` writes too
        merge = [sys.executable, "-c", LINEAR, recipe, theirs, "--quiet"]
        linear = Turns(merge, theirs, [base, real, syn], PEER_ROUNDS)
        _turn(whole, packages)  # its output is compared
        _rounds([linear], packages)
        work = _compare(whole.out, linear.out, base, real, syn)
    work |= {"lam": LAM, "bytes of tau": _bytes(tau), "bytes of base": _bytes(base)}
    pairs = ((core, cp), (whole, cp), (whole_disk, cp_disk), (linear, whole))
    core_ratio, ratio, on_disk, faster = (a.median() / b.median() for a, b in pairs)
    peak = max(side.peak_mib for side in (whole, whole_disk))
    goals = [
        Goal("apply, imports done: at most 1.5 x cp of the base", core_ratio, core_ratio <= 1.5),
        Goal("the whole command, until the disk has it: at most 1.5 x cp of the base", on_disk, on_disk <= 1.5),
        Goal("the whole command, imports included: at most 1.5 x cp of the base", ratio, ratio <= 1.5),
        Goal("peak resident memory of the command: at most 1024 MiB", peak, peak <= 1024),
        Goal("the whole command is faster than mergekit's: above 1", faster, faster > 1),
    ]
    more = {
        "imports done": core.median(), "imports done, repeats": core.seconds,
        "until the disk has it": whole_disk.median(), "until the disk has it, repeats": whole_disk.seconds,
    }  # fmt: skip
    peers = [cp.side("cp of the base"), cp_disk.side("cp, until the disk has it"), linear.side("mergekit linear")]
    return Measured("checkpoint", whole.side("syn2real vector apply", **more), peers, goals, work)


def _side(name: str, folder: Path, base: Path, tau: Path, durable: bool = False) -> Turns:
    """`cp` of the base, the whole command, or what it calls, writing into `folder`."""
    out = folder / f"{name}-out"
    commands: dict[str, list[object]] = {
        "cp": ["cp", "-r", "--reflink=never", base, out],
        "whole": [sys.executable, "-m", "syn2real_utils.cli", "vector", "apply", base, tau, "--lam", LAM, "-o", out],
        "core": [sys.executable, "-c", IN_PROCESS, base, tau, LAM, out],
    }
    return Turns(commands[name], out, [base] if name == "cp" else [base, tau], durable=durable)


def _memory(base: Path) -> Path | None:
    """A file system in memory that has room for two models."""
    shm = Path("/dev/shm")
    return shm if shm.is_dir() and disk_usage(shm).free > 2.2 * _bytes(base) else None


def _rounds(sides: list[Turns], packages: Path) -> None:
    """Let the sides take turns; each leaves its last output until its next turn, or none if it is one of several."""
    for number in range(max(side.rounds for side in sides)):
        for side in sides:
            if number < side.rounds:
                _turn(side, packages)
                if len(sides) > 1:
                    rmtree(side.out)


def _turn(side: Turns, packages: Path) -> None:
    rmtree(side.out, ignore_errors=True)
    os.sync()
    for file in (file for source in side.inputs for file in source.iterdir()):
        _read(file)
    side.seconds.append(_run(side, packages))
    say(f"  {side.out.name}: {side.seconds[-1]:.2f} s, {side.peak_mib:.0f} MiB")


def _run(side: Turns, packages: Path) -> float:
    """Run its command, watch its memory, and return seconds: what it printed itself, or the wall time."""
    paths = [str(packages), *filter(None, [os.environ.get("PYTHONPATH")])]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [str(part) for part in side.command],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        )
        while process.poll() is None:
            peaks = _memory_mib(process.pid)
            side.peak_mib = max(side.peak_mib, peaks.get("VmHWM", 0))
            side.anonymous_mib = max(side.anonymous_mib, peaks.get("RssAnon", 0))
            time.sleep(0.005)
        if side.durable:
            os.sync()
        took = time.perf_counter() - start
        said = process.stdout.read() if process.stdout else ""
        if process.returncode:
            errors.seek(0)
            raise JobError(f"a side of the bench failed: {errors.read().decode()[-2000:]}")
    return float(said) if IN_PROCESS in side.command else took


def _memory_mib(pid: int) -> dict[str, float]:
    """VmHWM (the most so far) and RssAnon of a process; empty once it has ended. Not rusage: that counts its parent's.

    Empty also before it runs its command: until then all that it has is its parent's.
    """
    try:
        if Path(f"/proc/{pid}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes():
            return {}
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmHWM", "RssAnon"))}


def _read(file: Path) -> None:
    buffer = bytearray(1 << 20)
    with open(file, "rb", buffering=0) as opened:
        while opened.readinto(buffer):
            pass


def _forget(folder: Path) -> None:
    """Let the system drop the files of a folder from its page cache."""
    for file in folder.iterdir():
        with open(file, "rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _recipe(file: Path, base: Path, real: Path, syn: Path) -> Path:
    """mergekit's configuration (JSON is YAML) of base + lam * real - lam * syn."""
    weights = {base: 1.0, real: LAM, syn: -LAM}
    models = [{"model": str(model), "parameters": {"weight": weight}} for model, weight in weights.items()]
    recipe = {"merge_method": "linear", "parameters": {"normalize": False}, "dtype": "float16", "models": models}
    file.write_text(json.dumps(recipe))
    return file


def _compare(ours: Path, theirs: Path, base: Path, real: Path, syn: Path) -> dict[str, object]:
    """JobError unless both wrote the same tensors to within one step of float16, and a sample is the equation."""
    one, other = _tensors(ours), _tensors(theirs)
    check_equal("the set of tensors", sorted(one), sorted(other))
    sources = [_tensors(folder) for folder in (base, real, syn)]
    numbers = differing = 0
    for place, key in enumerate(sorted(one)):
        mine, yours = one[key](), other[key]()
        steps = (_order(mine) - _order(yours)).abs()
        if place % 100 == 0:
            wide = [source[key]().double() for source in sources]
            expected = (wide[0] + LAM * (wide[1] - wide[2])).half()
            steps = torch.maximum(steps, (_order(mine) - _order(expected)).abs())
        check_equal(f"'{key}' to within one step of float16", int(steps.max()) <= 1, True)
        numbers += steps.numel()
        differing += int(torch.count_nonzero(steps))
    return {"parameters": numbers, "that differ by one step of float16": differing}


def _tensors(folder: Path) -> dict[str, Callable[[], Tensor]]:
    """Key -> a function that reads it, from any safetensors files of a folder."""

    def entries() -> Iterator[tuple[str, Callable[[], Tensor]]]:
        for file in sorted(folder.glob("*.safetensors")):
            opened = safe_open(file, framework="pt")
            yield from ((key, lambda opened=opened, key=key: opened.get_tensor(key)) for key in opened.keys())  # noqa: SIM118

    return dict(entries())


def _order(tensor: Tensor) -> Tensor:
    """float16 as integers in the order of the numbers, one step apart."""
    bits = tensor.contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -32768 - bits, bits)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
