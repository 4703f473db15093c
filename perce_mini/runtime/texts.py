"""Keep the texts that an evaluation generates, so that it can be interrupted and repeated."""

import hashlib
from functools import partial
from pathlib import Path

from perce_mini.runtime.checkpoint import check
from perce_mini.runtime.errors import one_line
from perce_mini.runtime.files import check_writable, parse_json, read_text, write_jsonl_atomic
from perce_mini.runtime.models import fingerprint


def open_texts(folder, model_folder, loaded, examples, settings):
    """(texts, save): the texts that an earlier evaluation wrote for the first examples, and a
    function that replaces them. Raises UserError.

    loaded: the LoadedModel of model_folder; settings: what else the texts depend on. The name of
    the file is a hash of all this, so a text never serves another model, prompt or setting.
    """
    model, tokenizer, _ = loaded
    key = [fingerprint(model_folder), model.head.dtype, model.head.device.type, settings]
    key += [tokenizer.state(), tokenizer.end, [e.prompt for e in examples]]
    digest = hashlib.sha256(repr(key).encode()).hexdigest()
    path = Path(folder) / f"texts-{digest[:16]}.jsonl"
    check_writable(path)
    texts = []
    if path.exists():
        with one_line(path, "a file of texts"):
            texts = [parse_json(line, path) for line in read_text(path).splitlines()]
            check(len(texts) <= len(examples), "too many texts")
            check(all(isinstance(text, str) for text in texts), "no texts")
        print(f"{path} holds {len(texts)} of {len(examples)} texts; remove it to write them again")
    return texts, partial(write_jsonl_atomic, path)
