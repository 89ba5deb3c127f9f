"""A batch on a Ray cluster has the answers of one engine, whatever dies while it runs."""

import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from thirteen.errors import ModelFileError, RequestError
from thirteen.runtime.batch.batch_file import answer_file
from thirteen.runtime.batch.reproducible_batches import BatchJob, GenerationSettings
from thirteen.runtime.cluster import file_transfer
from thirteen.runtime.cluster.file_transfer import RemoteFile
from thirteen.runtime.cluster.ray_batch import RayWorkers
from thirteen.runtime.cluster.ray_session import ray_session, worker_capacity

from ...commands import Commands
from .ray_cluster import kill, processes, two_nodes

COUNT = 500
WORKER = "ray::MapWorker(FlatMap(RayWorker))"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    rows = ({"question": f"What is {n} times {n % 7 + 2}?", "id": n} for n in range(COUNT))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def job(tiny: Path) -> BatchJob:
    return BatchJob(tiny, None, GenerationSettings(max_tokens=24), 1)


@pytest.fixture(scope="module")
def expected(questions: Path, job: BatchJob, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("alone") / "answers.jsonl"
    answer_file(questions, job, output)
    return output.read_bytes()


def test_two_workers_give_the_answers_of_one_engine(
    cluster: Any, questions: Path, job: BatchJob, expected: bytes, tmp_path: Path
) -> None:
    answer_file(questions, job, tmp_path / "answers.jsonl", ask=RayWorkers(cluster.address).ask)
    assert (tmp_path / "answers.jsonl").read_bytes() == expected


def test_workers_that_are_killed_cost_nothing_but_time(
    cluster: Any, questions: Path, job: BatchJob, expected: bytes, tmp_path: Path
) -> None:
    dice, killed, moments = random.Random(13), [], {60, 140, 220, 300, 380}

    def progress(done: int, _: int) -> None:
        due = [moment for moment in moments if moment <= done]
        alive = [pid for pid in processes(WORKER) if pid not in killed]
        if due and alive:
            moments.difference_update(due[:1])
            killed.append(dice.choice(alive))
            kill(killed[-1])

    answer_file(
        questions, job, tmp_path / "answers.jsonl", ask=RayWorkers(cluster.address).ask, progress=progress
    )
    assert len(killed) == 5
    assert (tmp_path / "answers.jsonl").read_bytes() == expected


def test_a_batch_begun_here_is_ended_there(
    cluster: Any, questions: Path, job: BatchJob, expected: bytes, tmp_path: Path
) -> None:
    def stop(done: int, _: int) -> None:
        if done == 130:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_file(questions, job, tmp_path / "answers.jsonl", progress=stop)
    report = answer_file(questions, job, tmp_path / "answers.jsonl", ask=RayWorkers(cluster.address).ask)
    assert report.earlier == 130
    assert (tmp_path / "answers.jsonl").read_bytes() == expected


def test_what_is_no_model_is_one_line(cluster: Any, questions: Path, tmp_path: Path) -> None:
    model = tmp_path / "no.gguf"
    model.write_bytes(b"no model, but longer than a header would be")
    with Commands() as thirteen:
        done = thirteen(
            "batch", questions, model, "--out", tmp_path / "a.jsonl", "--ray", cluster.address, "--threads", 1
        )
    assert done.status == 2
    assert done.stderr.startswith(f"error: {model}: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "a.jsonl").exists()


def test_what_no_worker_can_run_is_one_line(
    cluster: Any, questions: Path, job: BatchJob, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError) as error:
        answer_file(
            questions,
            replace(job, threads=1, adapter=job.model),
            tmp_path / "a.jsonl",
            ask=RayWorkers(cluster.address).ask,
        )
    assert str(error.value).startswith(f"--ray {cluster.address}: {job.model}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.jsonl").exists()


def test_workers_larger_than_any_node_are_refused(cluster: Any) -> None:
    with ray_session(cluster.address) as ray:
        assert worker_capacity(ray, 1) == 2
        with pytest.raises(RequestError, match="no node has the 2 processors"):
            worker_capacity(ray, 2)
        with pytest.raises(RequestError, match="3 are wanted, but the nodes have processors for 2"):
            worker_capacity(ray, 1, 3)


def test_a_node_that_is_removed_costs_nothing_but_time(
    cluster: Any, questions: Path, job: BatchJob, expected: bytes, tmp_path: Path
) -> None:
    gone = []

    def progress(done: int, _: int) -> None:
        if done >= 60 and not gone:
            gone.append(cluster.list_all_nodes()[-1])
            cluster.remove_node(gone[0], allow_graceful=False)

    answer_file(
        questions, job, tmp_path / "answers.jsonl", ask=RayWorkers(cluster.address).ask, progress=progress
    )
    assert gone
    assert (tmp_path / "answers.jsonl").read_bytes() == expected


def test_an_address_that_nobody_answers_is_one_line(questions: Path, tiny: Path, tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with Commands() as thirteen:
            done = thirteen("batch", questions, tiny, "--out", tmp_path / "a.jsonl", "--ray", address)
    assert done.status == 2
    assert done.stderr == f"error: --ray {address}: nobody answers there: Connection refused\n"


@pytest.mark.parametrize("address", ["head", "ray://head:1", ":6379", "head:port"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    with pytest.raises(RequestError, match="give auto, or HOST:PORT"), ray_session(address):
        pass


HEAD = """
import sys
import ray
import ray._private.utils
ray.__version__ = "2.0.0"
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
"""


def test_a_cluster_of_another_version_is_one_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as head:
        assert head.stdout is not None and head.stdin is not None
        address = next(line.strip() for line in head.stdout if line.startswith(("127.", "1", "2")))
        with pytest.raises(RequestError, match=r"2\.0\.0") as error, ray_session(address):
            pass
        head.stdin.close()
    assert "\n" not in str(error.value)


def test_a_file_is_fetched_once_and_only_if_it_is_the_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_transfer, "CHUNK_BYTES", 7)
    source = tmp_path / "model.gguf"
    source.write_bytes(bytes(range(100)))
    here = RemoteFile.of(source)
    assert here.unpack(lambda *_: b"") == source  # it is there: nothing is fetched
    there = RemoteFile("/nowhere/model.gguf", here.nbytes, here.sha256)
    asked: list[int] = []

    def read(sha256: str, offset: int) -> bytes:
        assert sha256 == here.sha256
        asked.append(offset)
        return file_transfer.read_chunk(str(source), offset)

    for _ in range(2):
        assert there.unpack(read).read_bytes() == source.read_bytes()
    assert asked == list(range(0, 100, 7))
    source.write_bytes(bytes(100))
    other = RemoteFile("/nowhere/model.gguf", 100, "ab" * 32)
    with pytest.raises(ModelFileError, match=r"/nowhere/model\.gguf: .* has changed"):
        other.unpack(lambda _, offset: file_transfer.read_chunk(str(source), offset))
    with pytest.raises(ModelFileError, match="has changed"):
        other.unpack(lambda *_: b"")
    kept = tmp_path / "cache" / "fetched"
    assert sorted(path.suffix for path in kept.iterdir()) == [".gguf", ".lock", ".lock"]


def test_the_base_install_does_not_import_ray() -> None:
    code = (
        "import sys, thirteen.cli.main, thirteen.cli.batch, thirteen.runtime.batch.batch_file\n"
        "from thirteen.runtime.cluster import deploy, ray_batch, replica, router\n"
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_ray_its_option_says_what_to_install(
    questions: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"pip install 'thirteen\[ray\]'"), ray_session("auto"):
        pass
