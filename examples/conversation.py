"""A conversation that stays within the context, with a system prompt and sampling of its own."""

from thirteen import Engine
from thirteen.runtime.engine.conversation import Conversation

with Engine("my-model.gguf") as engine:
    conversation = Conversation(engine, system="Answer briefly.")
    for question in ("A pen costs $1.20. What do 3 pens cost?", "And 5 pens?"):
        turn = conversation.next_turn(question, temperature=0.1, seed=1, max_tokens=64)
        answer = engine.submit(turn.request).answer()
        conversation.add(question, answer.text)
        print(answer.text)
