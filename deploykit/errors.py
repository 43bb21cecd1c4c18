"""Every error that deploykit raises on purpose, and the exit code each one ends the command with.

A message is one sentence or two: where, what, and what to do next.
"""

from __future__ import annotations


class DeploykitError(Exception):
    """Base of all errors that are shown to the user as a sentence, without a traceback."""

    exit_code: int = 3


class CheckpointError(DeploykitError):
    """The checkpoint is missing, cut off, unsafe to load, or not understood."""


class ArchitectureError(DeploykitError):
    """The factory that builds the network is missing, fails, or does not fit the checkpoint."""


class DataError(DeploykitError):
    """Calibration or evaluation data has the wrong shape, type or values."""


class ConfigError(DeploykitError):
    """An option is unknown, contradictory or missing."""


class UsageError(ConfigError):
    """The command line was not understood: an option is missing, or has no such value."""

    exit_code = 2


class GraphError(DeploykitError):
    """The network could not be captured or is not a legal graph."""


class UnsupportedOperatorError(GraphError):
    """The graph holds an operator that this stage has no rule for."""


class RemovalError(DeploykitError):
    """Channel removal changed what the network computes."""


class QuantizationError(DeploykitError):
    """No integer plan exists for this network under the given options."""


class ParityError(DeploykitError):
    """Two stages or two runtimes disagree."""

    exit_code = 1


class BundleError(DeploykitError):
    """A bundle is missing, incomplete, or could not be written."""


class IntegrityError(BundleError):
    """A file of a bundle is not the file that was written."""

    exit_code = 1


class RuntimeUnavailableError(DeploykitError):
    """A runtime that this step needs cannot be imported."""

    exit_code = 4


class DeviceError(DeploykitError):
    """A device could not be reached, or failed while measuring."""

    exit_code = 5
