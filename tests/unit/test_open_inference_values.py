"""Tensors of the Open Inference Protocol give the values that a file would."""

import numpy as np
import pytest

from serve.asgi.open_inference import _of_datatype, _tensor_name, _unpack
from trainer.values.spelling import spell_value


@pytest.mark.parametrize(
    ("datatype", "elements", "texts"),
    [
        ("FP32", [0.10000000149011612, 3.0], ["0.1", "3"]),  # as clients write a float32 into JSON
        ("FP16", [0.0999755859375], ["0.1"]),
        ("FP64", [0.1, 2.5], ["0.1", "2.5"]),
        ("INT64", [2**60 + 1], [str(2**60 + 1)]),
        ("BOOL", [1, 0, True], ["true", "false", "true"]),
        ("BYTES", ["Zürich", "3.0"], ["Zürich", "3.0"]),
    ],
)
def test_elements_have_the_values_that_their_datatype_means(datatype, elements, texts):
    assert [spell_value(value) for value in _of_datatype(elements, datatype)] == texts


def test_binary_tensors_have_the_same_values():
    data = np.array([0.1, 12.5], "<f4").tobytes()
    assert _of_datatype(_unpack(data, "FP32", "inputs[0]"), "FP32") == [0.1, 12.5]
    assert _of_datatype(_unpack(b"\x01\x00", "BOOL", "inputs[0]"), "BOOL") == [True, False]


def test_a_column_of_a_table_has_its_own_name():
    assert [_tensor_name(role) for role in ("text", "feature.amount")] == ["text", "amount"]
