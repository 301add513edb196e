"""What experiments reached: records of runs, whether a new run agrees with them, and tables for the READMEs."""
