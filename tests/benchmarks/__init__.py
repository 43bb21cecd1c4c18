"""The oracles that the benchmarks measure deploykit against."""
