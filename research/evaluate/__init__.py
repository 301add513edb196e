"""Evaluation: means over a split, exact metrics of predictions, and figures."""
