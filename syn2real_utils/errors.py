"""The one error that is the user's to mend."""

import errno


class UserError(Exception):
    """Bad input: one line that names the thing, what was expected and what to do. The CLI prints it and exits 2."""


class JobError(Exception):
    """Work that failed by a fault of ours and was shown where it failed: one line, exit status 1."""


def disk_full(error: BaseException) -> bool:
    """Whether an error says that no space is left on the disk, in whatever type a library raises it."""
    return getattr(error, "errno", None) == errno.ENOSPC or any(
        said in str(error) for said in ("No space left", "os error 28")
    )


def names(values, most: int = 12) -> str:
    """Join names for an error message, at most `most` of them."""
    listed = [str(v) for v in values]
    tail = f", ... ({len(listed)} in all)" if len(listed) > most else ""
    return ", ".join(listed[:most]) + tail
