"""Judges, measures and the study: how good is a model?"""


def title_of(model: str, guidance: float, steps: int | None = None) -> str:
    """Name of a model at a guidance and, if chosen, a number of steps, in tables and listening tests."""
    return f"{model}, guidance {guidance:g}" + (f", {steps} step{'s' * (steps > 1)}" if steps else "")
