"""What the notebooks use: setup, lesson corpus, checks, explorers; and how they are executed and published."""
