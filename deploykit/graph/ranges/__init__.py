"""Bounds on what each channel of a float graph can hold, from weights and measured magnitudes."""
