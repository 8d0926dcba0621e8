"""SVOX Pico: HMM TTS, one voice per accent, in the package py-nanotts. Apache-2.0; see data/README.md.

Each clip is spoken in a process of its own (about 40 ms): Pico computes with memory that it never sets, so in one process
a clip's bytes depend on what was spoken before, and it hangs on some texts, which only a process can be stopped in.
"""

import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from syn2real_utils.store import Store

RATE = 16_000  # Hz
SPEED = (0.85, 1.15)  # our choice: about what careful readers differ by, well understood
PITCH = (0.80, 1.20)  # our choice: one voice must stand for many, well understood
VOLUME = 0.5  # at its own volume, 1, Pico overdrives its 16 bits: more than 1 % of the samples are clipped
PATIENCE = 60.0  # seconds; a text of 30 s takes 0.1 s
MARKUP = str.maketrans("<>&", "   ")  # Pico reads tags in the text
CHILD = """
import json, sys
sys.path.append(sys.argv[1])
from py_nanotts import NanoTTS
wanted = json.load(sys.stdin)
try:
    sys.stdout.buffer.write(NanoTTS().speak(**wanted))
except RuntimeError as error:
    if "pico_getData" not in str(error):  # what Pico says of a text that it cannot say
        raise
"""


class Pico:
    """SVOX Pico. The package carries the voices: nothing is fetched."""

    name: ClassVar[str] = "pico"
    voices: ClassVar[dict[str, tuple[str, ...]]] = {
        "de": ("de-DE",),
        "en": ("en-GB", "en-US"),
        "es": ("es-ES",),
        "fr": ("fr-FR",),
        "it": ("it-IT",),
    }

    def __init__(self, store: Store):
        spec = find_spec("py_nanotts")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("py-nanotts is not installed")
        self._packages = str(Path(spec.origin).parents[1])
        # glibc then hands out memory full of zeros (255 inverted), as a new process has it anyway
        self._environment = {**os.environ, "MALLOC_PERTURB_": "255"}

    def settings(self, seed: int) -> dict[str, Any]:
        """Speed and pitch that the seed draws, both relative to the voice's own."""
        draw = random.Random(seed)
        return {"speed": round(draw.uniform(*SPEED), 2), "pitch": round(draw.uniform(*PITCH), 2), "volume": VOLUME}

    def speak(self, spoken: str, voice: str, language: str, seed: int) -> tuple[np.ndarray, int]:
        """A wave, float32 (samples,), and its rate."""
        text = " ".join(c for c in spoken.translate(MARKUP).replace("\0", " ").split())
        wanted = {"text": text, "voice": voice, **self.settings(seed)}
        try:
            child = subprocess.run(
                [sys.executable, "-I", "-c", CHILD, self._packages],
                input=json.dumps(wanted).encode(),
                capture_output=True,
                env=self._environment,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            return np.zeros(0, np.float32), RATE
        if child.returncode:
            raise RuntimeError(f"Pico broke on {wanted}: status {child.returncode}, {child.stderr.decode()[-300:]}")
        return np.frombuffer(child.stdout, "<i2").astype(np.float32) / 32768, RATE
