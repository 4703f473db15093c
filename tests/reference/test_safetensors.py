"""Weights written here are read by `safetensors`, and weights written there are read here."""

import pytest
import safetensors.torch
import torch

from perce_mini.hf.safetensors import DTYPES, read_safetensors, write_safetensors


def make_tensors(dtype):
    torch.manual_seed(0)
    shapes = {"matrix": [3, 5], "vector": [7], "number": [], "one": [1, 1, 1], "ü 'quoted'\n": [2, 1]}
    tensors = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    return tensors | {"turned": torch.randn(4, 6).to(dtype).T}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_ours_is_read_by_theirs(tmp_path, dtype):
    write_safetensors(tmp_path / "a.safetensors", make_tensors(dtype))
    assert_equal(safetensors.torch.load_file(tmp_path / "a.safetensors"), make_tensors(dtype))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_theirs_is_read_by_ours(tmp_path, dtype):
    tensors = {name: tensor.contiguous() for name, tensor in make_tensors(dtype).items()}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert_equal(read_safetensors(tmp_path / "a.safetensors"), tensors)


def test_a_file_of_several_dtypes(tmp_path):
    tensors = {name: torch.randn(3, 3).to(dtype) for name, dtype in DTYPES.items()}
    write_safetensors(tmp_path / "a.safetensors", tensors)
    assert_equal(safetensors.torch.load_file(tmp_path / "a.safetensors"), tensors)
    safetensors.torch.save_file(tensors, tmp_path / "b.safetensors")
    assert_equal(read_safetensors(tmp_path / "b.safetensors"), tensors)
