"""Entry points: thin absl programs over research and experiments."""
