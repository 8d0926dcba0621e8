"""Every name on the Hugging Face hub that a profile can ask for, with the commit that it means here.

The commits were looked up in public code and reports that pin them. Where none could be found the revision is None: the
newest commit is taken, and `syn2real doctor` says so.
"""

from dataclasses import dataclass
from typing import Literal

UNPINNED = "main, not pinned: its commit could not be looked up here"


@dataclass(frozen=True)
class HubName:
    """One repository of the hub."""

    kind: Literal["model", "dataset"]
    revision: str | None  # commit; None: see UNPINNED
    licence: str
    megabytes: int | None  # of what is fetched, as others state it; None: not known here
    used_by: str

    def line(self) -> str:
        """For people."""
        at = f"commit {self.revision[:12]}" if self.revision else UNPINNED
        size = f"about {self.megabytes} MB" if self.megabytes else "of unknown size"
        return f"{self.kind}, {self.licence}, {size}, {self.used_by}; {at}"


WHISPER = "Apache-2.0"  # as the hub's cards say; OpenAI's own release is MIT
HUB = {
    "openai/whisper-tiny": HubName(
        "model", "169d4a4341b33bc18d8881c4b69c2e104e1cc0af", WHISPER, 151, "backbone, paper"
    ),
    "openai/whisper-tiny.en": HubName("model", "87c7102498dcde7456f24cfd30239ca606ed9063", WHISPER, 151, "backbone"),
    "openai/whisper-base": HubName(
        "model", "e37978b90ca9030d5170a5c07aadb050351a65bb", WHISPER, 290, "backbone, paper"
    ),
    "openai/whisper-base.en": HubName("model", "911407f4214e0e1d82085af863093ec0b66f9cd6", WHISPER, 290, "backbone"),
    "openai/whisper-small": HubName(
        "model", "973afd24965f72e36ca33b3055d56a652f456b4d", WHISPER, 967, "backbone, paper"
    ),
    "openai/whisper-small.en": HubName("model", "e8727524f962ee844a7319d92be39ac1bd25655a", WHISPER, 967, "backbone"),
    # This commit is "Adding `safetensors` variant of this model (#1)": a stored copy of its page lists model.safetensors.
    "facebook/wav2vec2-conformer-rope-large-960h-ft": HubName(
        "model", "6b36ef01c6443c67ae7ed0822876d091ab50e4aa", "Apache-2.0", 2374, "backbone, released code"
    ),
    "facebook/wav2vec2-conformer-rel-pos-large-960h-ft": HubName("model", None, "Apache-2.0", 2475, "backbone"),
    # The weights of Bark and SpeechT5 are pytorch_model.bin at these commits, and the x-vector encoder's are *.ckpt: no safetensors.
    # pickles.py makes safetensors of them when they are fetched.
    "suno/bark": HubName("model", "70a8a7d34168586dc5d028fa9666aceade177992", "MIT", 4487, "TTS bark, released code"),
    "suno/bark-small": HubName("model", "1dbd7a128513b8ae4a4e2130fed57b7ac9da5bcd", "MIT", 1677, "TTS bark"),
    "microsoft/speecht5_tts": HubName(
        "model", "30fcde30f19b87502b8435427b5f5068e401d5f6", "MIT", 586, "TTS speecht5, released code"
    ),
    "microsoft/speecht5_hifigan": HubName(
        "model", "bb6f429406e86a9992357a972c0698b22043307d", "MIT", 51, "TTS speecht5, its vocoder"
    ),
    # `main` holds spkrec-xvect.zip, one .npy for each utterance; the same as one Parquet file: commit CMU_ARCTIC_PARQUET
    "Matthijs/cmu-arctic-xvectors": HubName(
        "dataset", "5c1297a9eb6c91714ea77c0d4ac5aca9b6a952e5", "MIT", 18, "TTS speecht5, its speakers"
    ),
    "speechbrain/spkrec-xvect-voxceleb": HubName(
        "model", "56895a2df401be4150a159f3a1c653f00051d477", "Apache-2.0", 34, "TTS speecht5, speakers of the corpus"
    ),
    "jacksukk/slurp": HubName(
        "dataset", None, "audio CC-BY-NC-4.0, text CC-BY-4.0", 3916, "corpus slurp, released code"
    ),
}
CMU_ARCTIC_PARQUET = (
    "36e87b347a6a70f0420445b02ec40c55556f9ed7"  # of refs/convert/parquet, default/validation/0000.parquet
)


def pinned(name: str) -> str | None:
    """The commit of a repository that is meant here; None for one that is not pinned, or not listed."""
    return HUB[name].revision if name in HUB else None
