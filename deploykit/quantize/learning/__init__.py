"""Learned rounding: integers, scales and biases of a block of layers, by gradients; needs torch."""
