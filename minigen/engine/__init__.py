"""Shared foundation: errors, settings, files, checkpoints, weights, resources, processes. It imports no other part."""
