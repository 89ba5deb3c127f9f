"""Ownership of the deployment on a cluster: which command takes it down when it ends."""

from secrets import token_hex
from typing import Any

_ACTOR_NAME = "deployment-owner"


class OwnerActor:
    """Ray actor that knows which command deployed last, and which ones are deploying.

    Each command has a random token.
    """

    def __init__(self) -> None:
        self._current: str | None = None
        self._deploying: list[str] = []

    def prepare(self, token: str) -> None:
        """Announce that a command is about to deploy."""
        self._deploying.append(token)

    def commit(self, token: str) -> None:
        """Make a command, which has deployed, the owner. Commands that announced themselves later remain."""
        if token in self._deploying:  # those before it may have been killed
            del self._deploying[: self._deploying.index(token) + 1]
        self._current = token

    def release(self, token: str) -> bool:
        """Remove a command that ends.

        Returns:
            Whether the deployment ends with it: it is the command's own or nobody's, and no other command is
            deploying.
        """
        if token in self._deploying:
            self._deploying.remove(token)
            return not (self._current or self._deploying)
        if self._current not in {None, token}:
            return False
        self._current = ""
        return not self._deploying

    def current(self) -> str | None:
        """Return the owner's token: "" if the owner has ended, None after a start of this actor."""
        return self._current


class Ownership:
    """A command's handle of the OwnerActor. If the actor is lost, the command keeps its deployment."""

    def __init__(self, ray: Any) -> None:
        self._ray, self._token, self._prepared = ray, token_hex(), False
        self._actor = self._find_actor()

    def _find_actor(self) -> Any:
        """The actor of this cluster; a new one if there is none."""
        options = {"name": _ACTOR_NAME, "get_if_exists": True, "lifetime": "detached", "max_restarts": -1}
        return self._ray.remote(num_cpus=0)(OwnerActor).options(**options).remote()

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
        """Whether no other command has deployed since this one committed.

        Raises:
            RayError: the cluster is lost, not only the actor.
        """
        try:
            current = self._ray.get(self._actor.current.remote())
        except self._ray.exceptions.ActorUnavailableError:  # for the moment
            return True
        except self._ray.exceptions.RayActorError:
            self._actor = self._find_actor()
            current = self._ray.get(self._actor.current.remote())
        if current is None:
            self.commit()
        return current in {None, self._token}
