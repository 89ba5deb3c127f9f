"""Gradients of questions beside an adapter: written, read, and refused in one line."""

import json

import numpy as np
import pytest
from thirteen.errors import AdapterError
from thirteen.files.safetensors import write_safetensors
from thirteen.models.training.question_gradients import FILE, save_gradients, saved_gradients

GRADIENTS = {"What is 1 and 1?": np.array([0.5, -1.0, 2.0]), "Wieviel?": np.zeros(3)}


def test_what_is_saved_is_read(tmp_path):
    save_gradients(tmp_path, GRADIENTS, "b")
    found = saved_gradients(tmp_path, "b", 3)
    assert list(found) == list(GRADIENTS)
    assert all((found[question] == GRADIENTS[question]).all() for question in GRADIENTS)


def test_an_adapter_without_them_has_none(tmp_path):
    assert saved_gradients(tmp_path, "b", 3) == {}


@pytest.mark.parametrize(
    ("questions", "rows", "basis", "message"),
    [
        ('["a", "b"]', np.zeros((2, 3)), "c", "the gradients are of another basis"),
        ('["a"]', np.zeros((2, 3)), "b", "damaged: delete it"),
        ('["a", 1]', np.zeros((2, 3)), "b", "damaged: delete it"),
        ("[", np.zeros((2, 3)), "b", "damaged: delete it"),
        ("[" * 100_000, np.zeros((2, 3)), "b", "damaged: delete it"),
        ('["a", "b"]', np.zeros((2, 4)), "b", "damaged: delete it"),
        ('["a", "b"]', np.full((2, 3), np.nan), "b", "a gradient is not finite"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, questions, rows, basis, message):
    metadata = {"questions": questions, "basis": basis}
    write_safetensors(tmp_path / FILE, {"gradients": rows.astype(np.float32)}, metadata)
    with pytest.raises(AdapterError, match=message):
        saved_gradients(tmp_path, "b", 3)


def test_another_file_of_the_name_is_refused(tmp_path):
    (tmp_path / FILE).write_text(json.dumps(["a"]))
    with pytest.raises(AdapterError, match=r"\.gradients\.safetensors"):
        saved_gradients(tmp_path, "b", 3)
