"""Judges, measures and the study: how good is a model?"""
