"""Recipe of the shipped language models."""
