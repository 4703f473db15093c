"""Weights written here are read by `safetensors`, and weights written there are read here."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from perce_mini.hf.safetensors import DTYPES, read_safetensors, write_safetensors

SHAPES = {"matrix": [3, 5], "vector": [7], "number": [], "one": [1, 1, 1], "ü 'x'\n": [2, 1]}


@pytest.mark.parametrize("dtypes", [*([dtype] for dtype in DTYPES.values()), [*DTYPES.values()]])
def test_files_are_read_both_ways(tmp_path, dtypes):
    torch.manual_seed(0)
    tensors = {"turned": torch.randn(4, 6).to(dtypes[0]).T}
    for i, dtype in enumerate(dtypes):
        tensors |= {f"{name} {i}": torch.randn(SHAPES[name]).to(dtype) for name in SHAPES}
    write_safetensors(tmp_path / "ours", tensors)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, tmp_path / "theirs", metadata={"format": "pt"})
    for read in [load_file(tmp_path / "ours"), read_safetensors(tmp_path / "theirs")]:
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)
