"""Which layers of a bundle cost accuracy, why, and what to do about it."""
