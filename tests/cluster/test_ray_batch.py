"""Batch inference on a Ray cluster gives the answers of one engine, whichever workers die."""

import random
import subprocess
import sys
from dataclasses import replace
from threading import Event, Thread

import pytest
from thirteen.cluster import file_transfer
from thirteen.cluster.file_transfer import RemoteFile
from thirteen.cluster.ray_batch import RayWorker, RayWorkers
from thirteen.cluster.ray_session import ray_session, worker_capacity
from thirteen.errors import FileError, OptionError, RequestError
from thirteen.runtime.batch.batch_file import BatchFile
from thirteen.runtime.batch.reproducible_batches import BatchJob, GenerationSettings

from ..interruption import Interrupted, stop_at
from ..json_lines import write_rows
from .ray_cluster import kill, processes

pytestmark = pytest.mark.ray

COUNT = 400
WORKER = "ray::MapWorker(FlatMap(RayWorker))"


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    rows = ({"question": f"What is {n} times {n % 7 + 2}?", "id": n} for n in range(COUNT))
    return write_rows(tmp_path_factory.mktemp("questions") / "questions.jsonl", rows)


@pytest.fixture(scope="module")
def job(tiny):
    return BatchJob(tiny, None, GenerationSettings(max_tokens=24), 1)


@pytest.fixture(scope="module")
def expected(questions, job, tmp_path_factory):
    output = tmp_path_factory.mktemp("alone") / "answers.jsonl"
    BatchFile(questions, output).answer(job)
    return output.read_bytes()


def test_a_worker_of_another_version_is_refused(job):
    """Its answers were recorded under the versions of this machine."""
    (row,) = RayWorker(job, None, {"thirteen": "0.0"})({})
    assert "a worker has {'thirteen': " in row["failure"] and row["failure"].endswith("{'thirteen': '0.0'}")


def test_killed_workers_change_no_answer(cluster, questions, job, expected, tmp_path):
    """Some die while they start, some while they answer: the results come too late under load to tell."""
    rng, killed, ended = random.Random(13), set(), Event()

    def kill_some() -> None:
        while len(killed) < 5 and not ended.wait(rng.uniform(0.1, 1)):
            if alive := sorted(set(processes(WORKER)) - killed):
                kill(pid := rng.choice(alive))
                killed.add(pid)

    killer = Thread(target=kill_some)
    killer.start()
    try:
        BatchFile(questions, tmp_path / "answers.jsonl").answer(job, RayWorkers(cluster.address).run)
    finally:
        ended.set()
        killer.join()
    assert len(killed) >= 3
    assert (tmp_path / "answers.jsonl").read_bytes() == expected


def test_a_batch_started_locally_resumes_on_the_cluster(cluster, questions, job, expected, tmp_path):
    with pytest.raises(Interrupted):
        BatchFile(questions, tmp_path / "answers.jsonl").answer(job, progress=stop_at(130))
    report = BatchFile(questions, tmp_path / "answers.jsonl").answer(
        job, executor=RayWorkers(cluster.address).run
    )
    assert report.earlier == 130
    assert (tmp_path / "answers.jsonl").read_bytes() == expected


def test_a_worker_that_cannot_load_the_engine_gives_a_one_line_error(cluster, questions, job, tmp_path):
    with pytest.raises(OptionError) as error:
        BatchFile(questions, tmp_path / "a.jsonl").answer(
            replace(job, threads=1, adapter=job.model), executor=RayWorkers(cluster.address).run
        )
    assert str(error.value).startswith(f"ray {cluster.address}: {job.model}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.jsonl").exists()


def test_workers_that_fit_on_no_node_are_rejected(cluster):
    with ray_session(cluster.address) as ray:
        assert worker_capacity(ray, 1) == 2
        with pytest.raises(RequestError, match="no node has the 2 processors"):
            worker_capacity(ray, 2)
        with pytest.raises(RequestError, match="3 workers requested, but the nodes have room for 2"):
            worker_capacity(ray, 1, 3)


def test_a_removed_node_changes_no_answer(cluster, questions, job, expected, tmp_path):
    removed = []

    def progress(done: int, _: int) -> None:
        if done >= 60 and not removed:
            removed.append(cluster.list_all_nodes()[-1])
            cluster.remove_node(removed[0], allow_graceful=False)

    output, executor = tmp_path / "answers.jsonl", RayWorkers(cluster.address).run
    BatchFile(questions, output).answer(job, executor=executor, progress=progress)
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    assert removed
    assert output.read_bytes() == expected


def test_a_file_is_fetched_once_and_checked_by_its_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_transfer, "CHUNK_BYTES", 7)
    source = tmp_path / "model.gguf"
    source.write_bytes(bytes(range(100)))
    local = RemoteFile.from_path(source)
    assert local.fetch(lambda *_: b"") == source  # nothing is downloaded
    remote = RemoteFile("/nowhere/model.gguf", local.nbytes, local.sha256)
    offsets: list[int] = []

    def read(path: str, offset: int) -> bytes:
        assert path == remote.path
        offsets.append(offset)
        return file_transfer.read_chunk(str(source), offset)

    for _ in range(2):
        assert remote.fetch(read).read_bytes() == source.read_bytes()
    assert offsets == list(range(0, 100, 7))
    source.write_bytes(bytes(100))
    changed = RemoteFile("/nowhere/model.gguf", 100, "ab" * 32)
    with pytest.raises(FileError, match=r"/nowhere/model\.gguf: .* has changed"):
        changed.fetch(lambda _, offset: file_transfer.read_chunk(str(source), offset))
    with pytest.raises(FileError, match="has changed"):
        changed.fetch(lambda *_: b"")
    folder = tmp_path / "cache" / "fetched"
    assert sorted(path.suffix for path in folder.iterdir()) == [".gguf", ".lock", ".lock"]


def test_the_base_install_does_not_import_ray():
    code = (
        "import sys, thirteen.cli.main, thirteen.cli.batch, thirteen.runtime.batch.batch_file\n"
        "from thirteen.cluster import deploy, ray_batch, replica, router\n"
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_ray_the_error_names_the_extra_to_install(questions, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"the extra `ray`: pip install '\.\[ray\]'"), ray_session("auto"):
        pass
