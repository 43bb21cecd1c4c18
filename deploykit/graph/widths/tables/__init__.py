"""Measured width tables, one JSON file for each target, written by benchmarks/widths.py."""
