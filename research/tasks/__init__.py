"""How a step is taken: three pure functions that the loop calls."""
