"""Raw scoring and the scoring audit."""

import pandas as pd
import pytest

from syn2real_utils.errors import UserError
from syn2real_utils.evaluation import rescore, score


def scored(*pairs: tuple[str, str]) -> pd.DataFrame:
    """Rows of `(transcription, hypothesis)`."""
    texts = {"utterance": [f"u{i}" for i in range(len(pairs))], "text_id": [f"{i:012x}" for i in range(len(pairs))]}
    rows = pd.DataFrame(texts | {"fold": 0, "duration": 1.0, "transcription": [said for said, _ in pairs]})
    return score(rows, [heard for _, heard in pairs], "es")


def test_raw_scoring_counts_what_normalisation_takes_away():
    rows = scored(("¡El 5 perro!", "El cinco perro."), ("Sol", "sol"))
    assert rows.errors.tolist() == [0, 0] and rows.raw_reference.tolist() == ["¡El 5 perro!", "Sol"]
    assert rows.raw_hypothesis.tolist() == ["El cinco perro.", "sol"]
    as_released = rescore(rows)
    assert as_released.errors.tolist() == [3, 1]  # "¡El 5 perro!" against "el cinco perro"
    assert rescore(rows, "raw_reference", "raw_hypothesis").errors.tolist() == [3, 1]
    assert set(as_released.normaliser) == {"basic-es/1 raw_reference:hypothesis"}
    assert as_released.hypothesis.equals(rows.hypothesis) and as_released.reference.equals(rows.reference)
    with pytest.raises(UserError, match="no column raw_reference: score them again"):
        rescore(rows.drop(columns="raw_reference"))
