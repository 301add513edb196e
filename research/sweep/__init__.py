"""Hyperparameter sweeps: trials, runners, selection, and their table and figure."""
