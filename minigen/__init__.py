"""minigen: how text becomes sound, one module per idea."""

__version__ = "0.1.0"
