"""The parity ladder: proving that every stage and every runtime computes the same thing."""
