"""Let torchaudio import beside a torch without CUDA: speechbrain, which computes x-vectors, asks for it.

`python -m syn2real_utils.torchaudio_cpu`, called once by `make setup`. PyPI has torchaudio for Linux with CUDA alone; its
compiled part does not load beside a torch for the processor, and nothing that speechbrain needs is in it. torchaudio works
without that file, so it is taken away where it cannot be loaded.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

COMPILED = "_torchaudio.abi3.so"


def mend() -> str:
    """What was found: "works", "mended", or "not installed".

    Raises:
        RuntimeError: torchaudio cannot be imported even so.
    """
    spec = find_spec("torchaudio")
    if spec is None or spec.origin is None:
        return "not installed"
    if _imports():
        return "works"
    (Path(spec.origin).parent / "lib" / COMPILED).unlink(missing_ok=True)
    if not _imports():
        raise RuntimeError("torchaudio cannot be imported, with and without its compiled part")
    return "mended"


def _imports() -> bool:
    """Whether a new process can import it: a library that failed to load is not tried twice in one."""
    return subprocess.run([sys.executable, "-c", "import torchaudio"], capture_output=True).returncode == 0


if __name__ == "__main__":
    mend()
