"""What a check says, and what the checks share: an answer as a number, beside the right one and typical wrong ones."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What a check says; a notebook cell that ends with it shows `Right: ...` or `Not yet: ...`."""

    right: bool
    text: str

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.text}"


UNANSWERED = Verdict(False, "no answer so far. Replace the dots and run the cell again.")


def stopped(what: str, error: Exception) -> Verdict:
    """A reader's function, or a call of it, ended in an error."""
    return Verdict(False, f"{what} stopped with {type(error).__name__}: {error}")


def number(answer: object, right: float, said: str, mistakes: Iterable[tuple[float, str]], hint: str) -> Verdict:
    """Judge a numeric answer: `said` where it is right, the text of the mistake that leads to it, else `hint`."""
    if answer is ...:
        return UNANSWERED
    given = as_float(answer)
    if given is None:
        return Verdict(False, f"{answer!r} is not a number. {hint}")
    if close(given, right):
        return Verdict(True, said)
    for value, text in mistakes:
        if close(given, value):
            return Verdict(False, f"{given:g} {text}")
    return Verdict(False, f"{given:g} is too {'large' if given > right else 'small'}. {hint}")


def same(given: Iterable, wanted: Iterable) -> bool:
    """Whether all given answers are the wanted numbers."""
    return all(close(as_float(one), other) for one, other in zip(given, wanted, strict=True))


def close(a: float, b: float) -> bool:
    """Equal up to a millionth."""
    return math.isclose(a, b, rel_tol=1e-6)


def as_float(answer: object) -> float | None:
    """A number of any library as a float; None for what is no number (text, True, a list, NaN)."""
    if isinstance(answer, (str, bool, bytes)):
        return None
    try:
        number = float(answer)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number if math.isfinite(number) else None
