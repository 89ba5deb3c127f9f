"""Questions through the engine, wave by wave, and what became of each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from queue import SimpleQueue

from ..errors import ModelFileError, RequestError
from ..runtime.answer import Answer
from ..runtime.engine import Engine
from ..runtime.handle import Handle
from ..runtime.poll import WHOLE, likelihood, winner
from ..runtime.prefix import SHORTEST, common_length
from ..runtime.request import Request
from .records import Outcome, Record, Records, Sample
from .sitting import PROFILE, Sitting
from .tasks import Question
from .terms import Terms

_PROBES = ("1", "A")  # questions that have nothing in common, so that what their prompts share is no question


def ask(sitting: Sitting, records: Records, told: Callable[[Record], None]) -> None:
    """Ask the questions that there are no records of yet, and write one for each as it ends.

    Every wave begins with the same in the engine: what the prompts share, which is computed once and alone.

    Args:
        sitting: who is asked what.
        records: of the sitting.
        told: called with each new record.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, or cannot be run by this build.
        AdapterError: the adapter is not one for this model.
        OutputError: the records cannot be written.
    """
    questions, terms = list(enumerate(sitting.asked.questions)), sitting.terms
    starts = range(len(records), len(questions), terms.wave)
    if not starts:
        return
    with Engine(
        sitting.model,
        adapter=sitting.adapter,
        profile=PROFILE,
        threads=terms.threads,
        queue=terms.wave * terms.votes,
    ) as engine:
        shared = _read_shared(engine, terms)
        for start in starts:
            engine.forget(but=shared)
            for record in _ask_wave(engine, dict(questions[start : start + terms.wave]), terms):
                records.append(record)
                told(record)


def _read_shared(engine: Engine, terms: Terms) -> tuple[int, ...]:
    """What all prompts begin with: from now on in the prefix cache. Nothing if it is not worth that."""
    one, other = (_prompt(engine, probe, terms) for probe in _PROBES)
    shared = one[: min(common_length(one, other), engine.context)]
    if len(shared) <= SHORTEST:
        return ()
    engine.submit(Request(shared, max_tokens=1)).wait()
    return shared


def _prompt(engine: Engine, question: str, terms: Terms) -> tuple[int, ...]:
    if "tokenizer.chat_template" in engine.model.header.metadata:
        return engine.conversation(terms.worded.messages(question))
    return engine.plain(terms.worded.text(question))


def _ask_wave(engine: Engine, wave: Mapping[int, Question], terms: Terms) -> Iterator[Record]:
    """The record of each question, as they end."""
    requests: dict[int, list[Request]] = {}
    for number, question in wave.items():
        try:
            requests[number] = _requests(engine, question.text, terms)
        except RequestError as error:
            yield _failed(number, question, error)
    handles = iter(engine.submit_all([one for some in requests.values() for one in some], wait=True))
    asked = {number: [next(handles) for _ in some] for number, some in requests.items()}
    ended: SimpleQueue[int] = SimpleQueue()
    for number, some in asked.items():
        for handle in some:
            handle.when_done(partial(_put, ended, number))
    missing = {number: len(some) for number, some in asked.items()}
    while missing:
        missing[number := ended.get()] -= 1
        if not missing[number]:
            del missing[number]
            yield _record(number, wave[number], asked[number])


def _put(ended: SimpleQueue[int], number: int, _: Handle) -> None:
    ended.put(number)


def _requests(engine: Engine, question: str, terms: Terms) -> list[Request]:
    tokens = _prompt(engine, question, terms)
    requests = [
        Request(
            tokens,
            terms.max_tokens,
            sampling,
            stop=terms.worded.stop,
            calculator=terms.calculator,
            logprobs=None if terms.votes == 1 else 0,
        )
        for sampling in terms.samplings
    ]
    engine.check(requests[0])  # the others differ in their seeds
    return requests


def _record(number: int, question: Question, handles: Sequence[Handle]) -> Record:
    try:
        answers = [handle.answer() for handle in handles]
    except ModelFileError as error:
        return _failed(number, question, error)
    if len(answers) == 1:
        taken = answers[0]
    else:
        taken = winner([(handle.answer(), likelihood(handle)) for handle in handles], len(answers))
    samples = tuple(
        Sample(a.value, judge(a, question.answer), a.verified, a.usage.completion_tokens, a.text)
        for a in answers
    )
    return Record(number, question.answer, taken.value, judge(taken, question.answer), samples)


def _failed(number: int, question: Question, error: Exception) -> Record:
    return Record(number, question.answer, None, Outcome.ERROR, (), str(error))


def judge(answer: Answer, expected: str) -> Outcome:
    """What an answer is worth where a number is right; one that was cut short is never correct."""
    whole = answer.stop_reason in WHOLE
    counts = whole if answer.tally is None else answer.value in answer.tally.votes
    if counts and answer.value is not None:
        return Outcome.CORRECT if answer.value == expected else Outcome.WRONG
    return Outcome.UNPARSED if whole else Outcome.TRUNCATED
