"""Hidden states, as calibration keeps them on disk; test_decoder.py compares layers with transformers."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from thirteen.convert.calibration.decoder import DecoderLayer
from thirteen.convert.calibration.hidden_states import compute_hidden_states
from thirteen.convert.source.architecture import EMBEDDING

from .weights import weights_of

CHUNKS = [tuple(range(10, 50)), tuple(range(90, 100))]


def test_the_states_before_each_layer_and_after_the_last_are_kept(tiny, tmp_path):
    weights, progress = weights_of(tiny), []
    with ThreadPoolExecutor(2) as pool:
        kept = compute_hidden_states(weights, CHUNKS, tmp_path, pool, lambda *at: progress.append(at))
    for number, chunk in enumerate(CHUNKS):
        states = weights.tensor(EMBEDDING)[list(chunk)]
        for layer in range(weights.architecture.layers):
            assert np.array_equal(kept.load(layer, number), states)
            made = DecoderLayer(weights, layer).forward(states)
            gate, up = kept.load_ffn(layer, number)
            assert np.allclose([gate, up], made[1].parts, rtol=1e-3, atol=1e-6)
            states = DecoderLayer(weights, layer).output(made)
        assert np.array_equal(kept.load(weights.architecture.layers, number), states)
    assert progress == [(1, 2), (2, 2)]


def test_outputs_beyond_float16_are_kept_as_its_largest_value(tiny, tmp_path):
    weights = weights_of(tiny)
    with ThreadPoolExecutor(1) as pool:
        kept = compute_hidden_states(weights, CHUNKS, tmp_path, pool)
    gate, up = DecoderLayer(weights, 0).forward(kept.load(0, 0))[1].parts
    up[0, 0] = -1e6
    kept.save_ffn(0, 0, (gate, up))
    assert kept.load_ffn(0, 0)[1][0, 0] == -65504
