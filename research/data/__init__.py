"""Where examples come from, and which of them a step sees."""
