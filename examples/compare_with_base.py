"""Speed and right answers of a model beside those of its base."""

from pathlib import Path

from thirteen.bench.accuracy.accuracy import AccuracyRequest, run_accuracy
from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.bench.speed.latency import LatencyRequest, run_latency
from thirteen.bench.speed.questions import QuestionShape

model, base = Path("my-model.gguf"), Path("my-base.gguf")
shape = QuestionShape(prompt_tokens=128, answer_tokens=64)
latency = run_latency(LatencyRequest(base=base, adapted=model, questions=(shape,)))
ratio = latency.middle.answer.ratio
print(f"seconds of an answer, model / base: {ratio.estimate:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")

questions = load_question_set("questions.jsonl")  # or the name of a set: svamp, gsm8k
accuracy = run_accuracy(AccuracyRequest(model=model, base=base, questions=questions, timed=0))
print("\n".join(accuracy.verdict))
