"""Parallelism over devices and processes: meshes, shardings and process groups."""
