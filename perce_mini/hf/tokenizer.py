"""Tokenizer files of others -> Tokenizer: tokenizer.json, or vocab.json and merges.txt; and how prompts look.

Byte-level BPE only, and of the ways to cut a text into pieces only those that are known here by name: another way gives
other ids, and a model that reads other ids than it was trained on gives finite, wrong numbers.
"""

import re

from perce_mini import schema
from perce_mini.errors import UserError
from perce_mini.hf.reading import read_json, read_text
from perce_mini.schema import ABSENT, OBJECT, OTHERS, check, shown
from perce_mini.tokenizer import Tokenizer

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same, where digits are split off first, one by one: a digit ends what comes before it, white space too.
DIGITS_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
PATTERNS = {"GPT-2": GPT2, "digits and GPT-2": DIGITS_GPT2, "Llama 3": LLAMA3, "Qwen": QWEN}

PARTS = schema.list_of(schema.text(10_000), 2, 2)
PAIR = schema.Kind("'left right'", lambda x: isinstance(x, str) and x.count(" ") == 1 or PARTS.fits(x))
MERGES = schema.list_of(PAIR, 0, 10**7)
MODEL = {"type": schema.optional(schema.either("BPE")), "vocab": OBJECT, "merges": MERGES, "dropout": ABSENT}
MODEL |= dict.fromkeys(["byte_fallback", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"], ABSENT)
TOKENIZER_JSON = {"model": OBJECT, "pre_tokenizer": OBJECT, "normalizer": schema.optional(OBJECT), OTHERS: None}
TOKENIZER_JSON["added_tokens"] = schema.optional(schema.list_of(OBJECT, 0, 4096))
ADDED = {"content": schema.text(100), "id": schema.ID, OTHERS: None}


def read_tokenizer(folder, config, template=None):
    """The folder's tokenizer. config: its config.json; template: goes over the layout. Raises UserError."""
    path = folder / "tokenizer.json"
    if path.exists():
        vocab, made, special, pattern, normal_form = read_tokenizer_json(path)
    else:
        path = folder / "vocab.json"
        vocab, made, special, pattern, normal_form = read_vocab_and_merges(folder, config)
    byte_of = bytes_of_characters()
    spelled = {bytes([byte]): letter for letter, byte in sorted(byte_of.items(), key=lambda pair: pair[1])}
    for token in made:
        if not byte_of.keys() >= set(token) or token not in vocab:
            raise UserError(f"{path}: {shown(token)} is made by the merges, but is no token in bytes of the vocabulary")
        spelled.setdefault(bytes(byte_of[letter] for letter in token), token)
    ids = [vocab.get(token) for token in spelled.values()]
    layout = layout_of(special, config) | (template or {})
    state = dict(pattern=pattern, ids=ids, special=special, layout=layout, normal_form=normal_form)
    state["tokens"] = list(spelled)
    schema.check_tokenizer_state(state, path, needs_end=layout["end"] != "")
    return Tokenizer(**state)


def read_tokenizer_json(path):
    """vocab {token as spelled: id}, the tokens that merges make, control tokens {name: id}, pattern, normal form."""
    state = read_json(path)
    check(state, TOKENIZER_JSON, path)
    model, normalizer, special = state["model"], state.get("normalizer"), {}
    check(model, MODEL | {OTHERS: None}, f"{path}: model")
    if normalizer is not None:
        check(normalizer, {"type": schema.either("NFC")}, f"{path}: normalizer")
    for token in state.get("added_tokens") or []:
        check(token, ADDED, f"{path}: added_tokens")
        name, i = token["content"], token["id"]
        if model["vocab"].get(name, i) != i or special.setdefault(name, i) != i:
            raise UserError(f"{path}: {shown(name)} has two ids")
    made = [merge.replace(" ", "") if isinstance(merge, str) else "".join(merge) for merge in model["merges"]]
    return model["vocab"], made, special, pattern_of(state["pre_tokenizer"], path), normalizer and "NFC"


def read_vocab_and_merges(folder, config):
    """The same from vocab.json and merges.txt, which do not say how a text is cut: that follows from the tokens."""
    vocab, path = read_json(folder / "vocab.json"), folder / "merges.txt"
    check(vocab, {OTHERS: None}, folder / "vocab.json")
    merges = [line for line in read_text(path).splitlines() if line and not line.startswith("#version")]
    check({"merges": merges}, {"merges": MERGES}, path)
    made = [merge.replace(" ", "") for merge in merges]
    known = {*made, *bytes_of_characters()}
    special = {token: i for token, i in vocab.items() if token not in known}
    if config["architectures"] == ["Qwen3ForCausalLM"]:
        return vocab, made, special, QWEN, "NFC"
    alone = not any(re.search("[0-9]{2}", token) for token in known)  # no token of two digits: they are split first
    return vocab, made, special, DIGITS_GPT2 if alone else GPT2, None


def pattern_of(step, path):
    """The pattern at which a tokenizer.json cuts a text ("pre_tokenizer")."""
    steps = step.get("pretokenizers") if step.get("type") == "Sequence" else [step]
    check({"pre_tokenizer": steps}, {"pre_tokenizer": schema.list_of(OBJECT, 1, 4)}, path)
    first, last, kinds = steps[0], steps[-1], [step.get("type") for step in steps]
    own, plain = last.get("use_regex", True), last.get("add_prefix_space") is False
    if kinds == ["ByteLevel"] and plain and own is True:
        return GPT2
    if kinds == ["Digits", "ByteLevel"] and plain and own is True and first.get("individual_digits") is True:
        return DIGITS_GPT2
    isolated = first.get("behavior") == "Isolated" and first.get("invert") in (None, False)
    if kinds == ["Split", "ByteLevel"] and plain and own is False and isolated:
        for pattern in PATTERNS.values():
            if first.get("pattern") == {"Regex": pattern}:
                return pattern
        raise UserError(f"{path}: pre_tokenizer has another pattern than those known: {', '.join(PATTERNS)}")
    raise UserError(f"{path}: pre_tokenizer {' + '.join(map(shown, kinds))} is not supported, or not with its settings")


def bytes_of_characters():
    """Byte-level BPE files spell a byte as a character: printable ones as themselves, others from U+0100 on (GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


# How prompts look: few-shot, in the words of the rows themselves (of data/longlamp: LongLaMP's own instructions).
PLAIN = {"start": "", "item": "{query}\n{response}\n\n", "query": "{query}\n", "end": ""}
# Chat models, known by the token that ends their texts: persona and query are what the user says.
CHATS = {
    "<|im_end|>": ("<|im_start|>user\n", "{query}<|im_end|>\n<|im_start|>assistant\n"),
    "<|eot_id|>": (
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "{query}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
}


def layout_of(special, config):
    """The prompt's layout (tokenizer.LAYOUT) that fits a model: plain text, or the form of its chats."""
    ends = config.get("eos_token_id")
    named = [name for name, i in special.items() if i in (ends if isinstance(ends, list) else [ends])]
    end = next((name for name in CHATS if name in named), named[0] if named else "")
    layout = PLAIN | dict(zip(["start", "query"], CHATS.get(end, []))) | {"end": end}
    if "<|begin_of_text|>" in special:  # Llama 3
        layout["start"] = "<|begin_of_text|>" + layout["start"]
    if end in CHATS and "<think>" in special:  # Qwen3 answers at once after an empty thought
        layout["query"] += "<think>\n\n</think>\n\n"
    return layout


def read_template(path):
    """A JSON file with any of "start", "item", "query", "end", in place of the folder's own. Raises UserError."""
    template = read_json(path)
    check(template, {part: schema.optional(kind) for part, kind in schema.LAYOUT.items()}, path)
    template = {part: text for part, text in template.items() if text is not None}
    for part, name in [("item", "{response}"), ("query", "{query}")]:
        if name not in template.get(part, name):
            raise UserError(f"{path}: {part!r} does not say where {name} goes")
    return template
