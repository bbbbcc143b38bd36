"""Plots, players, diagrams and tables, for notebooks and reports."""
