"""Machinery below the chain: errors, files, checkpoints, weights, resources, processes. It imports nothing above it."""
