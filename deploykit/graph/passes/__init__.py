"""Rewrites of the float graph, each a function from a network to a network of the same function."""
