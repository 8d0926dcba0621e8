"""Decode clips and count edits: one row per utterance, from which every rate can be summed again."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jiwer
import pandas as pd

from syn2real_utils.errors import UserError, names
from syn2real_utils.progress import say

if TYPE_CHECKING:  # counting edits needs neither torch nor transformers
    import torch

    from syn2real_utils.backbones.base import Backbone
    from syn2real_utils.vectors import TaskVector


def sweep(
    backbone: "Backbone",
    model: "torch.nn.Module",
    vector: "TaskVector",
    lams: Sequence[float],
    clips: "Sequence[torch.Tensor]",
    batch_size: int,
    settle: "Callable[[torch.nn.Module], None] | None" = None,
    sure: bool = False,
    drafts: Sequence[str] | None = None,
) -> dict[float, list]:
    """Transcripts of `clips` by `model + lam * vector` for each lam, in one process, without writing a checkpoint.

    `settle` mends what is no parameter (BatchNorm statistics) at every lam but 0. The model is left as it came.
    `sure`: each transcript as the backbone's `Heard`, which says how sure it was, not as text.
    `drafts`: transcripts that the first lam is likely to hear; each further lam begins with those of the lam before it.
    """
    from syn2real_utils import parameters  # which imports torch

    hear = backbone.hear if sure else backbone.transcribe
    state = model.state_dict()
    owners = parameters.owners(state)
    base = {key: state[key].clone() for key in owners if key in vector.tensors or parameters.composed(key)}
    kept = {key: tensor.clone() for key, tensor in state.items() if key not in owners} if settle else {}
    texts: dict[float, list] = {}
    for lam in lams:
        vector.write_into(model.state_dict(), base, lam)
        if settle and lam:
            settle(model)
        texts[lam] = hear(model, clips, batch_size, drafts)
        drafts = [said.text if sure else said for said in texts[lam]]
        for key, tensor in kept.items():
            state[key].copy_(tensor)
        say(f"  lam {lam:g}: {len(clips)} clips")
    vector.write_into(model.state_dict(), base, 0.0)
    return texts


def score(rows: pd.DataFrame, hypotheses: Sequence[str], language: str) -> pd.DataFrame:
    """Edit counts of each hypothesis against the transcription of its row, both normalised.

    Args:
        rows: `utterance, text_id, fold, duration, transcription` and, where it is known, `speaker`.
        hypotheses: one per row, as the model said it.
        language: ISO 639-1, picks the normaliser.

    Returns:
        One row per utterance: `utterance, text_id, fold, duration, reference, hypothesis, n_words, errors,
        substitutions, deletions, insertions, n_chars, char_errors, normaliser, raw_reference, raw_hypothesis, speaker`;
        the raw texts are as the corpus and the model wrote them, `speaker` is empty where it is not known.
    """
    from syn2real_utils.text import normalise, normaliser_version  # imports transformers

    counted = [
        _count(normalise(reference, language), normalise(hypothesis, language))
        for reference, hypothesis in zip(rows.transcription, hypotheses, strict=True)
    ]
    kept = rows[["utterance", "text_id", "fold", "duration"]].reset_index(drop=True)
    return pd.concat([kept, pd.DataFrame(counted)], axis=1).assign(
        normaliser=normaliser_version(language),
        raw_reference=list(rows.transcription),
        raw_hypothesis=list(hypotheses),
        speaker=list(rows.speaker) if "speaker" in rows else "",
    )


def rescore(rows: pd.DataFrame, reference: str = "raw_reference", hypothesis: str = "hypothesis") -> pd.DataFrame:
    """`rows` with the edit counts of two other columns; by default a normalised hypothesis against the raw reference.

    That default is how the released code of the paper scores: capitals and punctuation, which the hypothesis has lost, count as
    errors. `normaliser` names the two columns after the normaliser.

    Raises:
        UserError: the rows were scored before raw texts were kept.
    """
    if lacking := [column for column in (reference, hypothesis) if column not in rows]:
        raise UserError(f"the utterance rows have no column {names(lacking)}: score them again with this version")
    pairs = pd.MultiIndex.from_frame(rows[[reference, hypothesis]].fillna(""))
    counted = {pair: _count(*pair) for pair in pairs.unique()}  # many models say the same
    found = pd.DataFrame([counted[pair] for pair in pairs], index=rows.index)
    counts = {column: found[column] for column in found if column not in ("reference", "hypothesis")}
    return rows.assign(**counts, normaliser=rows.normaliser + f" {reference}:{hypothesis}")


def _count(reference: str, hypothesis: str) -> dict[str, object]:
    # jiwer parts words at blanks alone: a line break or tab of a user's table would join two
    reference, hypothesis = (" ".join(text.split()) for text in (reference, hypothesis))
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
