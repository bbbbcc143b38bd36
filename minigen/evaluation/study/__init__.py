"""The study: does the regulariser of arXiv 2309.08773 help? Five models, three seeds, one table.

    plan ─► lock a task ─► train, or continue ─► generate, measure ─► rows.csv, captions.csv ─► results, table, figures
            (run)                                (per_caption)        rows are only added        (bootstrap)

`run` can be started in several processes, be killed, and be started again: it does the missing tasks, each once.
`results`, `table` and `figures` read the two files and nothing else.
"""
