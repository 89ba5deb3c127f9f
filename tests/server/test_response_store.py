"""The memory of responses: bounded in bytes, by use, and apart for each namespace."""

from thirteen.runtime.prompt.prompt_encoder import Message
from thirteen.server.endpoints.responses import ResponseStore, StoredResponse

MESSAGES = [Message("user", "Hi"), Message("assistant", "Hello")]
BODY = b"x" * 1000
NBYTES = StoredResponse(BODY, tuple(MESSAGES)).nbytes


def store_of(responses):
    store = ResponseStore(responses * NBYTES)
    for number in range(responses):
        store.add("ours", str(number), BODY, MESSAGES)
    return store


def kept(store, namespace="ours", ids="01234"):
    return "".join(one for one in ids if store.find(namespace, one))


def test_what_was_not_used_for_longest_is_forgotten():
    store = store_of(3)
    assert store.find("ours", "0").messages == tuple(MESSAGES)
    store.add("ours", "3", BODY, MESSAGES)
    assert kept(store) == "023"


def test_a_large_response_takes_the_place_of_several():
    store = store_of(3)
    store.add("ours", "3", BODY + b"x" * 2 * NBYTES, MESSAGES)
    assert kept(store) == "3"
    store.add("ours", "4", b"x" * 4 * NBYTES, MESSAGES)
    assert kept(store) == "3", "what is larger than the memory is not kept"


def test_a_removed_response_makes_place():
    store = store_of(2)
    store.remove("ours", "0")
    store.add("ours", "2", BODY, MESSAGES)
    assert kept(store) == "12"


def test_namespaces_are_apart():
    store = store_of(2)
    for number in range(5):
        store.add("theirs", str(number), BODY, MESSAGES)
    assert (kept(store), kept(store, "theirs"), kept(store, "nobody")) == ("01", "34", "")
