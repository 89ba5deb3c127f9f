"""Every error that a user can mend. The command line prints one as `error: …` and exits with status 2."""


class ThirteenError(Exception):
    """Something the user can mend; the message is one line naming what is wrong and where."""


class CheckpointError(ThirteenError):
    """A base checkpoint that cannot be read, is damaged, or is of an unsupported architecture."""


class AdapterError(ThirteenError):
    """An adapter that is damaged, does not fit its base, or asks for what cannot be honoured."""


class ModelFileError(ThirteenError):
    """A file that is not a GGUF, is damaged, or is not one that this build can load."""


class RequestError(ThirteenError):
    """A request that cannot be run: an empty prompt, a number out of its bounds, a name nobody knows."""


class PromptLengthError(RequestError):
    """A prompt that is longer than the context."""


class BusyError(ThirteenError):
    """A request that the engine has no place for now, neither running nor waiting; later it may."""


class NoRoomError(ThirteenError):
    """A model that needs more memory than there is, with the room that was asked for."""


class DownloadError(ThirteenError):
    """A file that could not be fetched, or whose hash is not the published one."""


class OutputError(ThirteenError):
    """A target that cannot be written."""
