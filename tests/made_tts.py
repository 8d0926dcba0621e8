"""Tiny random Bark, SpeechT5 and x-vector encoder, written as the hub has them: the real classes open them."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BarkConfig,
    BarkModel,
    BertTokenizer,
    EncodecConfig,
    SpeechT5Config,
    SpeechT5FeatureExtractor,
    SpeechT5ForTextToSpeech,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    SpeechT5Processor,
    SpeechT5Tokenizer,
)
from transformers.models.bark.generation_configuration_bark import (
    BarkCoarseGenerationConfig,
    BarkFineGenerationConfig,
    BarkGenerationConfig,
    BarkSemanticGenerationConfig,
)

SEMANTIC, CODES, TEXT = 40, 16, 32  # sizes of Bark's vocabularies
SPEAKERS = ("slt", "bdl")
STOP = (100, -12.0)  # weight and bias of the stop: it is found after some steps, sooner or later


def bark(folder: Path, sampled: bool = True) -> Path:
    """A Bark of 300,000 parameters with four presets: three in the form of the hub, one as .npz."""
    torch.manual_seed(0)
    shape = {"num_layers": 1, "num_heads": 2, "hidden_size": 16}
    text = SEMANTIC + 8 + TEXT + 8
    config = BarkConfig(
        semantic_config={**shape, "block_size": 128, "input_vocab_size": text, "output_vocab_size": SEMANTIC + 8},
        coarse_acoustics_config={**shape, "block_size": 128, "input_vocab_size": 96, "output_vocab_size": 96},
        fine_acoustics_config={
            **shape, "block_size": 64, "input_vocab_size": CODES + 8, "output_vocab_size": CODES + 8, "n_codes_total": 8,
        },
        codec_config=EncodecConfig(
            num_filters=4, hidden_size=8, codebook_dim=8, codebook_size=CODES, upsampling_ratios=[8, 5, 4, 2], num_lstm_layers=1
        ).to_dict() | {"model_type": "encodec"},
    )  # fmt: skip
    model = BarkModel(config)
    with torch.no_grad():  # random codes would be silence, and every text the same
        model.semantic.lm_head.weight.mul_(12)
        model.coarse_acoustics.lm_head.weight.mul_(12)
        for book in model.codec_model.quantizer.layers:
            book.codebook.embed.copy_(torch.randn_like(book.codebook.embed))
    draw = {"do_sample": sampled, "temperature": 0.7}
    settings = BarkGenerationConfig.from_sub_model_configs(
        BarkSemanticGenerationConfig(
            eos_token_id=SEMANTIC, semantic_vocab_size=SEMANTIC, text_encoding_offset=SEMANTIC + 8, text_pad_token=text - 2,
            semantic_infer_token=text - 1, max_input_semantic_length=24, max_new_tokens=40, pad_token_id=SEMANTIC, **draw,
        ),
        BarkCoarseGenerationConfig(
            coarse_semantic_pad_token=SEMANTIC + 2 * CODES + 2, coarse_infer_token=SEMANTIC + 2 * CODES + 4,
            max_coarse_input_length=24, max_coarse_history=60, sliding_window_len=20, **draw,
        ),
        BarkFineGenerationConfig(temperature=0.5, max_fine_history_length=32, max_fine_input_length=64),
        sample_rate=24_000, codebook_size=CODES,
    )  # fmt: skip
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(settings.to_dict()))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvw"]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"##{w}" for w in "xyz")]) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    _presets(folder, ("en_speaker_0", "en_speaker_1", "de_speaker_3"))
    return folder


def _presets(folder: Path, voices: tuple[str, ...]) -> None:
    dice, paths = np.random.default_rng(0), {"repo_or_path": "suno/bark"}
    (folder / "speaker_embeddings/v2").mkdir(parents=True)
    for voice in (*voices, "en_speaker_2"):
        made = {
            "semantic_prompt": dice.integers(0, SEMANTIC, 30),
            "coarse_prompt": dice.integers(0, CODES, (2, 44)),
            "fine_prompt": dice.integers(0, CODES, (8, 44)),
        }
        if voice == "en_speaker_2":
            np.savez(folder / f"speaker_embeddings/v2/{voice}.npz", **made)
            continue
        paths[f"v2/{voice}"] = {key: f"speaker_embeddings/v2/{voice}_{key}.npy" for key in made}
        for key, value in made.items():
            np.save(folder / paths[f"v2/{voice}"][key], value)
    (folder / "speaker_embeddings_path.json").write_text(json.dumps(paths))


def speecht5(folder: Path) -> Path:
    """A SpeechT5 with its vocoder, and two CMU Arctic speakers in folders of their own inside."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    lines = ["the quick brown fox jumps over the lazy dog", "twenty three pigs, and five boxes of jelly! why?"] * 20
    (folder / "lines.txt").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"), model_prefix=str(folder / "spm_char"), model_type="char", vocab_size=36,
        hard_vocab_limit=False, bos_id=0, pad_id=1, eos_id=2, unk_id=3, minloglevel=2,
    )  # fmt: skip
    tokenizer = SpeechT5Tokenizer(str(folder / "spm_char.model"))
    SpeechT5Processor(SpeechT5FeatureExtractor(), tokenizer).save_pretrained(folder)
    config = SpeechT5Config(
        vocab_size=len(tokenizer), hidden_size=24, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=80, speech_decoder_prenet_units=16,
        speech_decoder_postnet_units=16, max_text_positions=600, conv_dim=(8,), conv_stride=(5,), conv_kernel=(10,),
        num_feat_extract_layers=1, encoder_max_relative_position=16,
    )  # fmt: skip
    model = SpeechT5ForTextToSpeech(config)
    with torch.no_grad():
        model.speech_decoder_postnet.prob_out.weight.mul_(STOP[0])
        model.speech_decoder_postnet.prob_out.bias.fill_(STOP[1])
        model.speech_decoder_postnet.feat_out.weight.mul_(50)
    model.save_pretrained(folder)
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(upsample_initial_channel=16, resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]])
    )
    with torch.no_grad():  # loud enough to be no silence
        for weight in vocoder.parameters():
            weight.mul_(12)
    vocoder.save_pretrained(folder / "speecht5_hifigan")
    arctic(folder / "cmu-arctic-xvectors")
    return folder


def steady(folder: Path) -> Path:
    """Let each text take a plausible time, whatever it is: a Bark of 0.8 s that finds no end, or a SpeechT5 of 1.9 s."""
    state = load_file(folder / "model.safetensors")
    if (head := "semantic.lm_head.weight") in state:
        state["semantic.layernorm_final.bias"].fill_(1)  # its inputs sum to 0, so that the end's logit is always -16
        state[head][SEMANTIC] = -1
    else:
        state["speecht5.decoder.prenet.encode_positions.alpha"].fill_(100)  # the place decides, not text and speaker
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def arctic(folder: Path) -> None:
    """x-vectors in the archive of the hub's data set."""
    dice = np.random.default_rng(1)
    folder.mkdir()
    with zipfile.ZipFile(folder / "spkrec-xvect.zip", "w") as archive:
        for speaker in SPEAKERS:
            for number in range(3):
                buffer = io.BytesIO()
                np.save(buffer, dice.normal(size=512).astype(np.float32))
                archive.writestr(f"spkrec-xvect/cmu_us_{speaker}_arctic-wav-arctic_a{number:04}.npy", buffer.getvalue())


def encoder(folder: Path) -> None:
    """The x-vector encoder of speechbrain at its own size, 4 million parameters, at random."""
    from speechbrain.lobes.models.Xvector import Xvector

    folder.mkdir(parents=True)
    save_file(Xvector(in_channels=24, lin_neurons=512).state_dict(), folder / "embedding_model.safetensors")
