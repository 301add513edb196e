"""Architecture families: Flax Linen modules, independent of loss, optimizer and data."""
