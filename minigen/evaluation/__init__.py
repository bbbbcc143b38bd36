"""Judges, measures and the study: how good is a model?"""


def title_of(model: str, guidance: float) -> str:
    """Name of a model at a guidance scale, in tables and listening tests."""
    return f"{model}, guidance {guidance:g}"
