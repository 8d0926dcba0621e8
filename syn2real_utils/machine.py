"""What this machine and this code are: written beside every run, so that a run explains itself."""

import contextlib
import ctypes
import gc
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch

from syn2real_utils import __version__
from syn2real_utils.errors import GpuMemoryError, out_of_memory

Precision = Literal["float32", "bfloat16"]
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
KEPT = 1 << 30  # bytes that may stay
LARGER = "use a GPU with more memory, or the processor alone (set CUDA_VISIBLE_DEVICES to nothing)"
PACKAGES = ("torch", "transformers", "datasets", "jiwer", "onnxruntime", "papermill", "snakemake")


def about() -> dict[str, object]:
    """Code, machine and versions as plain data."""
    return {
        "syn2real_utils": __version__,
        "commit": commit(),
        "machine": f"{cpu()}, {os.cpu_count()} cores, {memory_gb():.0f} GB of memory",
        "GPU": gpu() or "none",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": _packages(),
    }


def commit() -> str:
    """Commit of the code, with "+changes" when the working tree differs; "unknown" outside a git checkout."""
    folder = Path(__file__).parent
    try:
        found = _git(folder, "rev-parse", "--short=12", "HEAD")
        return found + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpu() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def memory_gb() -> float:
    """Memory of the machine in GB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def gpu() -> str | None:
    """Name of the first GPU."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision(wanted: Literal["auto", "float32", "bfloat16"]) -> Precision:
    """What products are computed in: `auto` is bfloat16 where the machine has instructions for it."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"


def slower(wanted: Literal["auto", "float32", "bfloat16"] = "auto") -> str:
    """What to say beside an estimate of hours, which is of processors that compute in bfloat16; "" where it holds."""
    if torch.cuda.is_available() or precision(wanted) == "bfloat16":
        return ""
    return " (measured in bfloat16; in float32, as here, expect three to five times as long)"


def keep_memory() -> None:
    """Let glibc keep what this process gives back, so that the next step need not have it cleared by the kernel again.

    Large tensors come and go in every training step; the same bytes, about 14 % less time for a step of Whisper base.
    """
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):  # of glibc alone
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)


@contextlib.contextmanager
def enough_memory(what: str, remedy: str = LARGER) -> Iterator[None]:
    """Turn a GPU's lack of memory into the user's error; `remedy`: which setting to lower."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise GpuMemoryError(f"{what}: the GPU's memory does not suffice: {remedy}", what) from error


def lower(setting: str, now: int, below: int | None = None) -> str:
    """A remedy: a setting to lower (`below`: so far that it matters); where it cannot be lower, another GPU or none."""
    below = now if below is None else below
    return LARGER if below == 1 else f"lower {setting} below {below} (it is {now})"


def give_back_memory() -> None:
    """Hand back what `keep_memory` kept, where a piece of work is done and the next is of another kind."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def versions() -> str:
    """One line for a notebook: code and versions."""
    return f"syn2real_utils {__version__} at {commit()}; " + _packages()


def _packages() -> str:
    return ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return result.stdout.strip()
