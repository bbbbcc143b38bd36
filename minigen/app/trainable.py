"""The earlier place of `minigen.generators.trainable`, for scripts that import it from here."""

from minigen.generators.trainable import LATENT, TRAINABLE

__all__ = ["LATENT", "TRAINABLE"]
