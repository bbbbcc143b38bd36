"""The built-in corpus: synthesised sounds, the scenes they form, and their captions."""
