"""One folder an experiment: a config, its README and its results."""
