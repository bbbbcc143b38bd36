"""The verdict of a check, and helpers of all checks: call a function of the reader, compare numbers."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Result of a check. A notebook cell that ends with it shows `Right: ...` or `Not yet: ...`."""

    right: bool
    text: str

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.text}"


UNANSWERED = Verdict(False, "no answer so far. Replace the dots and run the cell again.")


def stopped(what: str, error: Exception) -> Verdict:
    """The verdict on a call that raised an error."""
    return Verdict(False, f"{what} stopped with {type(error).__name__}: {error}")


def call(name: str, function: Callable, *arguments) -> tuple[object, Verdict | None]:
    """Call a function of the reader: -> (its value, None), or (None, the verdict) if it raises or is not written."""
    try:
        value = function(*arguments)
    except Exception as error:  # a reader's function may raise anything
        return None, stopped(name, error)
    return value, UNANSWERED if value is ... else None


def numbers(name: str, function: Callable, cases: Iterable[tuple]) -> tuple[list, Verdict | None]:
    """Call a function of the reader with each case: -> (its numbers, None), or the verdict if one is no number."""
    given = []
    for case in cases:
        asked = f"{name}({', '.join(f'{value:g}' if isinstance(value, float) else str(value) for value in case)})"
        value, failed = call(asked, function, *case)
        if failed:
            return given, failed
        if as_float(value) is None:
            return given, Verdict(False, f"{asked} gives {value!r}, not a number. What is returned?")
        given.append(value)
    return given, None


def number(answer: object, right: float, said: str, mistakes: Iterable[tuple[float, str]], hint: str) -> Verdict:
    """Judge a numeric answer: `said` if it is right, the text of the mistake that leads to it, otherwise `hint`."""
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
    """A number of any library as a float; None for anything else (text, True, a list, NaN)."""
    if isinstance(answer, (str, bool, bytes)):
        return None
    try:
        number = float(answer)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number if math.isfinite(number) else None
