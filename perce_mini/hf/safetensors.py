"""Safetensors, a file format for weights: header length (8 bytes), JSON header, tensor data.

{"model.norm.weight": {"dtype": "F32", "shape": [576], "data_offsets": [0, 2304]}, ...}
"""

import json
import mmap

import torch

from perce_mini.runtime.checkpoint import check
from perce_mini.runtime.errors import UserError, one_line, short_repr
from perce_mini.runtime.files import MAX_BYTES, open_regular, read_json, replace_file

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_weights(folder):
    """Read {name: tensor} from model.safetensors, or from all files in the index. Raises UserError.

    The folder must not contain other *.safetensors files: another program might read them instead.
    """
    index, files = folder / "model.safetensors.index.json", {"model.safetensors"}
    if index.exists():
        with one_line(index, "a weight index"):
            files = set(read_json(index)["weight_map"].values())
    for file in files ^ {path.name for path in folder.glob("*.safetensors")}:
        reason = "is missing" if file in files else "does not belong to the model: remove it"
        raise UserError(f"{folder}: {short_repr(file)} {reason}")
    tensors = {}
    for file in sorted(files):
        for name, tensor in read_safetensors(folder / file).items():
            if name in tensors:
                raise UserError(f"{folder / file}: {short_repr(name)} is also in another file")
            tensors[name] = tensor
    return tensors


def read_safetensors(path):
    """Read {name: tensor} from one file, as views of the memory-mapped data. Raises UserError."""
    with open_regular(path) as file, one_line(path, "a complete safetensors file"):
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        begin = 8 + int.from_bytes(data[:8], "little")
        check(begin <= min(len(data), MAX_BYTES), f"a header of {begin - 8} bytes")
        header, tensors = json.loads(data[8:begin]), {}
        header.pop("__metadata__", None)
        for name, entry in header.items():
            (start, end), dtype = entry["data_offsets"], DTYPES[entry["dtype"]]
            check(0 <= start < end <= len(data) - begin, f"{short_repr(name)} ends at byte {end}")
            count = (end - start) // dtype.itemsize
            flat = torch.frombuffer(data, dtype=dtype, count=count, offset=begin + start)
            tensors[name] = flat.view(entry["shape"])  # fails unless the shape has `count` numbers
            check(flat.nbytes == end - start, f"{short_repr(name)} has {end - start} bytes")
        check(sum(t.nbytes for t in tensors.values()) <= len(data) - begin, "overlapping tensors")
    return tensors


def write_safetensors(path, tensors):
    """Write {name: tensor} to `path`, replacing the file if it exists."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape)}
        header[name]["data_offsets"] = [start, end]
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)  # tensor data start at a multiple of 8

    def write(new):
        with open(new, "wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for tensor in tensors.values():
                file.write(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)

    replace_file(path, write)
