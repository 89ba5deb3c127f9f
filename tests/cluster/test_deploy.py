"""Deployment where something is missing: a signal, the actor that knows the owner, or Ray Serve itself."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from thirteen.cluster import deploy
from thirteen.cluster.deploy import ClusterOptions, Deployment
from thirteen.cluster.deployment_owner import OwnerActor, Ownership
from thirteen.cluster.replica import ReplicaConfig
from thirteen.errors import RequestError
from thirteen.runtime.plan.options import EngineOptions
from thirteen.runtime.request import BASE
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.serve import ListenConfig

WITHOUT_SIGHUP = """
import signal
del signal.SIGHUP  # as on Windows
from thirteen.cli import serve
from thirteen.cluster import deploy
print([number.name for number in deploy._SIGNALS])
"""


def test_serve_is_imported_where_sighup_does_not_exist():
    """`thirteen serve` imports this module whether or not --ray is given."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_SIGHUP], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['SIGINT', 'SIGTERM']\n", "")


def test_the_options_of_replicas_follow_from_those_of_engine_and_cluster(monkeypatch):
    engine = EngineOptions(profile="server", slots=None, threads=2, queue=64)
    config = ReplicaConfig({"tiny": BASE}, engine, RequestLimits(), ListenConfig("127.0.0.1", 8080))

    def options(replicas: int, max_replicas: int | None, capacity: int) -> dict[str, Any]:
        cluster = ClusterOptions("auto", replicas=replicas, max_replicas=max_replicas)
        return Deployment(Path("tiny.gguf"), {}, config, cluster).replica_options(capacity)

    few, many = options(2, None, 3), options(2, None, 4)
    assert (few["num_replicas"], few["ray_actor_options"]) == (2, {"num_cpus": 2})
    assert (few["max_surge_percent"], many["max_surge_percent"]) == (0, 100)
    assert options(1, 4, 4)["autoscaling_config"] == {
        "min_replicas": 1,
        "max_replicas": 4,
        "target_ongoing_requests": 8,
    }
    monkeypatch.setattr(deploy, "SharedFiles", lambda *_: None)
    serve = SimpleNamespace(deployment=lambda *_, **__: SimpleNamespace(bind=lambda *bound: bound))
    open_ = replace(config, engine=engine | EngineOptions(threads=None))
    for given, adaptive in ((config, False), (open_, True)):
        deployment = Deployment(Path("tiny.gguf"), {}, given, ClusterOptions("auto"))
        (replica, *_), _ = deployment.application(FakeRay(), serve, 1)
        # A replica computed with as many threads as its own node has, beside those of others.
        assert replica.engine["threads"] == deployment.threads
        assert replica.engine["adaptive_threads"] is adaptive
    with pytest.raises(RequestError, match="max_replicas 1: fewer than replicas 2"):
        options(2, 1, 4)


def test_signals_that_are_ignored_stay_so():
    """Behind nohup, the deployment ended with the terminal."""
    ignored, heard = deploy._SIGNALS[-2:]
    before = signal.signal(ignored, signal.SIG_IGN), signal.signal(heard, signal.SIG_DFL)
    try:  # the tests themselves may run behind nohup
        with pytest.raises(deploy._SignalError) as caught, deploy._signals_raised():
            signal.raise_signal(ignored)
            signal.raise_signal(heard)
        assert caught.value.number == heard and signal.getsignal(ignored) is signal.SIG_IGN
    finally:
        for number, handler in zip((ignored, heard), before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize(
    "calls",
    [
        "Pa Ca Pb Cb -a Pc -c +b Pd +d",  # a command that fails leaves the deployment of another
        "Pa Pb Ca -a Cb +b Pc Pd -d Cc +c",  # a commit erased the announcement of another command
        "Pk Pa Ca +a",  # one that was killed while it deployed is forgotten
        "Ca Pb -a +b",  # a failed update ends the deployment if the first command has ended
    ],
)
def test_a_deployment_ends_with_the_command_that_deployed_last(calls):
    """Commands prepare, commit, and are released with (+) or without (-) the end of the deployment."""
    owner = OwnerActor()
    for number, (call, token) in enumerate(calls.split()):
        if call in "PC":
            (owner.prepare if call == "P" else owner.commit)(token)
        else:
            assert owner.release(token) is (call == "+"), calls.split()[number:]


class RayError(Exception):
    """As Ray's."""


class RayActorError(RayError):
    """As Ray's: the actor is lost."""


class ActorUnavailableError(RayActorError):
    """As Ray's: the actor does not answer for the moment."""


class Actor:
    """An actor's handle; calls raise `failure` if it is set."""

    def __init__(self, kind: Callable[[], Any]) -> None:
        self.kind, self.failure = kind, RayError()
        self.restart()

    def restart(self) -> None:
        self.instance, self.failing = self.kind(), False

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: object) -> Any:
            if self.failing:
                raise self.failure
            return getattr(self.instance, method)(*arguments)

        return SimpleNamespace(remote=lambda *arguments: lambda: call(*arguments))


class FakeRay:
    """The part of Ray that finds the actor of a cluster, or starts it, and calls it."""

    exceptions = SimpleNamespace(
        RayError=RayError, RayActorError=RayActorError, ActorUnavailableError=ActorUnavailableError
    )

    def __init__(self) -> None:
        self.actor: Actor | None = None

    def remote(self, **_: object) -> Any:
        def start(kind: Callable[[], Any]) -> Actor:
            self.actor = self.actor or Actor(kind)
            return self.actor

        return lambda kind: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: start(kind)))

    def get(self, call: Callable[[], Any]) -> Any:
        return call()

    def fail(self, failure: RayError) -> None:
        assert self.actor
        self.actor.failing, self.actor.failure = True, failure

    def lose_actor(self) -> None:
        """Lose it for good: the next command starts another."""
        self.fail(RayActorError())
        self.actor = None


def committed(ray: FakeRay) -> Ownership:
    ownership = Ownership(ray)
    ownership.prepare()
    ownership.commit()
    return ownership


def test_a_command_ends_when_another_takes_over_after_the_actor_was_lost():
    """It took each failure for "still the owner", and waited for ever."""
    ray = FakeRay()
    first = committed(ray)
    ray.lose_actor()
    second = committed(ray)
    assert not first.held and second.held
    assert not first.release()
    assert second.release()


def test_a_command_keeps_its_deployment_when_the_actor_is_lost_or_restarts():
    ray = FakeRay()
    first = committed(ray)
    for lose in (ray.lose_actor, lambda: ray.actor and ray.actor.restart()):
        lose()
        assert first.held
        failed = Ownership(ray)
        failed.prepare()
        assert not failed.release(), "the new actor knows the first command"
    ray.fail(ActorUnavailableError())
    assert first.held
    assert ray.actor
    ray.actor.restart()
    assert first.release(), "it restarted after the last look"


def test_a_command_whose_successor_has_ended_ends_too():
    """It took "nobody" for itself, if the other command came and went between two looks."""
    ray = FakeRay()
    first, second = committed(ray), committed(ray)
    assert second.release()
    assert not first.held


def test_a_command_that_was_refused_before_it_deployed_takes_nothing_down():
    """It stopped Ray Serve while another command loaded its model."""
    assert not Ownership(FakeRay()).release()


def test_a_lost_cluster_is_an_error():
    ray = FakeRay()
    first = committed(ray)
    ray.fail(RayError())
    with pytest.raises(RayError):
        _ = first.held
    ray.fail(RayActorError())  # also of the actor that is found again
    with pytest.raises(RayActorError):
        _ = first.held


class DeadServe:
    """Ray Serve whose controller has died."""

    def status(self) -> None:
        raise RayActorError("The actor died")

    delete = shutdown = lambda self, *_: self.status()


def test_a_dead_controller_hides_no_error():
    """Its own error replaced the first one, as a traceback."""
    failures = (RayError,)
    assert deploy._failure_line(DeadServe(), RayError("no\nreplica"), failures) == "no replica"
    deploy._shut_down(DeadServe(), failures)


class Serve:
    """Ray Serve with other applications."""

    def __init__(self, *others: str) -> None:
        self.applications, self.running = {deploy.APPLICATION, *others}, True

    def status(self) -> Any:
        return SimpleNamespace(applications=self.applications)

    def delete(self, name: str) -> None:
        self.applications.remove(name)

    def shutdown(self) -> None:
        self.running = False


def test_ray_serve_stays_for_other_applications():
    for serve, stays in ((Serve(), False), (Serve("other"), True)):
        deploy._shut_down(serve, (RayError,))
        assert serve.running is stays
        assert deploy.APPLICATION not in serve.applications
