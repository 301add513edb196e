"""Architecture families: Flax Linen modules that know no loss, no optimizer and no data."""
