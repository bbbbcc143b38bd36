"""Sounds as conditions beside the caption: a style excerpt, a learnt word, clips found by retrieval.

All of them end in states that a generator reads in cross-attention (`minigen.guidance.Condition`):

    style        excerpt ─► codes ─► StyleConditioner ─► tokens, appended to the states of the text
    inversion    excerpt ─► codes ─► gradient descent ─► one new vector that stands for it in any caption
    retrieval    caption ─► nearest clips of a token set ─► their codes ─► the style conditioner
"""
