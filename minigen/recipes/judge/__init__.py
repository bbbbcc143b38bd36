"""How the shipped CLAP model and tagger were made."""
