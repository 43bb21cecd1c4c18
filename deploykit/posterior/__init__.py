"""From the checkpoint file to a deterministic network with a variance beside each parameter.

Importing this package costs nothing: torch is imported by the modules that need it, so that the
command line can read `options` without it.
"""
