"""A merged model's tensors as the float32 decoder reads them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...stats.arrays import Floats
from ..merged_model import MergedModel
from ..source.architecture import EMBEDDING, OUTPUT
from ..source.rope import FACTORS, SHORT_FACTORS


class DecoderWeights:
    """The tensors of a model by their names in a GGUF. The rows of q and k are in transformers' order.

    Attributes:
        architecture: sizes and constants.
        rope_factors: divisors of the RoPE frequencies, (rotated dimensions / 2,); None if there are none.
        shapes: shape of each tensor.
        output: name of the output matrix, which may be the token embedding.
        output_norm: name of the norm before it.
    """

    def __init__(self, model: MergedModel) -> None:
        self._model, specs = model, model.base.specs.values()
        self._sources = {spec.target: spec.source for spec in specs}
        self.architecture, divisors = model.base.architecture, model.base.rope_tensors
        # Texts for calibration are shorter than the original context of LongRoPE.
        self.rope_factors = divisors.get(FACTORS, divisors.get(SHORT_FACTORS))
        self.shapes = {spec.target: spec.shape for spec in specs}
        self.output = EMBEDDING if self.architecture.tied else OUTPUT
        outside = self.architecture.family.outside.values()
        (self.output_norm,) = (f"{kind}.weight" for kind in outside if kind.endswith("norm"))

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` of a tensor, (n, …)."""
        return self._model.rows(self._sources[name], start, stop)

    def tensor(self, name: str) -> Floats:
        """A whole tensor."""
        return self.rows(name, 0, self.shapes[name][0])

    def layer(self, index: int, pool: ThreadPoolExecutor | None = None) -> dict[str, Floats]:
        """The tensors of a layer, by their names within it; with a pool, one tensor per thread."""
        prefix = f"blk.{index}."
        names = [name for name in self.shapes if name.startswith(prefix)]
        tensors = (pool.map if pool else map)(self.tensor, names)
        return {
            name.removeprefix(prefix): np.ascontiguousarray(tensor, np.float32)
            for name, tensor in zip(names, tensors, strict=True)
        }
