"""Errors whose message is meant for the person at the keyboard.

The commands print them as one line and exit with 1 (UsageError: 2); anything else that escapes is a bug and keeps its
traceback.
"""


class TinyvaeError(Exception):
    """Something outside the code is wrong; the message says what, where, and what to do."""


class UsageError(TinyvaeError):
    """A command was asked for something that cannot be: its arguments are wrong."""


class BackendError(TinyvaeError):
    """The array library or the device that was asked for cannot be used."""


class DataError(TinyvaeError):
    """A data set is missing, damaged, or does not fit the model's likelihood."""


class CheckpointError(TinyvaeError):
    """A checkpoint is missing, damaged, or belongs to another run."""


class NonFiniteError(TinyvaeError):
    """A loss, a gradient or a parameter became NaN or infinite during training."""


class ExportError(TinyvaeError):
    """A model cannot be written in the format that was asked for."""
