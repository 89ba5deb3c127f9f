"""Batch inference on a Ray cluster gives the answers of one engine, whichever workers die."""

import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pandas
import pytest
from thirteen.errors import OptionError, RequestError
from thirteen.runtime.batch.batch_file import BatchFile
from thirteen.runtime.batch.ray_batch import RayWorker, RayWorkers
from thirteen.runtime.batch.ray_session import ray_session
from thirteen.runtime.batch.reproducible_batches import BatchJob, BatchSettings
from thirteen.runtime.options import Options

from ..interruption import Interrupted, stop_at
from ..json_lines import write_rows
from .ray_cluster import kill, processes

pytestmark = pytest.mark.ray

COUNT = 400
WORKER = "ray::MapWorker(MapBatches(RayWorker))"


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    rows = ({"question": f"What is {n} times {n % 7 + 2}?", "id": n} for n in range(COUNT))
    return write_rows(tmp_path_factory.mktemp("questions") / "questions.jsonl", rows)


@pytest.fixture(scope="module")
def job(tiny):
    return BatchJob(tiny, None, BatchSettings(options=Options(max_tokens=24)), 1)


@pytest.fixture(scope="module")
def expected(questions, job, tmp_path_factory):
    output = tmp_path_factory.mktemp("alone") / "answers.jsonl"
    BatchFile(questions, output).answer(job)
    return output.read_bytes()


def test_a_worker_with_another_model_or_version_is_refused(job):
    """Its answers were recorded under those of this machine."""
    job = job.decided()
    for name in ("thirteen", "model_sha256"):
        (failure,) = RayWorker(job, job.identity | {name: "0"}, None)({})["failure"]
        assert re.match(rf"a worker has {name} .*, this machine 0$", failure)


def test_a_worker_without_the_path_finds_the_model_by_its_name(job, tiny):
    job = job.decided()
    missing = replace(job, model=Path("/nowhere/tiny.gguf"))
    batch = pandas.DataFrame({"numbers": [[1]], "questions": [["1 + 1?"]]})
    for worker, failure in (
        (RayWorker(missing, job.identity, lambda: (tiny, None)), ""),
        (RayWorker(missing, job.identity, None), "/nowhere/tiny.gguf"),
    ):
        (found,) = worker(batch)["failure"]
        assert failure in found and bool(failure) == bool(found)


def test_killed_workers_change_no_answer_of_a_resumed_batch(cluster, questions, job, expected, tmp_path):
    """Some die while they start, some while they answer: the results come too late under load to tell."""
    rng, killed, ended = random.Random(13), set(), Event()

    def kill_some() -> None:
        while len(killed) < 5 and not ended.wait(rng.uniform(0.1, 1)):
            if alive := sorted(processes(WORKER) - killed):
                kill(pid := rng.choice(alive))
                killed.add(pid)

    with pytest.raises(Interrupted):
        BatchFile(questions, tmp_path / "answers.jsonl").answer(job, progress=stop_at(130))
    killer = Thread(target=kill_some)
    killer.start()
    try:
        report = BatchFile(questions, tmp_path / "answers.jsonl").answer(job, RayWorkers(cluster.address).run)
    finally:
        ended.set()
        killer.join()
    assert len(killed) >= 3 and report.earlier == 130
    assert (tmp_path / "answers.jsonl").read_bytes() == expected


def test_a_worker_that_cannot_load_the_engine_gives_a_one_line_error(cluster, questions, job, tmp_path):
    with pytest.raises(OptionError) as error:
        BatchFile(questions, tmp_path / "a.jsonl").answer(
            replace(job, threads=1, adapter=job.model), executor=RayWorkers(cluster.address).run
        )
    assert str(error.value).startswith(f"ray {cluster.address}: {job.model}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.jsonl").exists()


def test_without_ray_the_error_names_the_extra_to_install(questions, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"the extra `ray`: pip install '\.\[ray\]'"), ray_session("auto"):
        pass
