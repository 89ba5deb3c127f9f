"""API keys: who may ask, where not everyone may."""

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Self

from ...errors import RequestError

FILE_MAX = 1 << 20  # bytes


class ApiKeys:
    """Some keys, of which only hashes are kept. Comparing takes the same time whatever is compared."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [sha256(key.encode()).digest() for key in keys]

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a file of keys, one on each line; blank lines and those that begin with # are none.

        Raises:
            RequestError: it cannot be read, or has no key.
        """
        try:
            with path.open("rb") as file:
                text = file.read(FILE_MAX + 1).decode()
        except OSError as error:
            raise RequestError(f"{path}: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise RequestError(f"{path}: not UTF-8 at byte {error.start}") from None
        if len(text) > FILE_MAX:
            raise RequestError(f"{path}: more than {FILE_MAX} bytes are no file of keys")
        lines = [line.strip() for line in text.splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise RequestError(f"{path}: there is no key in it")
        return cls(keys)

    def hold(self, authorization: bytes) -> bool:
        """Whether an Authorization header, as "Bearer KEY", carries one of them."""
        scheme, _, key = authorization.strip().partition(b" ")
        given = sha256(key.strip()).digest()
        found = [compare_digest(given, known) for known in self._hashes]  # all of them, found or not
        return scheme.lower() == b"bearer" and any(found)
