"""One error for everything that a user can mend: the command line prints it on one line and exits with status 2."""


class MinigenError(ValueError):
    """What was wrong, with the value, and what to do about it."""


def one_line(error: Exception) -> str:
    """The first sentence or so of an error of another library, without line breaks or a closing full stop."""
    return (" ".join(str(error).split()) or type(error).__name__)[:160].rstrip(". ")
