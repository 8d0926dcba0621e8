"""SVOX Pico: HMM TTS, one voice per accent, in the package py-nanotts. Apache-2.0; see data/README.md.

Pico computes with memory that it never sets, so a clip's bytes depend on what was spoken before; and it hangs on some texts,
which only a process can be stopped in. So it speaks in processes of its own, `pico_server`, one for each clip that is spoken at
once, where the C library (glibc) sets all memory before it hands it out: the bytes are those of a new process for each clip.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from syn2real_utils.profile import TtsPart
from syn2real_utils.store import Store
from syn2real_utils.tts import pico_server

RATE = 16_000  # Hz
SPEED = (0.85, 1.15)  # our choice: about what careful readers differ by, well understood
PITCH = (0.80, 1.20)  # our choice: one voice must stand for many, well understood
VOLUME = 0.5  # at its own volume, 1, Pico overdrives its 16 bits: more than 1 % of the samples are clipped
PATIENCE = 60.0  # seconds; a text of 30 s takes 0.1 s
CLEAN_MEMORY = {"MALLOC_PERTURB_": "255"}  # glibc hands out zeros (255 inverted), as the kernel does to a new process
MARKUP = str.maketrans("<>&", "   ")  # Pico reads tags in the text


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

    def __init__(self, store: Store, part: TtsPart | None = None):
        spec = find_spec("py_nanotts")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("py-nanotts is not installed")
        self._command = [sys.executable, "-I", "-S", pico_server.__file__, str(Path(spec.origin).parents[1])]
        self._idle: list[subprocess.Popen] = []  # servers that wait for a clip
        weakref.finalize(self, _stop, self._idle)

    def settings(self, seed: int) -> dict[str, Any]:
        """Speed and pitch that the seed draws, both relative to the voice's own."""
        draw = random.Random(seed)
        return {"speed": round(draw.uniform(*SPEED), 2), "pitch": round(draw.uniform(*PITCH), 2), "volume": VOLUME}

    def wanted(self, spoken: str, voice: str, seed: int) -> dict[str, Any]:
        """What NanoTTS is asked for."""
        text = " ".join(spoken.translate(MARKUP).replace("\0", " ").split())
        return {"text": text, "voice": voice, **self.settings(seed)}

    def speak(self, spoken: str, voice: str, language: str, seed: int) -> tuple[np.ndarray, int]:
        """A wave, float32 (samples,), and its rate."""
        wanted = self.wanted(spoken, voice, seed)
        try:
            server = self._idle.pop()
        except IndexError:  # all of them speak
            server = self._start()
        questions, answers = _pipes(server)
        try:
            questions.write(json.dumps(wanted).encode() + b"\n")
            questions.flush()
            what, size = answers.readline().split()
            answer = answers.read(int(size))
            if len(answer) < int(size):
                raise EOFError
        except (BrokenPipeError, ValueError, EOFError):  # it has ended, and left no whole answer
            _stop([server])
            if server.returncode == -signal.SIGALRM:
                return np.zeros(0, np.float32), RATE
            raise RuntimeError(f"Pico broke on {wanted}: status {server.returncode}") from None
        self._idle.append(server)
        if what != b"pcm":
            raise RuntimeError(f"Pico broke on {wanted}: {answer.decode()[-300:]}")
        return np.frombuffer(answer, "<i2").astype(np.float32) / 32768, RATE

    def _start(self) -> subprocess.Popen:
        environment = {**os.environ, **CLEAN_MEMORY}
        return subprocess.Popen(
            [*self._command, str(PATIENCE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what is to be known comes with the answer
            env=environment,
        )


def _pipes(server: subprocess.Popen) -> tuple[IO[bytes], IO[bytes]]:
    assert server.stdin is not None and server.stdout is not None, "both were asked for"
    return server.stdin, server.stdout


def _stop(servers: list[subprocess.Popen]) -> None:
    """End servers that have nothing to say any more."""
    for server in servers:
        server.kill()  # faster than an end that it comes to itself; one that has ended keeps its status
        for pipe in _pipes(server):
            with contextlib.suppress(BrokenPipeError):  # a question that it did not read
                pipe.close()
        server.wait()
