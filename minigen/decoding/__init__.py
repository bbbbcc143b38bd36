"""Fast single steps of the language model: PyTorch and numba."""
