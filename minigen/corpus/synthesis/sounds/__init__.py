"""Synthesisers of the kinds of event, grouped by what makes the sound."""
