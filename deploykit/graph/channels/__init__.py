"""Liveness of channels as a data-flow analysis: one rule per operator, no per-architecture code."""
