"""The same clips through the runtimes in which people use a model, greedily, on two threads of the CPU.

Pinned everywhere: language and task, no timestamps, temperature 0 without fallback, one beam, nothing carried over from
the clip before, no voice detection, no clip dropped as silence. What stays different, because it is how these runtimes
work:

- Context: transformers and whisper.cpp compute the log-mel of a clip followed by silence up to 30 s; faster-whisper pads
  the finished log-mel with zeros, which lie far above silence.
- Log-mel: each has its own code.
- Suppressed tokens: transformers takes the model's own list, faster-whisper and whisper.cpp compute theirs of symbols and
  brackets. whisper.cpp does so only when asked (`suppress_nst`), which it is here, so that all three have one.
- Arithmetic: the type of the weights is the export's; faster-whisper computes in float32 (or int8), whisper.cpp holds
  keys and values in float16 and takes gelu from a table of float16.
- A model that loops is stopped after 448 tokens by transformers and faster-whisper, after about 220 by whisper.cpp.
"""

import importlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from syn2real_utils import audio
from syn2real_utils.errors import UserError, names

THREADS = 2


@dataclass(frozen=True)
class Heard:
    """What a runtime made of clips."""

    texts: list[str]
    seconds: float  # from waves in memory to texts, one clip at a time; the model was loaded before
    loading: float  # seconds


def transcribe_with(runtime: str, model: Path, clips: Sequence[Path | str], language: str, warm: bool = False) -> Heard:
    """Transcribe clips with a runtime.

    Args:
        runtime: one of `RUNTIMES`.
        model: what it opens: a `save_pretrained` folder, or what `exports.export` wrote for ctranslate2 or ggml.
        clips: audio files of at most 30 s.
        language: ISO 639-1.
        warm: hear the first clip once before time is taken.

    Raises:
        UserError: no such runtime, it is not installed, or there is no model.
    """
    if runtime not in RUNTIMES:
        raise UserError(f"no runtime '{runtime}': use one of {names(RUNTIMES)}")
    if not model.exists():
        raise UserError(f"no model at {model}")
    waves, threads = [audio.read(clip) for clip in clips], torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        start = time.perf_counter()
        hear = RUNTIMES[runtime](model, language)
        if warm:
            hear(waves[0])
        loaded = time.perf_counter()
        texts = [hear(wave).strip() for wave in waves]
        return Heard(texts, time.perf_counter() - loaded, loaded - start)
    finally:
        torch.set_num_threads(threads)


def _pipeline(model: Path, language: str) -> Callable[[np.ndarray], str]:
    from transformers import pipeline
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # advice on generation settings, which are the model's own
    asr = pipeline("automatic-speech-recognition", model=str(model), dtype=torch.float32, device="cpu")
    settings = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
    options: dict[str, object] = {"num_beams": 1, "do_sample": False}
    if settings.get("is_multilingual", False):  # a model of English alone takes neither
        options |= {"language": language, "task": "transcribe"}
    return lambda wave: asr({"raw": wave, "sampling_rate": audio.SAMPLE_RATE}, generate_kwargs=options)["text"]


def _faster_whisper(compute_type: str) -> Callable[[Path, str], Callable[[np.ndarray], str]]:
    def load(model: Path, language: str) -> Callable[[np.ndarray], str]:
        faster_whisper = _installed("faster_whisper", "faster-whisper")
        whisper = faster_whisper.WhisperModel(
            str(model), device="cpu", compute_type=compute_type, cpu_threads=THREADS, local_files_only=True
        )

        def hear(wave: np.ndarray) -> str:
            segments, _ = whisper.transcribe(
                wave,
                language=language,
                task="transcribe",
                beam_size=1,
                temperature=0.0,
                without_timestamps=True,
                condition_on_previous_text=False,
                vad_filter=False,
                no_speech_threshold=None,
                log_prob_threshold=None,
                compression_ratio_threshold=None,
            )
            return "".join(segment.text for segment in segments)

        return hear

    return load


def _whisper_cpp(model: Path, language: str) -> Callable[[np.ndarray], str]:
    library = _installed("pywhispercpp.model", "pywhispercpp")
    whisper = library.Model(
        str(model),
        redirect_whispercpp_logs_to=None,
        context_params={"use_gpu": False},
        n_threads=THREADS,
        language=language,
        greedy={"best_of": 1},
        temperature=0.0,
        temperature_inc=0.0,  # no fallback
        no_timestamps=True,
        no_context=True,
        single_segment=True,
        suppress_nst=True,
        no_speech_thold=1.0,  # a probability is never above it
        print_progress=False,
    )
    return lambda wave: "".join(segment.text for segment in whisper.transcribe(wave))


# name: loads a model and gives what transcribes one wave at 16 kHz with it
RUNTIMES: dict[str, Callable[[Path, str], Callable[[np.ndarray], str]]] = {
    "transformers": _pipeline,
    "faster-whisper": _faster_whisper("float32"),
    "faster-whisper-int8": _faster_whisper("int8"),
    "whisper.cpp": _whisper_cpp,
}


def _installed(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{package} is not installed: pip install {package}") from error
