"""The error for mistakes that a user can correct. The command line prints it on one line and exits with status 2."""


class MinigenError(ValueError):
    """A mistake of the user: the message says what is wrong, with the value, and what to do."""


def one_line(error: Exception) -> str:
    """Message of another library's error on one line: at most 160 characters, without a final full stop."""
    return (" ".join(str(error).split()) or type(error).__name__)[:160].rstrip(". ")
