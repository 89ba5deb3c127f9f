"""Ask a question, and print an answer as it is generated."""

from thirteen import Engine

with Engine("my-model.gguf") as engine:
    answer = engine.answer("A pen costs $1.20. What do 3 pens cost?")
    print(answer.value, answer.text, answer.timings)
    for piece in engine.stream("What is 12 * 13?"):
        print(piece.text, end="", flush=True)
