"""A merged model's tensors by their names in a GGUF, for calibration."""

from ...files.gguf.model_shape import ModelShape
from ...files.safetensors import Rows
from ..merged_model import MergedModel


class WeightsByGgufName:
    """Tensors of a merged model, whole or by rows. The rows of q and k are in transformers' order.

    Attributes:
        shape: sizes of the model.
        rms_eps: epsilon of RMSNorm.
        rope_theta: base of the RoPE frequencies.
        rope_factors: divisors of the RoPE frequencies, (head_dim / 2,); None if they are not scaled.
        biased: whether q, k and v have biases.
        tied: whether the token embedding is also the output matrix.
    """

    def __init__(self, model: MergedModel) -> None:
        architecture = model.base.architecture
        self._model = model
        self._sources = {spec.target: spec.source for spec in model.base.specs.values()}
        self.shape: ModelShape = architecture
        self.rms_eps, self.rope_theta = architecture.rms_eps, architecture.rope_theta
        self.rope_factors = model.base.rope_factors
        self.biased = "blk.0.attn_q.bias" in self._sources
        self.tied = architecture.tied

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of a tensor, (n, …)."""
        return self._model.rows(self._sources[name], start, stop)
