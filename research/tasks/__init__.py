"""Tasks: the three pure functions that the loop calls."""
