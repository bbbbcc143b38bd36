"""The blind listening test: plan, clips, server, report."""
