"""Many devices and processes: the mesh, what lies where on it, and how processes meet and end together."""
