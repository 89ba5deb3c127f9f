"""The base that adapters are trained on: in PyTorch, frozen, and its tokenizer, which is that of the runtime.

So training sees the tokens that are asked and answered.
"""

# ruff: noqa: PLC0415 - torch takes seconds to import and comes with an extra

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..convert.provenance import write_tokenizer_file
from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..convert.source.families import FACTORS
from ..convert.source.loading import check_base_folder, loaded
from ..convert.source.model_config import to_config
from ..errors import FileError, RequestError
from ..files.cache_folder import temporary_folder
from ..files.received_files import check_links
from ..runtime.llama.model import Model
from ..runtime.prompt.chat_template import REPRODUCIBLE_DATE, SWITCH, read_chat_template
from ..runtime.prompt.prompt_encoder import Message, PromptEncoder
from ..runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from ..runtime.trial import try_files


def load_base_model(base: Path, *, bf16: bool = False, threads: int | None = None) -> Any:
    """Load a base, a folder of safetensors or a GGUF, with frozen weights in float32 or bfloat16.

    PyTorch computes with `threads` from now on, if they are given.

    Raises:
        FileError: transformers cannot load the base, a setting of it names code, or an adapter is beside it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if threads:
        torch.set_num_threads(threads)
    dtype = torch.bfloat16 if bf16 else torch.float32
    if base.is_file():
        model = _load_gguf(base, dtype)
    else:
        check_links(base)
        check_base_folder(base)
        # Without pickled weights: the hash of a base is that of its safetensors.
        options = {"local_files_only": True, "dtype": dtype, "use_safetensors": True}
        model = loaded(base, lambda: AutoModelForCausalLM.from_pretrained(str(base), **options))
    return model.requires_grad_(False).eval()


def check_base(base: Path) -> None:
    """Raise FileError, before hours of work, if transformers has no such model as a GGUF."""
    _config(open_checkpoint(base))


def _config(base: Checkpoint) -> Any:
    from transformers import AutoConfig

    keys = ("bos_token_id", "eos_token_id")
    tokens = {
        key: base.tokenizer[name].value for key in keys if (name := f"tokenizer.ggml.{key}") in base.tokenizer
    }
    fields = to_config(base.architecture, base.rope_tensors, tokens, str(base.path))
    return loaded(base.path, lambda: AutoConfig.for_model(**fields))


def _load_gguf(base: Path, dtype: Any) -> Any:
    """Dequantize a GGUF. transformers' own loader does not know some families, and the windows of Gemma 3."""
    import torch
    import transformers

    checkpoint = open_checkpoint(base)
    weights = {
        name: torch.from_numpy(spec.to_stored(checkpoint.rows(name, 0, spec.shape[0])))
        .reshape(spec.stored_shape)
        .to(dtype)
        for name, spec in checkpoint.specs.items()
    }
    kind = getattr(transformers, checkpoint.architecture.family.classes[0])
    config = _config(checkpoint)
    model = loaded(base, lambda: kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype))
    if (divisors := checkpoint.rope_tensors.get(FACTORS)) is not None:
        model.model.rotary_emb.inv_freq /= torch.from_numpy(divisors)
    return model


@dataclass(frozen=True)
class Tokenizer:
    """Questions, with all that stands around them, and answers in tokens; the date in prompts is fixed."""

    base: Path
    vocabulary: Model
    encoder: PromptEncoder

    def prompt(self, question: str, prompt: QuestionPrompt = PLAIN) -> list[int]:
        """The tokens that ask a question.

        Raises:
            FileError: the chat template rejects it, or fails.
        """
        try:
            messages = prompt.messages(question)
            return [*self.encoder.encode_conversation(messages, (), prompt.think, prompt.begin)]
        except RequestError as error:
            raise FileError(f"{self.base}: {error}") from None

    @cached_property
    def thinks(self) -> bool:
        """Whether the base can be told to think, or not, or its template begins a thought."""
        thinking, source = self.encoder.thinking, self.encoder.template_source
        return bool(thinking and (SWITCH in source or thinking.begun(self.prompt("1 + 1?"))))

    @cached_property
    def worked_tokens(self) -> int:
        """About the tokens of the worked examples after which a base without a chat template is asked."""
        return 0 if self.encoder.template_source else len(self.prompt("1 + 1?"))

    def answer(self, text: str) -> list[int]:
        """The tokens of an answer, with the one that ends it, if the base has one."""
        after_cue = not self.encoder.template_source  # "Answer:", after which a space comes
        shown = f" {text}" if after_cue else text
        return [*self.vocabulary.tokenize(shown, special=False, bos=False, continues=after_cue), *self._end]

    @cached_property
    def _end(self) -> list[int]:
        """The token that ends a turn where the chat template writes one, else that which ends a text."""
        asked, answered = Message("user", "1"), Message("assistant", "2")
        if self.encoder.template_source:
            with suppress(RequestError):
                begin = len(self.encoder.encode_conversation([asked]))
                turns = self.encoder.encode_conversation([asked, answered, asked])
                if ends := [token for token in turns[begin:] if self.vocabulary.is_eog(token)]:
                    return ends[:1]
        return [] if self.vocabulary.eos is None else [self.vocabulary.eos]

    def text(self, tokens: Iterable[int]) -> str:
        """The text of tokens; control tokens have none."""
        return b"".join(map(self.vocabulary.token_to_piece, tokens)).decode(errors="replace")


@contextmanager
def open_tokenizer(base: Path, context: int = 0) -> Iterator[Tokenizer]:
    """Load the tokenizer of a base, a GGUF or a folder of safetensors.

    A base without a chat template is asked after worked examples if these take at most half of the context.

    Raises:
        FileError: the base, its tokenizer or its chat template cannot be read.
    """
    with temporary_folder("tokenizer") as folder:
        file = base
        if base.is_dir():
            write_tokenizer_file(open_checkpoint(base), file := folder / "tokenizer.gguf")
        else:
            try_files(file)
        with Model(file, vocabulary_only=True) as vocabulary:
            template = read_chat_template(vocabulary, REPRODUCIBLE_DATE)
            half = min(context or vocabulary.context_trained, vocabulary.context_trained) // 2
            yield Tokenizer(base, vocabulary, PromptEncoder(vocabulary, template, examples_max=half))
