"""Sweeps over hyperparameters: the trials, where they run, which of them is best, and the table and picture of them."""
