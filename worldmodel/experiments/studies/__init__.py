"""Studies: each trains its runs, and writes a table and a plot."""
