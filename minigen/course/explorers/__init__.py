"""Explorers of the notebooks, one a module: ipywidgets boxes that show their result after every change of a control.

The notebook has a static picture beside each, for readers without a kernel.
"""
