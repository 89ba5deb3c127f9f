"""Ownership of the deployment on a cluster: which command takes it down when it ends."""

from secrets import token_hex
from typing import Any

_ACTOR_NAME = "deployment-owner"


class OwnerActor:
    """Ray actor that knows which command deployed last, and which one is deploying.

    Each command has a random token.
    """

    def __init__(self) -> None:
        self._current, self._next = "", ""

    def prepare(self, token: str) -> None:
        """Announce that a command is about to deploy."""
        self._next = token

    def commit(self, token: str) -> None:
        """Make a command, which has deployed, the owner."""
        self._current, self._next = token, ""

    def release(self, token: str) -> bool:
        """Remove a command that ends.

        Returns:
            Whether the deployment ends with it: it is the command's own or nobody's, and no other command is
            deploying.
        """
        if self._next == token:
            self._next = ""
            return not self._current
        if self._current != token:
            return False
        self._current = ""
        return not self._next

    def current(self) -> str:
        """Return the owner's token; "" if no command has deployed since this actor started."""
        return self._current


class Ownership:
    """A command's handle of the OwnerActor. If the actor is lost, the command keeps its deployment."""

    def __init__(self, ray: Any) -> None:
        options = {"name": _ACTOR_NAME, "get_if_exists": True, "lifetime": "detached", "max_restarts": -1}
        self._actor = ray.remote(num_cpus=0)(OwnerActor).options(**options).remote()
        self._ray, self._token, self._prepared = ray, token_hex(), False

    def prepare(self) -> None:
        """Announce that this command is about to deploy."""
        self._prepared = True
        self._ray.get(self._actor.prepare.remote(self._token))

    def commit(self) -> None:
        """Make this command the owner."""
        self._ray.get(self._actor.commit.remote(self._token))

    def release(self) -> bool:
        """Return whether the deployment ends with this command; see OwnerActor.release()."""
        try:
            return self._prepared and bool(self._ray.get(self._actor.release.remote(self._token)))
        except self._ray.exceptions.RayError:
            return True

    @property
    def held(self) -> bool:
        """Whether no other command has deployed."""
        try:
            return self._ray.get(self._actor.current.remote()) in {"", self._token}
        except self._ray.exceptions.RayError:
            return True
