"""The one error that is the user's to mend."""

import difflib
import errno


class UserError(Exception):
    """Bad input: one line that names the thing, what was expected and what to do. The CLI prints it and exits 2."""


class UnreachableError(UserError):
    """A package cannot be had from here: another source may do."""


class RevisionGoneError(UserError):
    """The hub has a repository, but not, or no longer, the commit that is asked for."""


class GpuMemoryError(UserError):
    """A GPU's memory does not suffice for `what`; the message says which setting to lower."""

    def __init__(self, message: str, what: str = ""):
        super().__init__(message)
        self.what = what


class JobError(Exception):
    """Work that failed by a fault of ours and was shown where it failed: one line, exit status 1."""


def user_errors() -> set[str]:
    """Names of the user's errors: all that a kernel tells of one that was raised in it."""
    return {UserError.__name__, *(kind.__name__ for kind in UserError.__subclasses__())}


def disk_full(error: BaseException) -> bool:
    """Whether an error says that no space is left on the disk, or none that this user may fill, in whatever type a library raises it."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(
        said in str(error) for said in ("No space left", "os error 28", "quota exceeded", "os error 122")
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's memory is full, in whatever type a library raises it."""
    said = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in said or "alloc_failed" in said)


def likely(wrong: str, known, most: int = 12) -> str:
    """`names`, those that are nearest to what was typed first."""
    listed = [str(v) for v in known]
    near = difflib.get_close_matches(wrong, listed, n=3)
    return names([*near, *(v for v in listed if v not in near)], most)


def names(values, most: int = 12) -> str:
    """Join names for an error message, at most `most` of them."""
    listed = [str(v) for v in values]
    tail = f", ... ({len(listed)} in all)" if len(listed) > most else ""
    return ", ".join(listed[:most]) + tail
