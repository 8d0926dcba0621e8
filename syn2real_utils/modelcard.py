"""The exported models of a run: ordinary model folders with a model card that says what they are and how well they hear."""

import json
import shutil
from pathlib import Path

import jinja2

from syn2real_utils import __version__, machine, results, selection, stages, statistics, tables
from syn2real_utils.backbones.sources import HUB_NAME
from syn2real_utils.lineage import MADE_FROM, architecture, read_lineage
from syn2real_utils.origins import of_profile, terms
from syn2real_utils.profile import Profile
from syn2real_utils.readyruns import base_model
from syn2real_utils.store import DONE, write_text_atomic
from syn2real_utils.tensorfiles import CARD

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"


def export(profile: Profile, target: str, tts: str, seed: int) -> Path:
    """`adapted` at its chosen lam as the folder `runs/NAME/models/TARGET-TTS-sSEED`, with its model card.

    It is a copy: what a user does with it, or writes into it, is nothing to the store.
    """
    model = results.adapted_model(profile, target, tts, seed)
    folder = results.run_folder(profile) / "models" / f"{target}-{tts}-s{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(model.path.iterdir()):
        if file.is_file() and file.name != DONE:
            _copy(file, folder / file.name)
    write_text_atomic(folder / MADE_FROM, json.dumps(model.key(), indent=1) + "\n")
    write_text_atomic(folder / CARD, card(profile, target, tts, seed))
    return folder


def card(profile: Profile, target: str, tts: str, seed: int) -> str:
    """The model card of an exported model, in Markdown with the header that the hub reads."""
    evaluation, training = profile.evaluation, profile.training
    scored = results.context_scores(profile, target, tts, seed)
    gap = statistics.context_gaps(scored, evaluation.bootstrap_samples, evaluation.confidence).iloc[0].to_dict()
    lineage = read_lineage(results.adapted_model(profile, target, tts, seed).path)
    parts = of_profile(profile, [tts])
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=f"{target}-{tts}-s{seed}",
        target=target,
        tts=tts,
        seed=seed,
        language=profile.corpus.language,
        base_model=base_model(profile.backbone.name),
        on_hub=bool(HUB_NAME.fullmatch(base_model(profile.backbone.name))),
        model_type=architecture(stages.pretrained(profile)).split("/")[0],
        parent=str(lineage.parent)[:12] if lineage else "unknown",
        corpus=f"{profile.corpus.name}-{profile.corpus.language}",
        sources=", ".join(stages.source_domains(profile, target)),
        lam=gap["lam"],
        gap=gap,
        change=tables.points(gap),
        p=tables.p_text(gap["p"]),
        confidence=f"{100 * evaluation.confidence:g}",
        chosen=tables.CHOSEN_ON[selection.how_chosen(evaluation.protocol)],
        protocol=f"protocol {evaluation.protocol}",
        knew="knew in synthetic speech" if evaluation.protocol == "catalogue" else "did not see",
        training=f"{training.epochs:g} epochs, batches of {training.batch_size}, learning rate {training.learning_rate:g}",
        version=__version__,
        commit=machine.commit(),
        terms=terms(parts),
        noncommercial=any(part.noncommercial for part in parts),
    )


def _copy(file: Path, to: Path) -> None:
    partial = to.with_name(f".{to.name}.partial")
    shutil.copyfile(file, partial)
    partial.replace(to)
