"""Compare texts by their embeddings, with a GGUF that is made for them."""

from thirteen import Engine

with Engine("nomic-embed-text-v1.5.Q8_0.gguf") as engine:
    texts = ["search_document: a red pen", "search_query: something to write with"]
    document, query = engine.embed(texts)  # float32, (texts, width), of length 1
    print(document @ query)
