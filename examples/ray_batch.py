"""Answer a file of questions on the workers of a Ray cluster: pip install '.[ray]'."""

from pathlib import Path

from thirteen import Options
from thirteen.runtime.batch.batch_file import BatchFile
from thirteen.runtime.batch.ray_batch import RayWorkers
from thirteen.runtime.batch.reproducible_batches import BatchJob, BatchSettings

questions, answers = Path("questions.jsonl"), Path("answers.jsonl")
settings = BatchSettings(options=Options(max_tokens=64))
job = BatchJob(Path("my-model.gguf"), None, settings, threads=1)  # of each worker
report = BatchFile(questions, answers).answer(job, RayWorkers("local").run)  # or HOST:PORT
print(f"{report.answered} of {report.rows} questions, {report.questions_an_hour:.0f} an hour")
