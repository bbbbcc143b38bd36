"""Fast single steps of the language model: with PyTorch, as a CUDA graph, and compiled with numba."""
