"""Errors that a user can correct. The command line prints one as `error: …` and exits with status 2."""


class ThirteenError(Exception):
    """Base of all errors here. The message is one line that names what is wrong and where."""


class CheckpointError(ThirteenError):
    """A base checkpoint is unreadable, damaged, or of an unsupported architecture."""


class AdapterError(ThirteenError):
    """An adapter is damaged, does not fit its base, or has a setting that cannot be honoured."""


class ModelFileError(ThirteenError):
    """A file is not a GGUF, is damaged, or cannot be loaded by this build."""


class RequestError(ThirteenError):
    """A request cannot be run: an empty prompt, a number out of range, an unknown name."""


class PromptLengthError(RequestError):
    """A prompt is longer than the context."""


class BusyError(ThirteenError):
    """All slots are taken and the queue is full; the request may succeed later."""


class InsufficientMemoryError(ThirteenError):
    """A model needs more memory than is available with the requested context and slots."""


class DownloadError(ThirteenError):
    """A file could not be downloaded, or its hash is not the published one."""


class OutputError(ThirteenError):
    """A file or folder cannot be written."""
