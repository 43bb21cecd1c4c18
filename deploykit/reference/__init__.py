"""Numpy evaluators that state the semantics exactly; they need no runtime."""
