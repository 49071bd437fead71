"""Every error that this package raises on purpose, and how messages count.

A message says where, what was found, what is allowed and what to do.
"""


class FsnnError(Exception):
    """Base of all errors raised on purpose by this package."""


class SpecError(FsnnError, ValueError):
    """Notation that cannot be read, or shapes that cannot be built."""


class ConfigError(FsnnError, ValueError):
    """Settings with an unknown key, a wrong type or contradicting values."""


class DatasetError(FsnnError, ValueError):
    """A dataset file that is missing, truncated or not what its name says."""


class CheckpointError(FsnnError, ValueError):
    """A training checkpoint that is truncated, altered or of another version."""


class NetworkError(FsnnError, ValueError):
    """A hardware network, or its file, that breaks an invariant."""


class PotentialBoundError(NetworkError):
    """A network whose membrane potential cannot be proven to fit 24 bits."""


class InputError(FsnnError, ValueError):
    """Inputs that do not fit the network they are given to."""


class UnsupportedError(FsnnError, ValueError):
    """A target that cannot express a network; the message names every violation."""


class StateOverflowError(FsnnError, OverflowError):
    """A membrane potential that left the 24-bit range during a run."""


class ConvergenceError(FsnnError, RuntimeError):
    """An iteration that produced values which are not finite."""


class BackendError(FsnnError, RuntimeError):
    """A backend that failed, or did not answer in time."""


class IncompleteRunError(BackendError):
    """A run that failed or was interrupted after some samples.

    Attributes
    ----------
    samples : how many samples were finished.
    result : the `RunResult` of these samples, the first of the batch; None if there are none. Of a training on Lava:
        the `TrainingOutcome` of all whole updates.
    """

    def __init__(self, message: str, *, samples: int, result: object = None) -> None:
        super().__init__(message)
        self.samples = samples
        self.result = result


class MissingDependencyError(FsnnError, ImportError):
    """An optional package that is absent; the message names the extra to install."""


class OutputError(FsnnError, OSError):
    """A file or folder that cannot be written."""


def counted(number: int, noun: str) -> str:
    """Write a number of things for a message: "1 sample", "2 samples"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
