"""What a reader moves: one explorer a module, each an ipywidgets box that shows its result after every change.

Each has a static picture beside it in its notebook, for readers without a kernel.
"""
