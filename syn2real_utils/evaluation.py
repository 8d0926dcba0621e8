"""Decode clips and count edits: one row per utterance, from which every rate can be summed again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jiwer
import pandas as pd
import torch

from syn2real_utils.progress import say
from syn2real_utils.text import normalise, normaliser_version
from syn2real_utils.vectors import TaskVector

if TYPE_CHECKING:  # transformers takes seconds to import: counting edits does not need it
    from syn2real_utils.backbones.whisper import Whisper


def sweep(
    backbone: "Whisper",
    model: torch.nn.Module,
    vector: TaskVector,
    lams: Sequence[float],
    clips: Sequence[torch.Tensor],
    batch_size: int,
    sure: bool = False,
) -> dict[float, list]:
    """Transcripts of `clips` by `model + lam * vector` for each lam, in one process, without writing a checkpoint.

    The model is left as it came. `sure`: each as the backbone's `Heard`, which says how sure it was, not as text.
    """
    hear = backbone.hear if sure else backbone.transcribe
    base = {name: tensor.clone() for name, tensor in model.state_dict().items() if name in vector.tensors}
    texts: dict[float, list] = {}
    for lam in lams:
        vector.write_into(model.state_dict(), base, lam)
        texts[lam] = hear(model, clips, batch_size)
        say(f"  lam {lam:g}: {len(clips)} clips")
    vector.write_into(model.state_dict(), base, 0.0)
    return texts


def score(rows: pd.DataFrame, hypotheses: Sequence[str], language: str) -> pd.DataFrame:
    """Edit counts of each hypothesis against the transcription of its row, both normalised.

    Args:
        rows: `utterance, text_id, fold, duration, transcription`.
        hypotheses: one per row, as the model said it.
        language: ISO 639-1, picks the normaliser.

    Returns:
        One row per utterance: `utterance, text_id, fold, duration, reference, hypothesis, n_words, errors,
        substitutions, deletions, insertions, n_chars, char_errors, normaliser`.
    """
    counted = [
        _count(normalise(reference, language), normalise(hypothesis, language))
        for reference, hypothesis in zip(rows.transcription, hypotheses, strict=True)
    ]
    kept = rows[["utterance", "text_id", "fold", "duration"]].reset_index(drop=True)
    return pd.concat([kept, pd.DataFrame(counted)], axis=1).assign(normaliser=normaliser_version(language))


def _count(reference: str, hypothesis: str) -> dict[str, object]:
    words = jiwer.process_words(reference, hypothesis)
    chars = jiwer.process_characters(reference, hypothesis)
    return {
        "reference": reference,
        "hypothesis": hypothesis,
        "n_words": words.hits + words.substitutions + words.deletions,
        "errors": words.substitutions + words.deletions + words.insertions,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "n_chars": chars.hits + chars.substitutions + chars.deletions,
        "char_errors": chars.substitutions + chars.deletions + chars.insertions,
    }
