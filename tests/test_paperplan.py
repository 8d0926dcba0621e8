"""What a run costs before it is run: the paper's profiles without their corpus, and a corpus with a split of its own."""

import pandas as pd
import pytest

from syn2real_utils import cli, paperplan
from syn2real_utils.plan import plan
from syn2real_utils.profile import load_profile, profile_names
from tests.conftest import ROOT

PAPER = [name for name in profile_names() if name.startswith("paper-")]


def test_the_disk_of_table_1_counts_vectors_and_adapted_models():
    found = paperplan.estimate(load_profile("paper-table1"), 100)
    # 18 targets: real_source; of both TTS syn_source, first stage, syn_target. 18 domains alone: real and of both TTS
    assert found.models == 18 * (1 + 2 * 3) + 18 * 3
    assert found.moved == 2 * 18 * 3, "of both TTS and each target the vector, adapted, and adapted in the run"
    fetched = 3.9 + 2 * (0.967 + 4.487 + 0.586 + 0.051 + 0.018)  # SLURP; from the hub, which keeps a copy of its own
    spoken = 2 * 5 * 11_512 * 96e3 / 1e9
    assert found.gigabytes() == pytest.approx((180 + 108) * 0.97 + spoken + fetched, abs=0.1)
    assert "180 models and 108 folders of their size" in "\n".join(found.lines())


@pytest.mark.parametrize("name", PAPER)
def test_max_steps_end_every_fine_tune_of_the_papers_profiles(name):
    """So that steps and warm-up are what the profile's comments say, also where a fifth of the clips is flagged."""
    profile = load_profile(name)
    part, counts = profile.training, pd.read_csv(paperplan.COUNTS).query("split == 'train'")
    fewest = min(counts.clips.min(), counts.texts.min() * min(tts.takes for tts in profile.tts) * 0.8)
    assert fewest * part.epochs / (part.batch_size * part.gradient_accumulation) > part.max_steps == 40_000
    assert part.first_stage().max_steps == 70_000
    assert part.warmup_steps == part.first_stage().warmup_steps == (1000 if name == "paper-table3" else 500)


def test_texts_of_other_parts_are_neither_spoken_nor_trained_on_but_in_catalogue():
    parts = {"train": 5, "validation": 2, "test": 3}
    rows = [
        {"domain": d, "text_id": f"{d}{s}{i // 2}", "split": s}  # two recordings of each text
        for d in ("music", "qa", "iot") for s, n in parts.items() for i in range(2 * n)
    ]  # fmt: skip
    values = {"corpus.name": "slurp", "corpus.language": "en", "corpus.max_utterances": None, "targets": ["music"]}
    values |= {"sources": "all", "tts": [{"name": "pico", "takes": 2}], "training.epochs": 1}
    strict = plan(load_profile("quickstart", values), pd.DataFrame(rows))
    assert strict.spoken == {"pico": 3 * 5 * 2}
    # pooled real and synthetic; the same of two domains alone, of which each is the target model that chooses lam; the target
    assert strict.models == 2 + 2 * 2 + 1
    assert strict.trained == 2 * (2 * 10 + 2 * 5 * 2) + 5 * 2
    assert strict.decoded_full == 2 * 6, "pretrained and the exported model on the test part"
    known = plan(load_profile("quickstart", values | {"evaluation.protocol": "catalogue"}), pd.DataFrame(rows))
    assert known.spoken == {"pico": 3 * 10 * 2} and known.models == 2 + 2 * 2 + 1 + 2


MISSING = {
    "corpus.path=/nowhere": "corpus.path: no folder /nowhere: name the folder of slurp, or leave the path out",
    "corpus.path=EMPTY": "no texts of SLURP below EMPTY: expected slurp/train.jsonl",
    "backbone.name=/nowhere": "no backbone '/nowhere': use base or tiny.en",
    "backbone.name=EMPTY": "the backbone folder EMPTY has no config.json",
    "tts=[{name: bark, model: /nowhere}]": "no folder /nowhere with a TTS model: name one that holds config.json",
    "tts=[{name: bark, model: EMPTY}]": "the folder EMPTY has no config.json",
    "tts=[{name: speecht5, speakers: /nowhere}]": "no folder /nowhere with clips of speakers",
    "tts=[{name: pico, round_trip: {asr: /nowhere, max_cer: 0.3}}]": "no backbone '/nowhere'",
}


@pytest.mark.parametrize("setting", MISSING)
def test_a_folder_that_is_not_there_ends_a_dry_run_with_one_line(setting, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as raised:
        cli.main(["run", "paper-table1", "--dry-run", "--set", setting.replace("EMPTY", str(empty))])
    said = capsys.readouterr().err
    assert raised.value.code == 2 and said.count("\n") == 1
    assert said.startswith(f"error: {MISSING[setting].replace('EMPTY', str(empty))}")
