"""How the card of the built-in corpus was made."""
