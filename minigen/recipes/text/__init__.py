"""Training recipe of the shipped text encoder."""
