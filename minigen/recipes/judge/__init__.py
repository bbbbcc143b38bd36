"""Training recipes of the shipped CLAP model and tagger."""
