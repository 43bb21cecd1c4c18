"""Measures the model files of a bundle on a device, in fresh processes."""
