"""Which channels stay: a data-flow analysis with one row of a table per operator."""
