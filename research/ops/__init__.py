"""Numerical operations, some with CPU kernels that are faster than XLA's own and equal to the plain form."""
