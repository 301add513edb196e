"""What is minimised and what is reported: pure functions of (model, variables, batch, key)."""
