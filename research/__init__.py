"""Strata: models, objectives, tasks, data and one training loop for the whole of deep learning."""
