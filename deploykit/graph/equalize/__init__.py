"""Cross-layer equalization by powers of two: the float network stays equal to the bit."""
