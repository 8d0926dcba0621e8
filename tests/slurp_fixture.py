"""A small SLURP in the layout of its release, audio included: for tests of the corpus and of runs on it."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

DOMAINS = (
    "alarm audio calendar cooking datetime email general iot lists "
    "music news play qa recommendation social takeaway transport weather"
).split()
SPLITS = ("train", "devel", "test")
WISHES = (
    "set the blue",
    "tell me my",
    "i want a new",
    "do not forget the",
    "what about that",
    "show every",
    "play some",
)
SPEAKERS = ("FE-101", "MO-102", "UNK-103", "ME-104", "FO-105")
RATE = 16_000  # Hz


def tone(text: str, seconds: float = 1.4) -> np.ndarray:
    """A sound of its own for each text: float32 (samples,)."""
    dice = np.random.default_rng(list(text.encode()))
    t = np.arange(int(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * pitch * t) for pitch in dice.integers(120, 900, size=3))
    return (0.1 * wave + 0.005 * dice.standard_normal(len(t))).astype(np.float32)


def write(
    root: Path,
    texts: int = 3,
    far: bool = True,
    zipped: bool = False,
    domains: tuple[str, ...] | list[str] = tuple(DOMAINS),
    sound: Callable[[str], np.ndarray] = tone,
) -> Path:
    """Write slurp/*.jsonl, slurp/metadata.json and slurp_real/*.flac below `root`, and return it.

    Args:
        root: folder to fill.
        texts: of each domain; the first is in train, the second in devel, the third in test, all others in train.
        far: also the far microphone's recording of each take, beside the headset's.
        zipped: texts as .jsonl.gz.
        domains: among SLURP's own.
        sound: float32 (samples,) at 16 kHz of a text.
    """
    text, clips = root / "slurp", root / "slurp_real"
    text.mkdir(parents=True)
    clips.mkdir()
    lines: dict[str, list[dict]] = {split: [] for split in (*SPLITS, "train_synthetic")}
    metadata = {}
    for d, domain in enumerate(domains):
        for i in range(texts):
            number, usrid = 100 * d + i, SPEAKERS[(d + i) % len(SPEAKERS)]
            line = _line(number, f"{WISHES[i % len(WISHES)]} {domain}{' again' * (i // len(WISHES))}", domain, far)
            for recording in line["recordings"]:
                soundfile.write(str(clips / recording["file"]), sound(line["sentence"] + recording["file"]), RATE)
            lines[SPLITS[i] if i < len(SPLITS) else "train"].append(line)
            metadata[str(number)] = {
                "sentence_original": line["sentence"],
                "recordings": {r["file"]: {"status": "correct", "usrid": usrid} for r in line["recordings"]},
            }
    synthetic = _line(99_999, "this was spoken by a machine", domains[0], far=False)
    lines["train_synthetic"].append(synthetic | {"recordings": [{"file": "audio-synth-1.flac"}]})
    for split, told in lines.items():
        _write_lines(text / f"{split}.jsonl", told, zipped)
    (text / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    return root


def _line(number: int, sentence: str, domain: str, far: bool) -> dict:
    words = sentence.split()
    tokens = [{"surface": word.capitalize() if i == 0 else word, "id": i} for i, word in enumerate(words)]
    takes = [f"audio-{1_500_000_000 + number}-headset.flac", *([f"audio-{1_500_000_000 + number}.flac"] if far else [])]
    return {
        "slurp_id": number,
        "sentence": sentence,
        "intent": f"{domain}_query",
        "action": "query",
        "tokens": tokens,
        "scenario": domain,
        "recordings": [{"file": file, "wer": 0.0, "ent_wer": None, "status": "correct"} for file in takes],
        "entities": [{"span": [len(words) - 2, len(words) - 1], "type": "thing"}],
    }


def _write_lines(file: Path, lines: list[dict], zipped: bool) -> None:
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    if zipped:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(data))
    else:
        file.write_bytes(data)
