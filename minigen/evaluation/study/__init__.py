"""The study: does the regulariser of arXiv 2309.08773 help? Five models, three seeds, one honest table.

    plan ─► claim a task ─► train (goes on after a break) ─► generate, measure ─► rows.csv, captions.csv ─► table
            (run)                                            (bench, counting)    grow, never change       (bootstrap)

`run` may be started in several processes, be killed, and be started again: it does what is missing and nothing twice.
`table` reads the two files and nothing else.
"""
