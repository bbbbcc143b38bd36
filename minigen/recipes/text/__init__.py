"""How the shipped text encoder was made."""
