"""Save the texts that an evaluation generates, so that it can be interrupted and resumed."""

import hashlib
from pathlib import Path

from perce_mini.runtime.checkpoint import check
from perce_mini.runtime.errors import one_line
from perce_mini.runtime.files import check_writable, parse_json, read_text, write_jsonl_atomic
from perce_mini.runtime.models import fingerprint


class KeptTexts(list):
    """A list of texts that is saved to a file whenever it is extended."""

    def __init__(self, path):
        self.path = path
        check_writable(path)
        if path.exists():
            with one_line(path, "a file of saved texts"):
                super().extend(parse_json(line, path) for line in read_text(path).splitlines())
                check(all(isinstance(text, str) for text in self), "a line that is not a string")

    def extend(self, texts):
        super().extend(texts)
        write_jsonl_atomic(self.path, self)


def open_texts(folder, model_folder, loaded, examples, settings):
    """Open the KeptTexts of an evaluation, with any texts from an earlier, interrupted call.

    loaded: the LoadedModel from model_folder; settings: whatever else the texts depend on. The file
    name is a hash of all of these, so a text is never reused for a different model, prompt or
    setting. Raises UserError.
    """
    model, tokenizer, _ = loaded
    key = [fingerprint(model_folder), model.head.dtype, model.head.device.type, settings]
    key += [tokenizer.state(), tokenizer.end, [e.prompt for e in examples]]
    digest = hashlib.sha256(repr(key).encode()).hexdigest()
    texts = KeptTexts(Path(folder) / f"texts-{digest[:16]}.jsonl")
    if texts:
        n = f"{len(texts)} of {len(examples)}"
        print(f"reusing {n} texts from {texts.path}; delete this file to generate them again")
    return texts
