"""Reports: one Section, Table, Figure and page for every report, and the evaluation of checkpoints."""
