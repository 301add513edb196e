"""Results: records of runs, their agreement with new runs, and tables for the READMEs."""
