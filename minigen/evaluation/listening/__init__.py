"""The blind listening test: plan, clips, server, answers, results."""
