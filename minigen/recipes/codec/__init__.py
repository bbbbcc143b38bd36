"""Training recipe of the shipped codec."""
