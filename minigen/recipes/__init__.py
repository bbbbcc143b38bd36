"""How the shipped parts were made: one training recipe a part, each run by one command."""
