"""Put an ffmpeg beside Python: transformers.pipeline reads audio files through the program of that name.

`python -m syn2real_utils.ffmpeg`, called once by `make setup`. Where the system has none, the one that the pip package
imageio-ffmpeg carries is linked into the environment's own folder of programs, which a line in site-packages adds to the
end of PATH, so that it is found whether the environment is activated or not.
"""

import shutil
import sys
import sysconfig
from pathlib import Path

import imageio_ffmpeg

PATH_LINE = (
    "import os, sys; os.environ['PATH'] = os.environ.get('PATH', '') + os.pathsep + os.path.join(sys.prefix, 'bin')\n"
)


def program() -> str:
    """Path of an ffmpeg: the system's, else the one that pip carries."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


def link() -> str:
    """Path of the ffmpeg that will be found: the system's, else one that is linked now."""
    if found := shutil.which("ffmpeg"):
        return found
    program = Path(sys.prefix) / "bin" / "ffmpeg"
    program.unlink(missing_ok=True)
    program.symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    site = Path(sysconfig.get_path("purelib"))
    (site / "syn2real_programs.pth").write_text(PATH_LINE, encoding="utf-8")
    return str(program)


if __name__ == "__main__":
    link()
