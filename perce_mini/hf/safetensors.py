"""Safetensors, the file format of weights: 8 bytes of length (little-endian), a JSON header of that length, raw bytes.

    {"model.norm.weight": {"dtype": "F32", "shape": [576], "data_offsets": [0, 2304]}, ...}

The header is believed only where it fits the file: what it claims is checked before any memory is taken for it.
"""

import json
import math
import mmap
import re

import torch

from perce_mini.errors import UserError
from perce_mini.files import replace_file
from perce_mini.hf.reading import MAX_BYTES, decode, open_file, parse_json, read_json
from perce_mini.schema import OTHERS, Kind, check, either, list_of, object_of, shown, whole

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ENTRY = {"dtype": either(*DTYPES), "shape": list_of(whole(1, 2**31), 0, 8)}
ENTRY["data_offsets"] = list_of(whole(0, 2**63), 2, 2)
PART = Kind("a file of this folder", lambda x: isinstance(x, str) and re.fullmatch(r"[\w.-]+\.safetensors", x))
TENSORS = object_of(20_000)  # several times those of 512 layers


def read_weights(folder):
    """{name: tensor} of all the folder's *.safetensors, as views of the files. Raises UserError."""
    index, files = folder / "model.safetensors.index.json", sorted(folder.glob("*.safetensors"))
    if index.exists():
        content = read_json(index)
        check(content, {"weight_map": TENSORS, OTHERS: None}, index)
        places = content["weight_map"]
        check(places, dict.fromkeys(places, PART), f"{index}: weight_map")
        files = [folder / name for name in sorted(set(places.values()))]
    if not files:
        raise UserError(f"{folder}: no *.safetensors in it")
    tensors = {}
    for path in files:
        for name, tensor in read_safetensors(path).items():
            if name in tensors:
                raise UserError(f"{path}: {shown(name)} stands in another file, too")
            tensors[name] = tensor
    return tensors


def read_safetensors(path):
    """{name: tensor} of a file. Nothing is copied: tensors are views of the memory-mapped file.

    Raises UserError unless every tensor has a known dtype, a shape of its size, and a place of its own within the file.
    """
    with open_file(path) as f:
        if f.seek(0, 2) < 8:
            raise UserError(f"{path}: too short for a safetensors file")
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    length = int.from_bytes(data[:8], "little")
    start = 8 + length
    if start > len(data):
        raise UserError(f"{path}: the header of {length} bytes does not fit into the file: truncated?")
    where = f"{path}: the header"
    header = parse_json(decode(data[8 : min(start, 8 + MAX_BYTES + 1)], where), where)
    check({"header": header}, {"header": TENSORS}, path)
    header.pop("__metadata__", None)
    check_places(header, len(data) - start, path)
    tensors = {}
    for name, entry in header.items():
        shape, dtype, at = entry["shape"], DTYPES[entry["dtype"]], start + entry["data_offsets"][0]
        tensors[name] = torch.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=at).view(shape)
    return tensors


def check_places(header, size, path):
    """Every entry is well formed, and lies in the `size` bytes of data where no other does."""
    for name, entry in header.items():
        where = f"{path}: {shown(name)}"
        check(entry, ENTRY, where)
        shape, (start, end) = entry["shape"], entry["data_offsets"]
        if not start <= end <= size:
            raise UserError(f"{where} lies at {start} to {end}, beyond the {size} bytes of data: truncated?")
        if end - start != math.prod(shape) * DTYPES[entry["dtype"]].itemsize:
            raise UserError(f"{where} has {end - start} bytes, not those of {entry['dtype']} {shape}")
    places = sorted((*entry["data_offsets"], name) for name, entry in header.items())
    for (_, end, name), (start, _, other) in zip(places, places[1:]):
        if end > start:
            raise UserError(f"{path}: {shown(name)} and {shown(other)} overlap")


def write_safetensors(path, tensors):
    """What `read_safetensors` reads: {name: tensor} -> a file that takes the place of `path` in one step."""
    names, header, end = {dtype: name for name, dtype in DTYPES.items()}, {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)  # the data starts at a multiple of 8

    def write(new):
        with open(new, "wb") as f:
            f.write(len(head).to_bytes(8, "little") + head)
            for tensor in tensors.values():
                f.write(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)

    replace_file(path, write)
