"""Figures of the two tuning commands, for data/tuning: `preference` for DPO, `new_kind` for fine-tuning, `card`."""
