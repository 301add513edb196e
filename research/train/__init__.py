"""The loop and what it needs: config, optimizer, checkpoints, metrics."""
