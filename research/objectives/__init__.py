"""Losses and their metrics: pure functions of (model, variables, batch, key)."""
