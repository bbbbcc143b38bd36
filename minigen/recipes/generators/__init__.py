"""Recipe of the shipped generators beside the language models."""
