"""Built-in studies: each trains what it needs, and leaves a table and a plot."""
