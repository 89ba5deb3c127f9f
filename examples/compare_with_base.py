"""Speed and right answers of a model beside those of its base."""

from pathlib import Path

from thirteen.bench.accuracy.accuracy import AccuracyRequest, run_accuracy
from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.bench.environment import ModelSource
from thirteen.bench.latency import run_latency
from thirteen.bench.workload import Workload

models = [ModelSource(Path("my-base.gguf")), ModelSource(Path("my-model.gguf"))]
latency = run_latency(models, Workload(prompt_tokens=128, decode_tokens=64))
print("\n".join(latency.verdict))

questions = load_question_set("questions.jsonl")  # or the name of a set: svamp, gsm8k
accuracy = run_accuracy(AccuracyRequest(models=models, questions=questions, timed=0))
print("\n".join(accuracy.verdict))
