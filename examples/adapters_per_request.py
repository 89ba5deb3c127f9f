"""One base in memory, several adapters: each request chooses its own."""

from thirteen import Engine

QUESTION = "Tom has 12 eggs and buys 6 more. How many eggs does he have?"

# Each is a GGUF LoRA, a PEFT folder, a hub id, a catalogue name or a short code.
adapters = {"sums": "my-lora", "other": "my-other-lora"}
with Engine("my-model.gguf", adapters=adapters) as engine:
    for name in ("base", *adapters):
        print(f"{name}: {engine.answer(QUESTION, adapter=name).text}")
    requests = [engine.request(QUESTION, adapter=name) for name in adapters]
    for handle in engine.submit_all(requests):  # at once; adapters take turns
        print(handle.answer().value)
