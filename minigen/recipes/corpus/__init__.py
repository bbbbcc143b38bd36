"""Recipe of the card of the built-in corpus."""
