"""Training recipes of the shipped parts, one command each."""
