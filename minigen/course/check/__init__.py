"""Checks of the exercises: each says at once whether an answer is right, or what went wrong. One module a notebook.

    from minigen.course.check import first_sound as check
    check.bit_rate(2000, codec)   ->  Right: 50 frames/s x 4 codebooks x 10 bits = 2000 bit/s.
    check.bit_rate(500, codec)    ->  Not yet: 500 is what one codebook costs. Each frame has 4.

A check accepts the right answer in every form that a reader may give it, and recognises typical wrong answers by the
mistake that leads to them.
"""
