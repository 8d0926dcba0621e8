"""A stand-in for a user's own domain: the texts of one domain of a corpus in a file, its real clips in a folder."""

import shutil
from pathlib import Path

from syn2real_utils import stages
from syn2real_utils.corpora.base import METADATA, check_domains
from syn2real_utils.profile import Profile
from syn2real_utils.store import write_text_atomic


def texts_and_clips(profile: Profile, domain: str, folder: Path) -> tuple[Path, Path]:
    """Write `<domain>.txt`, a text in each line, and the AudioFolder `<domain>` of its clips below `folder`.

    What is there already stays untouched, so that a second call finds the same files.
    """
    rows = stages.real_rows(profile)
    check_domains(rows, [domain])
    rows = rows[rows.domain == domain].sort_values("utterance")
    texts, clips = folder / f"{domain}.txt", folder / domain
    write_text_atomic(texts, "\n".join(rows.drop_duplicates("text_id").transcription) + "\n")
    files = [Path(path) for path in rows.path]
    wanted = rows.assign(file_name=[file.name for file in files])[["file_name", "transcription", "domain", "language"]]
    table = wanted.to_csv(index=False, lineterminator="\n")
    metadata = clips / METADATA
    if not metadata.is_file() or metadata.read_text(encoding="utf-8") != table:
        shutil.rmtree(clips, ignore_errors=True)
        clips.mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, clips / file.name)
        write_text_atomic(metadata, table)
    return texts, clips
