"""What every other part uses: errors, files, checkpoints, weights, resources, processes. It imports nothing else."""
