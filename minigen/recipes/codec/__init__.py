"""How the shipped codec was made."""
