"""One folder per experiment: a config, its README and its results."""
