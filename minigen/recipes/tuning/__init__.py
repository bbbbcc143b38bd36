"""Figures of tuning, for data/tuning: `preference`, `new_kind`, `words` and `memory` make tables, `card` shows them."""
