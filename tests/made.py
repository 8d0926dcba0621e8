"""Rows of a run that never was: two targets, two TTS, every model, for tests of tables and figures."""

import numpy as np
import pandas as pd

from syn2real_utils import results, selection
from syn2real_utils.statistics import CLIP, FULL, UTTERANCE_COLUMNS

RATES = {"pretrained": 0.6, "real_source": 0.25, "syn_source": 0.35, "syn_target": 0.4}
LAMS = (0.0, 0.5, 1.0)


def utterances(seed: int = 0) -> pd.DataFrame:
    """tables/utterances.csv: 12 utterances of 10 texts per target."""
    parts = []
    for target in ("animals", "food"):
        for tts in ("kokoro", "pico"):
            dice = np.random.default_rng([seed, len(target), len(tts)])
            plain = [_rows(dice, rate, model, np.nan) for model, rate in RATES.items()]
            for model in ("adapted", "ensemble"):
                swept = [plain[3].assign(model=model, lam=0.0)]
                swept += [_rows(dice, 0.4 - 0.2 * lam + 0.1 * lam**2, model, lam) for lam in LAMS[1:]]
                plain.append(selection.mark(pd.concat(swept, ignore_index=True).assign(protocol="strict"), model, 0.5))
            made = pd.concat(plain, ignore_index=True)
            parts.append(made.assign(target=target, tts=tts, lam_source=made.lam_source.fillna("")))
    rows = pd.concat(parts, ignore_index=True).assign(
        seed=seed, protocol="strict", backbone="base", normaliser="basic-es/2"
    )
    return rows[list(UTTERANCE_COLUMNS)]


def cosines() -> pd.DataFrame:
    """tables/cosines.csv of two domains and two TTS."""
    names = [(tts, domain) for tts in ("kokoro", "pico") for domain in ("food", "town")]
    table = [
        {"seed": 0, "tts_a": ta, "domain_a": da, "tts_b": tb, "domain_b": db, "module": module, "norm_a": 1.0, "norm_b": 1.0,
         "cosine": 1.0 if (ta, da) == (tb, db) else 0.6 if da == db else 0.2}
        for module in ("all", "encoder", "decoder") for ta, da in names for tb, db in names
    ]  # fmt: skip
    return pd.DataFrame(table)


def geometry() -> pd.DataFrame:
    """tables/geometry.csv of both targets and TTS."""
    points = {
        "syn_source": (0, 0, 0),
        "real_source": (1, 0, 0),
        "syn_target": (0.2, 0.9, 0),
        "pretrained": (0.4, 0.3, 0.5),
    }
    table = [
        {"target": target, "tts": tts, "seed": 0, "model": model, "lam": np.nan, "x": x, "y": y, "distance": z}
        for target in ("animals", "food") for tts in ("kokoro", "pico") for model, (x, y, z) in points.items()
    ]  # fmt: skip
    path = [
        {"target": target, "tts": tts, "seed": 0, "model": "adapted", "lam": lam, "x": 0.2 + lam, "y": 0.9, "distance": 0}
        for target in ("animals", "food") for tts in ("kokoro", "pico") for lam in LAMS
    ]  # fmt: skip
    return pd.DataFrame(table + path)


def selections() -> pd.DataFrame:
    """tables/selection.csv."""
    table = [
        {"tts": tts, "vector": "pooled", "target": "animals", "seed": 0, "domain": "food", "lam": lam, "errors": 3, "n_words": 9}
        for tts in ("kokoro", "pico") for lam in LAMS
    ]  # fmt: skip
    return pd.DataFrame(table)


def synthetic() -> pd.DataFrame:
    """tables/synthetic.csv of both targets and TTS."""
    sums = {"n_clips": 10, "n_flagged": 1, "seconds": 12.0, "n_letters": 100, "real_seconds": 15.0, "real_letters": 100}
    return pd.DataFrame([{"target": t, "tts": e, **sums} for t in ("animals", "food") for e in ("kokoro", "pico")])


def contexts() -> pd.DataFrame:
    """tables/contexts.csv: `adapted` at lam 0.5, with one error more at 30 s in every second utterance."""
    rows = utterances()
    own = rows[(rows.model == "adapted") & (rows.lam == 0.5)]
    more = own.errors + [i % 2 for i in range(len(own))]
    both = pd.concat([own.assign(context=CLIP), own.assign(context=FULL, errors=more)])
    return both[[*results.CONTEXT_COLUMNS]]


def _rows(dice: np.random.Generator, rate: float, model: str, lam: float) -> pd.DataFrame:
    errors = dice.binomial(3, rate, size=12)
    return pd.DataFrame(
        {
            "model": model,
            "lam": lam,
            "utterance": [f"u{i}" for i in range(12)],
            "text_id": [f"{i % 10:012x}" for i in range(12)],
            "fold": [i % 10 % 2 for i in range(12)],
            "duration": 1.5,
            "reference": "uno dos tres",
            "hypothesis": ["uno " * int(3 - e) for e in errors],
            "n_words": 3,
            "errors": errors,
            "substitutions": 0,
            "deletions": errors,
            "insertions": 0,
            "n_chars": 10,
            "char_errors": 2 * errors,
            "raw_reference": "Uno, dos, tres.",
            "raw_hypothesis": ["Uno " * int(3 - e) for e in errors],
            "speaker": "",
        }
    )
