"""The majority of several sampled answers, and how sure it is."""

from thirteen import Engine

QUESTION = "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?"

with Engine("my-model.gguf") as engine:
    for piece in engine.stream(QUESTION, effort="high", min_confidence=0.6):
        if piece.tally:
            print(piece.tally.agreement)
        if answer := piece.answer:  # the last piece has it
            if answer.confidence is not None:
                print(f"{answer.value}: right with a probability of {answer.confidence:.0%}")
            print("sure" if answer.sure else "not sure: below 60 %, so there is no value")
