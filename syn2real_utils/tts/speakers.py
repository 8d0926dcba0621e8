"""Speakers for SpeechT5 as x-vectors: the published ones of CMU Arctic, or those of real clips, computed with speechbrain.

Several x-vectors stand for one speaker, one for each clip; the seed of a synthetic clip draws one of them.
"""

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from syn2real_utils import audio, pickles
from syn2real_utils.corpora.base import METADATA, read_metadata
from syn2real_utils.errors import UserError
from syn2real_utils.origins import LICENCE, Origin, terms
from syn2real_utils.profile import ARCTIC, SOURCE, TtsPart
from syn2real_utils.progress import say, track
from syn2real_utils.store import Artifact, Store, sha256, write_text_atomic
from syn2real_utils.tts import snapshots

ARCTIC_SPEAKERS = ("awb", "bdl", "clb", "jmk", "ksp", "rms", "slt")
ARCTIC_FILE = "spkrec-xvect.zip"  # one .npy for each of about 1,132 utterances of each speaker
ARCTIC_NAME = re.compile(r"cmu_us_(\w+?)_arctic-.*\.npy$")
FILE = "speakers.safetensors"
ENCODER_FILE = "embedding_model.safetensors"
MOST_CLIPS = 20  # of a speaker, our choice: enough for many x-vectors, seconds of work
SHORTEST = 1.0  # seconds, our choice: an x-vector of less says little about a voice
FORMATS = (".wav", ".flac", ".ogg", ".mp3")
DIMENSION = 512
MELS = 24  # of the encoder's input; published with it, as are the shapes that `Xvector` has by itself


def load(part: TtsPart, store: Store) -> dict[str, np.ndarray]:
    """Speaker -> x-vectors, float32 (clips, 512), by name.

    Raises:
        UserError: they cannot be had, or a file is not as it must be.
    """
    if part.speakers in (None, ARCTIC):
        folder = snapshots.resolve(snapshots.ARCTIC, ARCTIC_FILE, store, (ARCTIC_FILE,), part.model)
        return _arctic(folder / ARCTIC_FILE)
    file = Path(str(part.speakers)) / FILE
    if not file.is_file():
        raise UserError(f"speakers of TTS '{part.name}': no {file}: expected {ARCTIC}, {SOURCE}, or a folder of clips")
    return dict(sorted(load_file(file).items()))


def clips_of_folder(folder: Path) -> dict[str, list[Path]]:
    """Speaker -> clips of a user's folder: by `speaker` of its metadata.csv, else each folder in it is one speaker.

    Raises:
        UserError: no folder, or no speaker in it.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder} with clips of speakers: expected {ARCTIC}, {SOURCE}, or a folder")
    if (folder / METADATA).is_file():
        rows = read_metadata(folder, ("file_name", "speaker"))
        found = {name: [Path(path) for path in group.path] for name, group in rows.groupby("speaker") if name}
    else:
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
        clips = {path.name: sorted(p for p in path.rglob("*") if p.suffix.lower() in FORMATS) for path in inside}
        found = {name: paths for name, paths in clips.items() if paths}
    if not found:
        raise UserError(
            f"the folder {folder} names no speakers: expected a folder with clips for each, or {METADATA} with `speaker`"
        )
    return found


def from_clips(
    clips: Mapping[str, Sequence[Path]], store: Store, model: str | None = None, source: Origin | None = None
) -> Artifact:
    """The x-vectors of speakers' own clips, kept in the store.

    Args:
        clips: speaker -> clips; the longest `MOST_CLIPS` are taken.
        store: where they are kept.
        model: local folder that may hold the encoder, as `snapshots.resolve` takes it.
        source: what the clips are, whose licence is noted beside the x-vectors.

    Raises:
        UserError: no speaker has a clip of `SHORTEST`, or the encoder cannot be had.
    """
    taken = {}
    for speaker, paths in sorted(clips.items()):
        lengths = sorted(((audio.duration(path), str(path)) for path in paths), reverse=True)
        long = [path for seconds, path in lengths if seconds >= SHORTEST][:MOST_CLIPS]
        if long:
            taken[speaker] = long
    if not taken:
        raise UserError(f"no speaker has a clip of {SHORTEST:g} s or more to compute an x-vector from")
    own = snapshots.given(snapshots.XVECTOR, ENCODER_FILE, model)  # whose weights may be others
    key = {
        "version": 1,
        "encoder": sha256(own / ENCODER_FILE) if own else snapshots.XVECTOR,
        "clips": {speaker: [sha256(Path(path)) for path in paths] for speaker, paths in taken.items()},
    }

    def make(into: Path) -> None:
        encode = Encoder(store, model)
        say(f"computing x-vectors of {len(taken)} speakers")
        table = {
            name: np.stack([encode(audio.read(p)) for p in paths])
            for name, paths in track(list(taken.items()), "x-vectors")
        }
        save_file(table, into / FILE)
        if source:
            write_text_atomic(into / LICENCE, "\n".join(terms([source])) + "\n")

    return store.build("data/tts", "speakers", key, make)


class Encoder:
    """speechbrain's x-vector encoder, built from its classes: its hyperparams.yaml, which runs code, is not read."""

    def __init__(self, store: Store, model: str | None = None):
        folder = snapshots.resolve(snapshots.XVECTOR, ENCODER_FILE, store, (ENCODER_FILE,), model)
        try:
            from speechbrain.lobes.features import Fbank
            from speechbrain.lobes.models.Xvector import Xvector
            from speechbrain.processing.features import InputNormalization
        except OSError as error:
            raise UserError(
                "speechbrain cannot be imported, for torchaudio was built for another torch: "
                "call 'python -m syn2real_utils.torchaudio_cpu' once"
            ) from error
        self._features = Fbank(n_mels=MELS)
        self._normalise = InputNormalization(norm_type="sentence", std_norm=False)
        self._network = Xvector(in_channels=MELS, lin_neurons=DIMENSION)
        with pickles.opening(folder):
            state = load_file(folder / ENCODER_FILE)
            self._network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()})
        self._network.eval()

    @torch.inference_mode()
    def __call__(self, wave: np.ndarray) -> np.ndarray:
        """The x-vector of a clip at `audio.SAMPLE_RATE`, float32 (512,), of length 1 as the published ones are."""
        whole = torch.ones(1)  # share of the row that is no padding
        features = self._normalise(self._features(torch.from_numpy(wave)[None]), whole)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the network adds a little noise of its own
            return torch.nn.functional.normalize(self._network(features, whole)[0, 0], dim=0).numpy()


def _arctic(file: Path) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for name in sorted(archive.namelist()):
                if match := ARCTIC_NAME.search(name):
                    vector = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                    found.setdefault(match[1], []).append(vector.astype(np.float32).ravel())
        table = {speaker: np.stack(vectors) for speaker, vectors in sorted(found.items())}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise UserError(f"{file} is damaged: expected the x-vectors of CMU Arctic, one .npy each") from error
    if not table:
        raise UserError(
            f"{file} holds no x-vectors of CMU Arctic: expected files such as cmu_us_slt_arctic-wav-arctic_a0001.npy"
        )
    return table
