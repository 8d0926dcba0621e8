"""What `syn2real doctor` says of each profile: exactly what is missing, how large it is, and whether it can be had here."""

import json

import pytest

from syn2real_utils import cli, doctor, hubnames
from syn2real_utils.backbones import sources
from syn2real_utils.corpora import slurpfetch
from syn2real_utils.needs import HUB, RELEASE
from syn2real_utils.profile import load_profile
from syn2real_utils.store import fingerprint
from syn2real_utils.tts import snapshots
from tests.conftest import ROOT

OFFLINE = {HUB: False, RELEASE: False}
TTS = {
    "suno/bark": 4487,
    "microsoft/speecht5_tts": 586,
    "microsoft/speecht5_hifigan": 51,
    "Matthijs/cmu-arctic-xvectors": 18,
}


def have(root, *folders: str, revision: str | None = None) -> None:
    """Artifacts as if fetched from the hub, at the commit that is meant here or at another."""
    for folder in folders:
        key = {"revision": revision or hubnames.pinned(folder.replace("-", "/", 1))}
        made = root / f"{folder}-{fingerprint(key)}"
        made.mkdir(parents=True)
        (made / "done.json").write_text(json.dumps({"key": key}))


def test_a_paper_profile_lacks_exactly_these_parts(tmp_path):
    found = doctor.lacks(load_profile("paper-table3"), tmp_path, OFFLINE)
    weights = "facebook/wav2vec2-conformer-rope-large-960h-ft"
    sizes = {part["what"].split()[-1]: part["megabytes"] for part in found["missing"]}
    assert sizes == {"SLURP": 3900, weights: 2374} | TTS and found["megabytes"] == sum(sizes.values())
    assert all(part["stated"] and not part["reachable"] for part in found["missing"]) and not found["ready"]
    said = found["says"]
    assert said.startswith(
        "cannot run here yet, lacks about 11.4 GB: from GitHub and Zenodo, which cannot be reached: "
    )
    assert (
        f"from the hub, which cannot be reached: weights of {weights} (about 2.4 GB), bark: suno/bark (about 4.5"
        in said
    )
    online = doctor.lacks(load_profile("paper-table3"), tmp_path, {HUB: True, RELEASE: True})["says"]
    assert online.startswith("fetches first about 11.4 GB: from GitHub") and "reached" not in online


def test_what_is_there_or_is_a_folder_of_the_users_is_not_lacking(tmp_path):
    have(tmp_path / sources.KIND, "openai-whisper-small")
    have(tmp_path / snapshots.KIND, "suno-bark", revision="another commit")
    have(tmp_path / snapshots.KIND, "suno-bark-small", "microsoft-speecht5_hifigan")
    (model := tmp_path / "mine" / "spkrec-xvect-voxceleb").mkdir(parents=True)
    (tmp_path / "mine" / "config.json").write_text("{}")
    tts = [{"name": "bark"}, {"name": "speecht5", "model": str(model.parent), "speakers": "source"}]
    settings = {"tts": tts, "corpus.source": "hub"}
    found = doctor.lacks(load_profile("paper-table1", settings), tmp_path, OFFLINE)
    assert [part["what"] for part in found["missing"]] == ["speech of SLURP", "bark: suno/bark"], (
        "bark-small is another model, and its own folder another commit"
    )
    have(tmp_path / snapshots.KIND, "suno-bark")
    have(tmp_path / "data/sources", "slurphub-en")
    assert doctor.lacks(load_profile("paper-table1", settings), tmp_path, OFFLINE)["says"] == "ready"
    gone = doctor.lacks(load_profile("paper-table1", settings | {"corpus.path": "/nowhere"}), tmp_path, OFFLINE)
    assert gone["says"].startswith("cannot run: corpus.path: no folder /nowhere") and not gone["ready"]


def test_without_the_network_doctor_ends_well_and_says_so_of_tts_and_corpora(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SYN2REAL_HOME", str(tmp_path))
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.setattr(doctor, "hub", lambda: False)
    monkeypatch.setattr(slurpfetch, "SITES", {"GitHub": "http://127.0.0.1:9/", "Zenodo": "http://127.0.0.1:9/"})
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as raised:
            cli.main(["doctor", *options])
        assert not raised.value.code
    plain, _, told = capsys.readouterr().out.partition("{")
    found = json.loads("{" + told)
    away = "which cannot be reached: fetch it elsewhere and name its folder in the profile, see data/README.md"
    assert found["TTS"]["bark"] == f"not fetched yet: about 4.5 GB from the hub, {away}"
    assert found["TTS"]["speecht5"] == f"not fetched yet: about 655 MB from the hub, {away}"
    assert found["corpora"]["slurp-en, the hub's copy"] == f"not fetched yet: about 3.9 GB from the hub, {away}"
    assert found["corpora"]["slurp-en"].startswith(f"not fetched yet: about 3.9 GB from GitHub and Zenodo, {away}")
    assert found["TTS"]["kokoro"] == "not fetched yet: 66 MB from pip, fetched at first use"
    assert found["profiles"]["paper-table1"]["missing"] and "paper-table1:" in plain
