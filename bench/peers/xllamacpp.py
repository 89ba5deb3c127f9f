"""xllamacpp as a peer: llama.cpp's server with its own prebuilt kernels, inside a Python process."""

from importlib.metadata import version
from urllib.parse import urlsplit

from ...errors import RequestError, one_line
from ...files.gguf.header import Header
from .completion_server import CompletionServerPeer
from .peer import PeerWorkload, vocabulary_size


class XllamacppPeer(CompletionServerPeer):
    """The server with its own defaults, but for context, slots, threads, `flash_attn` and prefix reuse."""

    def __init__(self, model: Header, workload: PeerWorkload, *, flash_attn: bool | None = None) -> None:
        """Load the model.

        Raises:
            RequestError: xllamacpp cannot read the file.
        """
        import xllamacpp  # noqa: PLC0415 - only if it is a peer

        self.version = version("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(model.path)
        params.n_parallel = workload.sequences
        params.n_ctx = workload.context * workload.sequences
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = workload.threads
        if flash_attn is not None:
            kind = xllamacpp.llama_flash_attn_type
            on, off = kind.LLAMA_FLASH_ATTN_TYPE_ENABLED, kind.LLAMA_FLASH_ATTN_TYPE_DISABLED
            params.flash_attn_type = on if flash_attn else off
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise RequestError(f"{model.path}: {one_line(error)}") from None
        address = urlsplit(self._server.listening_address).netloc
        super().__init__("xllamacpp", address, vocabulary_size(model), workload)
