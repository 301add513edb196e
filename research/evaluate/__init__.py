"""What is measured of a state: means over a split, exact metrics of its predictions, pictures."""
