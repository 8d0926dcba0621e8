"""Whisper with a cut context, greedy decoding and fine-tuning."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, WhisperConfig, WhisperForConditionalGeneration, pipeline

from syn2real_utils import audio, training
from syn2real_utils.backbones import sources
from syn2real_utils.backbones.clips import Clips, Examples
from syn2real_utils.backbones.context import HEARING, LEARNING, short_context, stack, stand_ins
from syn2real_utils.backbones.whisper import Example, Whisper, _batches
from syn2real_utils.checkpoints import load_state
from syn2real_utils.errors import UserError
from syn2real_utils.evaluation import score, sweep
from syn2real_utils.profile import BackbonePart, TrainingPart, load_profile
from syn2real_utils.vectors import TaskVector

PART = BackbonePart(name="base", precision="float32")
TRAIN = TrainingPart(epochs=2, batch_size=2, learning_rate=1e-3, weight_decay=0.1)


@pytest.fixture(scope="session")
def base(shared_data) -> Path:
    return sources.resolve("base", shared_data)


@pytest.fixture(scope="session")
def tiny(base, tmp_path_factory) -> Whisper:
    """A random Whisper of 16 dimensions with the real tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    shutil.copytree(base, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model.safetensors", "done.json"))
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(0)
    WhisperForConditionalGeneration(WhisperConfig.from_pretrained(base, **sizes, **heads)).save_pretrained(folder)
    shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")
    return Whisper(folder, "es", PART)


def test_a_whisper_that_does_not_say_which_languages_it_knows_is_told_so(tiny, tmp_path):
    folder = shutil.copytree(tiny.folder, tmp_path / "old")
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text())
    for lost in ("is_multilingual", "lang_to_id", "task_to_id"):
        file.write_text(json.dumps({key: value for key, value in settings.items() if key != lost}))
        if lost == "is_multilingual":  # which its vocabulary tells
            assert Whisper(folder, "es", PART).prompt == tiny.prompt
            continue
        with pytest.raises(UserError, match="generation_config.json of old does not say which languages it knows"):
            Whisper(folder, "es", PART)


def tone(folder: Path, seconds: float, pitch: int = 300) -> Path:
    wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * 16_000)) / 16_000)
    audio.write(folder / f"{pitch}.wav", wave.astype(np.float32))
    return folder / f"{pitch}.wav"


@pytest.fixture
def examples(tiny, tmp_path) -> list[Example]:
    words = ["perro", "un gato", "el pez", "la casa roja", "sol", "tres manzanas"]
    return [
        Example(tiny.features(tone(tmp_path, 0.5 + 0.3 * i, 200 + 50 * i)), tiny.labels(word))
        for i, word in enumerate(words)
    ]


def test_what_is_left_out_for_speed_changes_neither_loss_nor_gradient(tiny, examples):
    batch = tiny.collate(8 * examples)  # more than what their number is rounded up to
    found = []
    for plainly in (True, False):
        model = tiny.load().train()
        for _ in range(2):  # gradients accumulate
            with (
                contextlib.nullcontext() if plainly else tiny.learning(model, TRAIN),
                tiny.hearing(model, batch) as heard,
            ):
                out = model(**heard)
            out.loss.backward()
        found.append((out.logits.flatten(0, -2).shape[0], out.loss.detach(), model.proj_out.weight.grad))
    (everywhere, loss, gradient), (labelled, same_loss, same_gradient) = found
    assert labelled < everywhere == batch["labels"].numel()
    torch.testing.assert_close(same_loss, loss)
    torch.testing.assert_close(same_gradient, gradient)


def test_a_model_whose_projection_has_weights_of_its_own_learns_in_both(tiny, examples):
    model = tiny.load().train()
    model.proj_out.weight = torch.nn.Parameter(model.proj_out.weight.detach().clone())
    batch = tiny.collate(examples)
    with tiny.learning(model, TRAIN), tiny.hearing(model, batch) as heard:
        model(**heard).loss.backward()
    for weight in (model.proj_out.weight, model.get_decoder().embed_tokens.weight):
        assert weight.grad.abs().sum() > 0


def test_context_is_cut_to_the_clip_in_steps_and_never_over_30_s(tiny, tmp_path):
    assert tiny.context(1.0) == pytest.approx(1.2) and tiny.context(1.01) == pytest.approx(1.6)
    assert tiny.context(29.95) == 30.0
    clip = tone(tmp_path, 1.0)
    assert tiny.features(clip).shape == (80, 120) and tiny.features(clip, full=True).shape == (80, 3000)
    audio.write(tmp_path / "long.wav", np.zeros(31 * 16_000, np.float32) + 0.1)
    with pytest.raises(UserError, match="long.wav lasts 31 s: Whisper hears 30 s at most"):
        tiny.features(tmp_path / "long.wav")


def test_the_model_is_put_back_even_after_an_error(tiny, examples):
    model = tiny.load()
    before, clip = model.model.encoder.embed_positions.weight, examples[0].features[None]
    unchanged = model(clip_of_30_s(clip), decoder_input_ids=torch.tensor([[1]])).logits

    def broken() -> None:
        with short_context(model, clip) as heard:
            assert heard.shape[-1] == clip.shape[-1] + 2 * LEARNING
            assert model.model.encoder.embed_positions.weight.shape[0] == clip.shape[-1] // 2 + LEARNING
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert model.model.encoder.embed_positions.weight is before
    assert model.config.max_source_positions == 1500
    assert torch.equal(model(clip_of_30_s(clip), decoder_input_ids=torch.tensor([[1]])).logits, unchanged)


@pytest.mark.parametrize("most", [LEARNING, HEARING])
@pytest.mark.parametrize("heard", [1, 60, 700, 1372, 1470, 1476, 1499, 1500])
def test_stand_ins_share_out_the_silence_once(heard, most):
    places, sizes = stand_ins(heard, 1500, most)
    assert sum(sizes) == 1500 - heard and min(most // 2, 1500 - heard) <= len(places) == len(sizes) <= most
    assert places == sorted(set(places)) and all(heard <= place < 1500 for place in places)
    start = heard
    for place, size in zip(places, sizes, strict=True):  # each lies in its own block
        assert start <= place < start + size
        start += size


def test_where_every_position_stands_for_itself_the_result_is_that_of_30_s(tiny, tmp_path):
    """The last seconds have no more positions than stand-ins: then nothing is left out, and only rounding differs."""
    model, tokens = tiny.load(), torch.tensor([[1, 2, 3]])
    clip = tiny.features(tone(tmp_path, 29.3))[None, :, :2960]
    with torch.inference_mode():
        whole = model(clip_of_30_s(clip), decoder_input_ids=tokens).logits
        with short_context(model, clip) as heard:
            assert heard.shape[-1] == 3000
            short = model(heard, decoder_input_ids=tokens).logits
    torch.testing.assert_close(short, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.real
def test_the_pretrained_model_hears_with_a_short_context_what_it_hears_at_30_s(base, shared_data, real_clips):
    """Without stand-ins it loops on contexts cut to the clip."""
    asr = Whisper(base, "es", PART)
    model, clips = asr.load(), real_clips["base"]
    short = asr.transcribe(model, [asr.features(clip) for clip in clips], 4)
    whole = asr.transcribe(model, [asr.features(clip, full=True) for clip in clips], 4)
    assert [short[0], short[3]] == [whole[0], whole[3]] == ["Un ciervo embra.", "La Tierra, nuestro planeta."]
    assert all(len(one) < 2 * len(other) + 10 for one, other in zip(short, whole, strict=True))


@pytest.mark.real
def test_a_clip_is_heard_the_same_alone_and_beside_longer_ones(base, shared_data, real_clips):
    """Each keeps its own context, stand-ins and bound on its length, in the precision of this machine."""
    asr = Whisper(base, "es", PART.model_copy(update={"precision": "auto"}))
    model, clips = asr.load(), [asr.features(clip) for clip in real_clips["base"]]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert len({clip.shape[-1] for clip in clips}) > 1
    together = asr.transcribe(model, clips, len(clips))
    assert together == [asr.transcribe(model, [clip], 1)[0] for clip in clips]
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.real
def test_drafts_save_passes_and_change_no_transcript(shared_data, real_clips):
    """Right, wrong, longer, shorter and empty drafts; how sure the model was is that of one token after the other."""
    asr = Whisper(sources.resolve("tiny.en", shared_data), "en", PART)
    model, clips = asr.load(), [asr.features(clip) for clip in real_clips["tiny.en"]]
    plain = asr.hear(model, clips, len(clips))
    texts = [said.text for said in plain]
    changed = [f"One {text}" if i % 2 else text.replace("a", "o", 1) for i, text in enumerate(texts)]
    drafts = [texts, texts[::-1], changed, [f"{t} and more" for t in texts], [t[: len(t) // 2] for t in texts]]
    for draft in [*drafts, [""] * len(texts), ["bla " * 500] * len(texts), [*texts[:-1], "no " * 300]]:
        told = asr.hear(model, clips, len(clips), draft)
        assert [said.text for said in told] == texts
        assert [said.tokens for said in told] == [said.tokens for said in plain]
        sure = [[said.logprob, said.entropy] for said in told]
        torch.testing.assert_close(
            torch.tensor(sure), torch.tensor([[s.logprob, s.entropy] for s in plain]), rtol=1e-3, atol=1e-3
        )
    assert asr.transcribe(model, clips, len(clips), changed) == texts, "where nobody asks how sure it was too"
    alone = [
        (passes_of(asr, model, [clip], None), passes_of(asr, model, [clip], [text]))
        for clip, text in zip(clips, texts, strict=True)
    ]
    assert all(right <= none for none, right in alone)
    assert min(right for _, right in alone) == 1 < min(none for none, _ in alone), (
        "a right draft is checked in one pass"
    )
    with pytest.raises(ValueError):
        asr.hear(model, clips, len(clips), texts[1:])


def passes_of(asr: Whisper, model, clips, drafts) -> int:
    """How often the decoder is called."""
    with counted(model) as count:
        asr.transcribe(model, clips, len(clips), drafts)
    return len(count)


@contextlib.contextmanager
def counted(model):
    """A list that holds one for each pass of the model's decoder inside the block."""
    count: list[int] = []
    handle = model.get_decoder().register_forward_pre_hook(lambda *_: count.append(1))
    yield count
    handle.remove()


def test_a_transcript_ends_at_its_bound_with_a_draft_and_without(tiny, tmp_path):
    """A model that never ends its text, which is what random weights are, with drafts that are longer than the decoder."""
    model, clips = tiny.load(), [tiny.features(tone(tmp_path, seconds)) for seconds in (0.5, 1.5, 29.8)]
    with torch.no_grad():  # the end of text is less likely than any other token
        model.get_decoder().embed_tokens.weight[tiny.tokenizer.eos_token_id] = 0.0
        model.get_decoder().layer_norm.bias.fill_(3.0)
        model.get_decoder().embed_tokens.weight[: tiny.tokenizer.eos_token_id] += 0.5
    plain = tiny.hear(model, clips, 3)
    bounds = [8 + round(8 * clip.shape[-1] / 100) for clip in clips]
    assert [said.tokens for said in plain] == bounds and max(bounds) > 240
    for draft in (["la " * 600] * 3, [said.text for said in plain]):
        told = tiny.hear(model, clips, 3, draft)
        assert [said.tokens for said in told] == bounds and [s.text for s in told] == [s.text for s in plain]


@pytest.mark.real
def test_a_sweep_begins_each_lam_with_what_it_heard_before(base, real_clips):
    asr = Whisper(base, "es", PART)
    model, clips = asr.load(), [asr.features(clip) for clip in real_clips["base"]]
    still = TaskVector({name: torch.zeros_like(tensor) for name, tensor in model.named_parameters()})
    with counted(model) as one:
        texts = sweep(asr, model, still, [0.0], clips, len(clips))
    with counted(model) as two:
        again = sweep(asr, model, still, [0.0, 0.5], clips, len(clips))
    with counted(model) as drafted:
        sweep(asr, model, still, [0.5], clips, len(clips), drafts=texts[0.0])
    assert again[0.5] == again[0.0] == texts[0.0]
    assert len(two) == len(one) + len(drafted) and len(drafted) < len(one)


def test_a_batch_has_clips_of_like_context():
    frames = [3000, 150, 160, 2900, 170, 400, 155, 165]
    groups = _batches(frames, 4)
    assert sorted(i for group in groups for i in group) == list(range(8))
    assert [[frames[i] for i in group] for group in groups] == [[3000, 2900], [400], [170, 165, 160], [155, 150]]


def clip_of_30_s(features: torch.Tensor) -> torch.Tensor:
    silence = features.amax((1, 2), keepdim=True) - 2
    return torch.cat([features, silence.expand(-1, 80, 3000 - features.shape[-1])], dim=-1)


def test_labels_pin_language_and_task_and_end(tiny):
    text = tiny.tokenizer.decode(tiny.labels("El perro").tolist())
    assert text == "<|es|><|transcribe|><|notimestamps|> El perro<|endoftext|>"
    with pytest.raises(UserError, match="does not know the language 'xx': it knows"):
        Whisper(tiny.folder, "xx", PART)


ODD = {  # what stands in a folder's settings -> what is said of it
    "a size that is no number": ("config.json", {"d_model": "wide"}, "cannot open the model in .*d_model"),
    "sizes of another model": ("config.json", {"encoder_ffn_dim": 32}, "cannot open the model in .*"),
    "fewer layers than weights": ("config.json", {"encoder_layers": 0}, "knows nothing of: model.encoder.layers.0"),
    "more layers than weights": ("config.json", {"encoder_layers": 2}, "its weights lack model.encoder.layers.1"),
    "languages in a list": ("generation_config.json", {"lang_to_id": ["<|es|>"]}, "cannot open the model in .*"),
    "no task": ("generation_config.json", {"task_to_id": {}}, "does not say which languages it knows"),
    "words for tokens": ("generation_config.json", {"suppress_tokens": ["a"]}, "cannot open the model in .*'a'"),
}


@pytest.mark.parametrize("case", ODD)
def test_settings_that_do_not_fit_are_one_line(case, tiny, tmp_path):
    name, odd, message = ODD[case]
    folder = shutil.copytree(tiny.folder, tmp_path / "odd")
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | odd))
    with pytest.raises(UserError, match=message) as refused:
        Whisper(folder, "es", PART).load()
    assert "\n" not in str(refused.value)


def test_a_text_of_more_tokens_than_whisper_writes_is_named(tiny):
    longest = "日" * 442 + " a"  # 444 tokens, and those of the prompt and the end
    assert len(tiny.labels(longest)) == 448
    tiny.check([longest, "perro " * 70])
    with pytest.raises(UserError, match="the text '日+...' takes 449 tokens, Whisper writes 448 at most"):
        tiny.check(["hola", longest + "."])


def test_shorter_clips_of_a_batch_are_followed_by_silence():
    batch = stack([torch.ones(80, 4), torch.zeros(80, 2)])
    assert batch.shape == (2, 80, 4) and (batch[1, :, 2:] == -2.0).all()


def test_batches_are_a_pure_plan_that_sees_every_clip_once_an_epoch():
    plan = training.plan_batches(list(range(23)), 4, 2, seed=1)
    assert len(plan) == 12 and plan == training.plan_batches(list(range(23)), 4, 2, seed=1)
    for epoch in (plan[:6], plan[6:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(23))
    assert plan != training.plan_batches(list(range(23)), 4, 2, seed=2)
    assert len(training.plan_batches(list(range(23)), 4, 0.5, seed=1)) == 3


def test_finetune_learns_and_saves_a_folder_that_transformers_opens(tiny, examples, tmp_path):
    training.finetune(tiny, examples, TRAIN.model_copy(update={"epochs": 15}), 0, 2, "test", tmp_path / "out")
    moved, start = load_state(tmp_path / "out"), load_state(tiny.folder)
    assert any(not torch.equal(moved[key], start[key]) for key in start)
    assert torch.equal(moved["model.encoder.embed_positions.weight"], start["model.encoder.embed_positions.weight"])
    loss = [
        tiny.load(folder)(
            **tiny.collate([Example(clip_of_30_s(e.features[None])[0], e.labels) for e in examples])
        ).loss.item()
        for folder in (None, tmp_path / "out")
    ]
    assert loss[1] < loss[0] - 0.3
    assert json.loads((tmp_path / "out" / "config.json").read_text())["max_source_positions"] == 1500
    assert not (tmp_path / "out" / "checkpoints").exists()
    pipeline("automatic-speech-recognition", model=str(tmp_path / "out"))


def test_a_finetune_that_is_killed_while_it_is_saved_is_not_made_again(tiny, examples, tmp_path, monkeypatch):
    part, steps = TRAIN.model_copy(update={"save_steps": 2}), []

    class Counting(TrainerCallback):
        def on_step_end(self, *_, **__):
            steps.append(1)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            training.finetune(tiny, examples, part, 0, 2, "killed", tmp_path / "killed", [Counting()])
    first = len(steps)
    (tmp_path / "killed" / ".tmp1t5DlE").write_bytes(b"half of the weights")  # as safetensors leaves it
    training.finetune(tiny, examples, part, 0, 2, "again", tmp_path / "killed", [Counting()])
    assert first > 2 >= len(steps) - first, "from its last checkpoint on"
    training.finetune(tiny, examples, part, 0, 2, "whole", tmp_path / "whole")
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "killed" / file.name).read_bytes(), file.name
    assert len(list((tmp_path / "whole").iterdir())) == len(list((tmp_path / "killed").iterdir()))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_killed_finetune_goes_on_to_the_same_bytes(tiny, examples, tmp_path, monkeypatch, precision):
    part = TRAIN.model_copy(update={"save_steps": 2})
    backbone = Whisper(tiny.folder, "es", PART.model_copy(update={"precision": precision}))
    training.finetune(backbone, examples, part, 0, 2, "whole", tmp_path / "whole")

    class Killed(BaseException):
        pass

    steps = []

    def step(self):
        steps.append(1)
        if len(steps) == 3:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(training.Progress, "step", step)
        with pytest.raises(Killed):
            training.finetune(backbone, examples, part, 0, 2, "killed", tmp_path / "killed")
    assert (tmp_path / "killed" / "checkpoints" / "checkpoint-2").is_dir()
    training.finetune(backbone, examples, part, 0, 2, "again", tmp_path / "killed")
    names = [p.name for p in sorted((tmp_path / "whole").iterdir())]
    assert names == [p.name for p in sorted((tmp_path / "killed").iterdir())]
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


def test_seed_and_data_change_a_model_and_nothing_else_does(tiny, examples, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        training.finetune(tiny, examples, TRAIN, seed, 2, name, tmp_path / name)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.real
def test_the_real_size_on_two_threads_gives_the_same_bytes(base, tmp_path):
    """Tiny models do not show it: sums of the real size are shared between threads."""
    backbone = Whisper(base, "es", PART)
    said = backbone.labels("una rana verde y un sapo de otro color en el agua")
    clips = [Example(backbone.features(tone(tmp_path, 2.0, pitch)), said) for pitch in (200, 300, 400, 500)]
    part = TRAIN.model_copy(update={"epochs": 3, "batch_size": 4, "learning_rate": 1e-5})
    weights = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        training.finetune(backbone, clips, part, 0, 2, name, tmp_path / name)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_sweep_leaves_the_model_as_it_came_and_lam_0_is_the_model(tiny, examples):
    model = tiny.load()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    noise = {k: t + 0.1 * torch.randn_like(t) for k, t in before.items()}
    tau = TaskVector.between(before, noise)
    clips = [example.features for example in examples]
    texts = sweep(tiny, model, tau, [0.0, 0.5, 1.0], clips, 4)
    assert texts[0.0] == tiny.transcribe(model, clips, 4) and texts[0.0] != texts[1.0]
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert tiny.transcribe(model, [], 4) == []


def test_edits_are_counted_after_normalisation():
    import pandas as pd

    rows = pd.DataFrame(
        {
            "utterance": ["a", "b"],
            "text_id": ["1", "2"],
            "fold": 0,
            "duration": 1.0,
            "transcription": ["¡El 5 perro!", "Sol"],
        }
    )
    found = score(rows, ["el cinco perros", "el sol rojo"], "es")
    assert found.reference.tolist() == ["el cinco perro", "sol"]
    assert found[["n_words", "errors", "substitutions", "deletions", "insertions"]].values.tolist() == [
        [3, 1, 1, 0, 0],
        [1, 2, 0, 0, 2],
    ]
    assert found.char_errors.tolist() == [1, 8] and set(found.normaliser) == {"basic-es/2"}


@pytest.mark.real
def test_greedy_agrees_with_generate_on_real_clips(base, shared_data):
    """Our decoding against transformers' own on the same weights and the full context."""
    import os

    os.environ["SYN2REAL_HOME"] = str(shared_data.root)
    from syn2real_utils import stages

    try:
        rows = stages.real_rows(load_profile("quickstart")).groupby("domain").head(2)
    finally:
        del os.environ["SYN2REAL_HOME"]
    asr = Whisper(base, "es", PART)
    model = asr.load()
    clips = [asr.features(path, full=True) for path in rows.path]
    ours = asr.transcribe(model, clips, 4)
    with torch.inference_mode():
        tokens = model.generate(torch.stack(clips), language="es", task="transcribe", max_new_tokens=40)
    theirs = [text.strip() for text in asr.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
    assert ours == theirs


def test_a_checkpoint_that_was_cut_short_is_not_taken(tiny, examples, tmp_path):
    torn = tmp_path / "out" / "checkpoints" / "checkpoint-4"
    torn.mkdir(parents=True)
    (torn / "trainer_state.json").write_text('{"epoch": ')
    training.finetune(tiny, examples, TRAIN, 0, 2, "torn", tmp_path / "out")
    training.finetune(tiny, examples, TRAIN, 0, 2, "whole", tmp_path / "whole")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def test_clips_in_a_file_give_the_same_model_and_transcripts(tiny, examples, tmp_path):
    filed = Examples(Clips((e.features for e in examples), 0), [e.labels for e in examples])
    for name, given in (("memory", examples), ("file", filed)):
        training.finetune(tiny, given, TRAIN, 0, 2, name, tmp_path / name)
    ours, theirs = (load_state(tmp_path / name) for name in ("file", "memory"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    model = tiny.load(tmp_path / "file")
    assert tiny.hear(model, filed.clips, 4) == tiny.hear(model, [e.features for e in examples], 4)
    assert tiny.loss(model, filed, 4) == tiny.loss(model, examples, 4)
