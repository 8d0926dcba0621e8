"""The one error that is the user's to mend."""


class UserError(Exception):
    """Bad input: one line that names the thing, what was expected and what to do. The CLI prints it and exits 2."""


class JobError(Exception):
    """Work that failed by a fault of ours and was shown where it failed: one line, exit status 1."""


def names(values, most: int = 12) -> str:
    """Join names for an error message, at most `most` of them."""
    listed = [str(v) for v in values]
    tail = f", ... ({len(listed)} in all)" if len(listed) > most else ""
    return ", ".join(listed[:most]) + tail
