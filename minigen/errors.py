"""One error for everything that a user can mend: the command line prints it on one line and exits with status 2."""


class MinigenError(ValueError):
    """What was wrong, with the value, and what to do about it."""
