"""Chunks of calibration text, as llama-imatrix makes them."""

from collections.abc import Sequence

from ...errors import RequestError
from ..llama.model import Model
from ..prompt.prompt_encoder import PromptEncoder
from ..prompt.template_process import read_chat_template
from .corpus import Passage, passage_tokens

Chunk = tuple[int, ...]  # tokens


def chunk_passages(model: Model, passages: Sequence[Passage], chunk_size: int) -> list[Chunk]:
    """Cut the tokens of all passages into chunks.

    As in llama-imatrix, the begin-of-text token replaces the first token of each chunk, if the tokenizer adds
    one, and an incomplete last chunk is dropped, unless it is the only one.

    Raises:
        RequestError: there are no tokens, the chunk size is out of range, or the chat template rejects a
            question.
    """
    if not 1 <= chunk_size <= model.context_trained:
        raise RequestError(
            f"chunk size must be from 1 to the {model.context_trained} tokens that the model was trained "
            f"for, not {chunk_size}"
        )
    encoder = PromptEncoder(model, read_chat_template(model.header, model.bos, model.eos))
    tokens = [token for passage in passages for token in passage_tokens(model, encoder, passage)]
    if not tokens:
        raise RequestError("the passages have no tokens")
    end = len(tokens) // chunk_size * chunk_size or len(tokens)
    bos = [model.bos] if model.adds_bos and model.bos is not None else []
    return [(*bos, *tokens[start + len(bos) : start + chunk_size]) for start in range(0, end, chunk_size)]
