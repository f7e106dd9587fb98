"""The one family of errors. It lives in the lowest package so that every other one can raise it."""


class DissectError(Exception):
    """Something failed. The message is one line: what was given, what is allowed, what to do."""

    exit_code = 1


class UsageError(DissectError):
    """The caller asked for something that does not exist or cannot be."""

    exit_code = 2


def one_line(error: BaseException) -> str:
    """An exception as one line: its type and the start of its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}{'…' if len(text) > 400 else ''}" if text else type(error).__name__
