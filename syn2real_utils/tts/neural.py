"""What Bark and SpeechT5 share: the machine they run on, texts cut at the ends of sentences, and draws of each clip's own."""

import re
from collections.abc import Callable, Sequence

import numpy as np

GAP = 0.15  # seconds between the pieces of a long text; our choice: a short pause, as between sentences


def pieces(text: str, longest: int) -> list[str]:
    """`text` cut into pieces of at most `longest` characters: at ends of sentences, else at commas, else at spaces.

    Pieces without a letter or digit, which a model would babble at, are left out.
    """
    found: list[str] = []
    while text := text.strip():
        cut = len(text)
        if cut > longest:
            window = text[: longest + 1]
            for pattern in (r"[.!?…]\s+|[。！？]", r"[,;:]\s+|[、，]", r"\s+"):
                ends = [match.end() for match in re.finditer(pattern, window) if match.end() <= longest]
                if ends:
                    cut = ends[-1]
                    break
            else:
                cut = longest
        found.append(text[:cut].strip())
        text = text[cut:]
    return [piece for piece in found if any(sign.isalnum() for sign in piece)]


def speak_pieces(
    texts: Sequence[str],
    longest: int,
    batch_size: int,
    rate: int,
    speak: Callable[[list[tuple[int, int, str]]], list[np.ndarray]],
) -> list[np.ndarray]:
    """The wave of each text; (0,) for one without a letter.

    Args:
        texts: what is said.
        longest: characters of a piece.
        batch_size: pieces at once.
        rate: Hz.
        speak: waves of pieces, each given as number of its text, its own number in that text, and itself.
    """
    todo = [(i, j, piece) for i, text in enumerate(texts) for j, piece in enumerate(pieces(text, longest))]
    waves: list[list[np.ndarray]] = [[] for _ in texts]
    for start in range(0, len(todo), batch_size):
        batch = todo[start : start + batch_size]
        for (i, _, _), wave in zip(batch, speak(batch), strict=True):
            waves[i] += [np.zeros(round(GAP * rate), np.float32)] if waves[i] else []
            waves[i].append(wave)
    return [np.concatenate([np.zeros(0, np.float32), *parts]) for parts in waves]
