"""Tuning of a trained language model: low-rank adapters (`lora`) and preferences between sounds (`preference`).

`minigen finetune` and `minigen prefer` are the commands.
"""
