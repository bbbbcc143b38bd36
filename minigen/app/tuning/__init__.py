"""The commands that tune a trained model: `finetune` on recordings, `prefer` on preferences between sounds."""
