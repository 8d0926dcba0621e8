"""From a list of texts to a model for real speech of their domain: `syn2real adapt`.

    syn_target = pretrained, fine-tuned on the texts as the TTS engines speak them
    adapted    = syn_target + lam * tau          tau from other domains that have real speech
    kept       = (1 - W) * adapted + W * pretrained          --keep W, against forgetting (WiSE-FT, arXiv 2109.01903)

Each step is a stage of the store: what is there is not made again, and a call that was stopped goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from syn2real_utils import (
    checkpoints,
    handover,
    hub,
    machine,
    origins,
    proof,
    ready,
    recipe,
    selection,
    stages,
    surest,
    vectorpick,
)
from syn2real_utils import order as orders
from syn2real_utils.corpora.base import read_audiofolder
from syn2real_utils.errors import GpuMemoryError, UserError, names
from syn2real_utils.guess import guess_language
from syn2real_utils.handover import Adapted
from syn2real_utils.lineage import REAL, Lineage
from syn2real_utils.order import Order
from syn2real_utils.profile import Profile, TrainingPart
from syn2real_utils.progress import say
from syn2real_utils.store import Artifact, Store
from syn2real_utils.vectorpick import DEVEL, Scaling, Vector
from syn2real_utils.verdict import verdict

FORMAT = 1  # raise it when `_kept` would make something else


@dataclass
class Made:
    """The models, and what they were made of."""

    synthetic: pd.DataFrame  # every synthetic clip; `quality` says which were trained on
    syn_target: Artifact
    adapted: Artifact
    picked: list[Vector]
    scaling: Scaling
    training: TrainingPart
    joint: Artifact | None = None
    known: int = 0  # clips of --devel whose text was trained on
    real: pd.DataFrame | None = None
    scored: pd.DataFrame | None = None  # rows of `proof.scores`
    heard: pd.DataFrame | None = None  # rows of `proof.on_synthetic`, where nothing is scored

    def models(self) -> dict[str, Artifact | None]:
        """What is compared; None is `pretrained`."""
        found = {"pretrained": None, "syn_target": self.syn_target, "adapted": self.adapted}
        return found | ({"joint": self.joint} if self.joint else {})


def adapt(
    texts: Path | str,
    language: str,
    backbone: str,
    tts: Sequence[str],
    out: Path | str,
    *,
    vector: str | Path = vectorpick.AUTO,
    lam: str | float = vectorpick.AUTO,
    domain: str | None = None,
    takes: int = 1,
    keep: float = 0.0,
    devel: Path | str | None = None,
    real: Path | str | None = None,
    unlabelled: Path | str | None = None,
    seed: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
    yes: bool = False,
    push_to_hub: str | None = None,
    private: bool = False,
) -> Adapted:
    """Make a model for real speech of a domain from its texts alone.

    Args:
        texts: .txt (a text in each line), .csv or .jsonl (`text` or `transcription`).
        language: ISO 639-1.
        backbone: `base`, `tiny.en`, a local Whisper folder or a hub name.
        tts: the engines that speak the texts; their clips are trained on together.
        out: folder to write.
        vector: `auto` (those that are here for the language and each TTS), `none`, the folder of one, of a run or of several
            published ones, or the repository `owner/name` on the hub.
        lam: `auto` (as recorded with the vector, of several the mean, else 0.5), a number, or `devel` (the best on the clips
            of `devel`).
        domain: what the domain is called; None: as the file.
        takes: clips of each text and TTS.
        keep: share of the pretrained weights in the result, 0 to 1.
        devel: AudioFolder of real clips that are scored and, but for `lam="devel"`, seen by no step. Where it holds several
            domains, one of them `domain`, the others show what was forgotten.
        real: AudioFolder of real clips that a rival, `joint`, is trained on beside the synthetic ones.
        unlabelled: folder of real clips without transcripts: lam is where the model is surest of them.
        seed: of the fine-tunes and of the TTS' schedule.
        threads: None: one for each core. Results are the same bytes for the same number only.
        overwrite: replace a model that stands at `out`.
        yes: do not ask before long work.
        push_to_hub: repository `owner/name` that the model goes to as well.
        private: only its owner sees that repository; one that is there and public is refused.

    Raises:
        UserError: anything that is the user's to mend.
    """
    if isinstance(tts, str):
        tts = tts.split(",")
    order = orders.check(
        Path(texts),
        language,
        backbone,
        [name.strip() for name in tts],
        Path(out),
        vector=str(vector),
        lam=lam,
        domain=domain,
        takes=takes,
        keep=keep,
        devel=Path(devel) if devel else None,
        real=Path(real) if real else None,
        unlabelled=Path(unlabelled) if unlabelled else None,
        seed=seed,
        threads=threads,
        overwrite=overwrite,
        yes=yes,
    )
    hub.check_wanted(push_to_hub, private)
    try:
        made = _make(order)
    except GpuMemoryError as error:  # whose remedy names settings of a profile, which this command has not
        raise UserError(
            f"{error.what}: the GPU's memory does not suffice: take a smaller backbone, or {machine.LARGER}; what is finished "
            "is kept"
        ) from error
    found = _hand_over(order, made)
    if push_to_hub:
        say(f"pushed to {hub.push(found.path, push_to_hub, private)}")
    return found


def _make(order: Order) -> Made:
    """Every model, after an estimate of what they cost."""
    profile, engines = order.profile, [part.name for part in order.profile.tts]
    for line in order.texts.lines():
        say(line)
    asr = stages.backbone(profile)  # fetched; knows the language, or says so
    asr.check([text for _, text in order.texts.kept])
    if order.unlabelled and not asr.tells_sureness:
        raise UserError(
            "--unlabelled needs a Whisper, which says how sure it is: leave it out, or choose lam by --devel"
        )
    picked = vectorpick.pick_vectors(
        order.vector, stages.pretrained(profile), stages.parent(profile), profile.corpus.language, engines, order.domain
    )
    if not picked and order.unlabelled:
        say("  warning: --unlabelled is not used, for there is no vector to scale")
    if not picked and order.vector == vectorpick.AUTO:
        rate = recipe.learning_rate(stages.pretrained(profile))
        say(ready.how_to_make(profile.backbone.name, profile.corpus.language, engines, rate))
    devel, real = (folder and proof.of_folder(profile, folder) for folder in (order.devel, order.real))
    scored, heard = (proof.clips_of(of) if of else None for of in (devel, real))
    for option, rows in (("--devel", scored), ("--real", heard)):
        if rows is not None and (other := guess_language(rows.transcription.tolist(), profile.corpus.language)):
            say(f"  warning: the texts of {option} look like '{other}', not '{profile.corpus.language}': is it right?")
    if scored is not None and heard is not None:
        proof.check_apart(scored, heard)
    own = _own(scored, order.domain, devel) if devel and scored is not None else None
    orders.tell_cost(order, 0 if heard is None else len(heard), proof.SAMPLE if scored is None else len(scored))
    texts = order.texts.rows(order.domain)
    synthetic = _speak(profile, texts)
    clips = _usable(synthetic, order.texts.file)
    training = recipe.training(stages.pretrained(profile), len(clips))
    profile = profile.model_copy(update={"training": training})
    syn = stages.finetuned_on(profile, clips, _lineage(profile, order.domain, engines))
    scaling = vectorpick.choose_lam(order.lam, picked)
    if order.unlabelled and picked:
        scaling = surest.choose_lam(profile, syn, vectorpick.vector_folder(picked), order.unlabelled)
        if own is not None and (both := surest.shared(order.unlabelled, own.path)):
            scaling = replace(scaling, how=f"{scaling.how}; {both} of them prove it too, which may flatter it")
    if devel and own is not None and picked and order.lam == DEVEL:
        curve = proof.lam_curve(devel, syn, vectorpick.vector_folder(picked), own)
        scaling = Scaling(selection.choose(curve), "the best on the very clips of --devel: their WER flatters it")
    adapted = _kept(profile, _moved(syn, picked, scaling.lam), order.keep, order.domain)
    made = Made(synthetic, syn, adapted, picked, scaling, training, real=heard)
    if heard is not None:
        both = pd.concat([clips, heard], ignore_index=True)
        made.joint = stages.finetuned_on(profile, both, _lineage(profile, order.domain, [REAL, *engines]))
    if devel and scored is not None and own is not None:
        made.known = proof.known_texts(own, texts, profile.corpus.language)
        made.scored = proof.scores(devel, made.models(), scored)
    else:
        made.heard = proof.on_synthetic(profile, adapted, clips)
    return made


def _hand_over(order: Order, made: Made) -> Adapted:
    """Write the folder, and say go or no-go."""
    own = None if made.scored is None else proof.of_domain(made.scored, order.domain)
    measured = made.heard if own is None else own
    assert measured is not None, "one of the two was heard"
    table = proof.rates(measured)
    rates, synthetic = (None, table) if own is None else (table, None)
    changes = None if own is None else proof.changes(own)
    domains = None if made.scored is None else proof.by_domain(made.scored)
    before = float(table.set_index("model").wer["pretrained"])
    go, reason = verdict(order.vector, made.picked, made.scaling.lam, order.keep, changes, before)
    found = Adapted(
        order.out.resolve(), order.domain, order.texts, int((made.synthetic.quality == "ok").sum()), tuple(made.picked),
        made.scaling.lam, made.scaling.how, go, reason, rates, changes, domains, synthetic,
    )  # fmt: skip
    page = handover.Page(
        order.profile, found, made.training, order.keep, made.synthetic, made.scored, made.known,
        0 if made.real is None else len(made.real),
    )  # fmt: skip
    handover.write(page, made.adapted, made.joint, order.overwrite)
    for line in handover.told(page):
        say(line)
    return found


def _own(scored: pd.DataFrame, domain: str, devel: Profile) -> pd.DataFrame:
    """The clips of `--devel` that prove the model; says which, where it holds several domains or lost some of its own.

    Raises:
        UserError: the domain is there, but no clip of it can be scored.
    """
    own, listed, kept = proof.of_domain(scored, domain), proof.listed(devel, domain), sum(scored.domain == domain)
    if kept < listed:
        dropped = stages.corpus(devel).path / "dropped.csv"
        why = f"--devel: of {listed} clips of {domain} {kept or 'none'} can be scored, see {dropped} (a text that stands in two domains counts for one)"
        if not kept:
            raise UserError(why)
        say(f"  warning: {why}")
    if len(there := sorted(set(scored.domain))) > 1:
        which = (
            f"those of {domain} prove the model" if len(own) < len(scored) else f"none is '{domain}', so all prove it"
        )
        say(f"--devel holds the domains {names(there)}: {which}")
    return own


def _speak(profile: Profile, texts: pd.DataFrame) -> pd.DataFrame:
    """Every clip of every TTS; `quality` says what is wrong with it, or "ok"."""
    folders = [stages.spoken_texts(profile, part.name, texts).path for part in profile.tts]
    return pd.concat([read_audiofolder(folder, synthetic=True) for folder in folders], ignore_index=True)


def _usable(synthetic: pd.DataFrame, file: Path) -> pd.DataFrame:
    """The clips that quality control passed."""
    clips = synthetic[synthetic.quality == "ok"].sort_values("utterance").reset_index(drop=True)
    if clips.empty:
        raise UserError(f"no clip of {file} is fit to train on: {names(sorted(set(synthetic.quality)))}")
    return clips


def _moved(syn: Artifact, picked: Sequence[Vector], lam: float) -> Artifact:
    """syn_target + lam * tau; syn_target itself where there is no vector."""
    if not picked:
        return syn
    folder, digest = vectorpick.vector_folder(picked)
    label = f"{syn.path.name.rsplit('-', 1)[0]}-lam{lam:g}"
    key = {"base": syn.fingerprint, "vector": digest, "lam": lam}
    return Store().build(
        stages.ADAPTED, label, key, lambda into: checkpoints.apply(syn.path, folder, lam, into, overwrite=True)
    )


def _kept(profile: Profile, adapted: Artifact, keep: float, domain: str) -> Artifact:
    """(1 - keep) * adapted + keep * pretrained = pretrained + (1 - keep) * (adapted - pretrained).

    In this form `keep = 1` is pretrained to the bit. Pretrained weights are saved once more, in the types and under the keys
    of fine-tuned ones, so that the two can be subtracted.
    """
    if keep == 0:
        return adapted
    store, parent = Store(), stages.parent(profile)
    licences = origins.lines([origins.origin(profile.backbone.name)])
    origin = Lineage(
        kind="model", architecture=checkpoints.architecture(adapted.path), parent=parent, licences=licences
    )

    def save(into: Path) -> None:
        from syn2real_utils import training  # transformers takes seconds to import

        asr = stages.backbone(profile)
        training.save(asr, asr.load(), into)
        checkpoints.write_lineage(into, origin)

    def away(into: Path) -> None:
        checkpoints.subtract(adapted.path, plain.path, into, overwrite=True)

    def mix(into: Path) -> None:
        mixed = checkpoints.apply(plain.path, step.path, 1 - keep, into, overwrite=True)
        known = checkpoints.read_lineage(adapted.path) or origin
        named = {"corpus": known.corpus, "speech": known.speech, "domains": (domain,), "seed": known.seed}
        checkpoints.write_lineage(into, mixed.model_copy(update=named))

    own = {"version": FORMAT, "parent": parent, "backbone": stages.backbone_key(profile), "licences": licences}
    plain = store.build(stages.ADAPTED, "pretrained", own, save)
    step = store.build(stages.ADAPTED, f"{domain}-away", {"from": parent, "to": adapted.fingerprint}, away)
    key = {"version": FORMAT, "pretrained": plain.fingerprint, "adapted": adapted.fingerprint, "keep": keep}
    return store.build(stages.ADAPTED, f"{domain}-keep{keep:g}", key, mix)


def _lineage(profile: Profile, domain: str, speech: Sequence[str]) -> Lineage:
    return Lineage(
        kind="model",
        architecture=checkpoints.architecture(stages.pretrained(profile)),
        parent=stages.parent(profile),
        corpus=f"texts-{profile.corpus.language}",
        speech="+".join(speech),
        domains=(domain,),
        seed=profile.seeds[0],
    )
