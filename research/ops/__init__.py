"""Numerical kernels with derivatives of their own: equal to the plain form, and faster."""
