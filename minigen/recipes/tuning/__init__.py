"""Figures of tuning, for data/tuning: `preference` for DPO, `new_kind` for fine-tuning, `memory`; `card` shows them."""
