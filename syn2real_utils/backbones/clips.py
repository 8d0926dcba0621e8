"""Features of many clips: in memory while they are few, else in a file, so that memory does not grow with the hours of speech."""

import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from syn2real_utils.backbones.base import Backbone, Example
from syn2real_utils.store import home

KEPT = 1 << 29  # bytes in memory, our choice: those of 4.6 hours of log-mel, 2.3 hours of waves


class Clips(Sequence[torch.Tensor]):
    """Features, float32 with time last: the first `kept` bytes in memory, the rest in a file without a name on the store's disk."""

    def __init__(self, features: Iterable[torch.Tensor], kept: int = KEPT):
        self.lengths: list[int] = []  # of time
        self._kept: list[torch.Tensor] = []
        self._file: IO[bytes] | None = None
        self._places: list[tuple[Sequence[int], int]] = []  # of those in the file: shape, and bytes from its start
        for tensor in features:
            self.lengths.append(tensor.shape[-1])
            kept -= tensor.nbytes
            if kept >= 0:
                self._kept.append(tensor)
            else:
                self._file = self._file or tempfile.TemporaryFile(dir=home())  # noqa: SIM115
                self._places.append((tensor.shape, self._file.tell()))
                self._file.write(as_bytes(tensor))
        if self._file:
            self._file.flush()

    @classmethod
    def of(cls, backbone: Backbone, paths: Iterable[Path | str], full: bool = False) -> "Clips":
        """What a backbone hears in clips; `full`: padded to 30 s where the architecture knows that."""
        return cls(backbone.features(path, full=full) for path in paths)

    @classmethod
    def opened(cls, file: Path, shapes: Sequence[Sequence[int]]) -> "Clips":
        """Those of a file that holds `as_bytes` of each, one behind the other."""
        clips = cls([])
        clips._file, at = open(file, "rb"), 0  # noqa: SIM115
        for shape in shapes:
            clips.lengths.append(shape[-1])
            clips._places.append((shape, at))
            at += torch.float32.itemsize * math.prod(shape)
        return clips

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: Any) -> Any:
        """The features of one clip, read where they lie in the file."""
        i = range(len(self))[i]
        if i < len(self._kept):
            return self._kept[i]
        assert self._file is not None
        shape, at = self._places[i - len(self._kept)]
        data = bytearray(torch.float32.itemsize * math.prod(shape))
        if os.preadv(self._file.fileno(), [data], at) < len(data):
            raise OSError(f"the features of clip {i} are cut short")
        return torch.frombuffer(data, dtype=torch.float32).view(*shape)


@dataclass(frozen=True, eq=False)
class Examples(Sequence[Example]):
    """Clips with the tokens that a model learns to write for them."""

    clips: Sequence[torch.Tensor]
    labels: Sequence[torch.Tensor]  # each (tokens,)

    @classmethod
    def of(cls, backbone: Backbone, paths: Iterable[Path | str], texts: Iterable[str]) -> "Examples":
        """What a backbone hears in clips, and what it shall write."""
        return cls(Clips.of(backbone, paths), [backbone.labels(text) for text in texts])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: Any) -> Any:
        """One example."""
        return Example(self.clips[i], self.labels[i])


def as_bytes(features: torch.Tensor) -> bytes:
    """Features as a file of `Clips` has them."""
    assert features.dtype == torch.float32
    return features.contiguous().numpy().tobytes()


def lengths(clips: Sequence[torch.Tensor]) -> list[int]:
    """Time of each clip, without a look at what lies in a file."""
    return clips.lengths if isinstance(clips, Clips) else [clip.shape[-1] for clip in clips]


def lengths_of(examples: Sequence[Example]) -> list[int]:
    """`lengths` of the clips of examples."""
    return lengths(examples.clips if isinstance(examples, Examples) else [example.features for example in examples])
