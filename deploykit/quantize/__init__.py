"""Deciding integers: calibration, scales, weights, and the proof that runtimes agree on them."""
