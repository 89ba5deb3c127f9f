"""Responses that clients may continue or read again, in the memory of this process."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from ..runtime.prompt.prompt_encoder import Message

STORE_BYTES_MAX = 16 << 20  # of a namespace; thousands of conversations that fit a context of 2,048 tokens
_ENTRY_BYTES = 1 << 10  # what an entry takes beside its texts
_MESSAGE_BYTES = 1 << 8  # what a message takes beside its text


@dataclass(frozen=True)
class StoredResponse:
    """A response and the conversation that it ends.

    Attributes:
        body: the response as JSON.
        messages: all messages up to and with the answer; without the instructions.
    """

    body: bytes
    messages: tuple[Message, ...]

    @property
    def nbytes(self) -> int:
        """About as much memory as it takes; messages that other responses share count for each of them."""
        texts = sum(
            len(str(message).encode("utf-8", "replace")) + _MESSAGE_BYTES for message in self.messages
        )
        return _ENTRY_BYTES + len(self.body) + texts


class ResponseStore:
    """Responses by namespace and id: the most recently used within a number of bytes per namespace."""

    def __init__(self, capacity: int = STORE_BYTES_MAX) -> None:
        self._capacity = capacity
        self._entries: dict[str, OrderedDict[str, StoredResponse]] = {}
        self._nbytes: dict[str, int] = {}

    def add(self, namespace: str, response_id: str, body: bytes, messages: Sequence[Message]) -> None:
        """Keep a response, and forget those that were not used for longest to make place."""
        response = StoredResponse(body, tuple(messages))
        if response.nbytes > self._capacity:
            return
        entries = self._entries.setdefault(namespace, OrderedDict())
        entries[response_id] = response
        self._nbytes[namespace] = self._nbytes.get(namespace, 0) + response.nbytes
        while self._nbytes[namespace] > self._capacity:
            self.remove(namespace, next(iter(entries)))

    def find(self, namespace: str, response_id: str) -> StoredResponse | None:
        """Find a response of a namespace; it counts as used."""
        entries = self._entries.get(namespace, OrderedDict())
        if response_id in entries:
            entries.move_to_end(response_id)
        return entries.get(response_id)

    def remove(self, namespace: str, response_id: str) -> None:
        """Forget a response, which is there."""
        self._nbytes[namespace] -= self._entries[namespace].pop(response_id).nbytes
