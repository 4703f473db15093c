"""Read a pretrained model's tokenizer from tokenizer.json, or from vocab.json and merges.txt.

Byte-level BPE: a pattern splits a text into pieces, and adjacent tokens in a piece are merged in
the order listed in the file. Wrong ids give plausible but wrong numbers, so anything that would
make the ids differ from those of the `tokenizers` package raises an error.
"""

import re
import unicodedata
from itertools import pairwise

import tiktoken

from perce_mini.runtime.checkpoint import check
from perce_mini.runtime.errors import UserError, one_line, short_repr
from perce_mini.runtime.files import read_json, read_text
from perce_mini.tokenizer import TEMPLATE, Tokenizer

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same, but digits are split off first, so a digit ends the piece before it, even white space.
DIGITS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
QWEN += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
PATTERNS = [GPT2, DIGITS, LLAMA3, QWEN]

# Control tokens such as <think> and [PAD], which are never part of ordinary text.
is_markup = re.compile(r"<\S+>|\[\S+\]").fullmatch


class PretrainedTokenizer(Tokenizer):
    pretrained = True

    def __init__(self, tokens, ids, pattern, special, template, normal_form):
        """tokens: byte strings in the order in which BPE merges them; ids: one per token;
        pattern: one of PATTERNS; special: {control token: id}; normal_form: "NFC" or None.

        Raises ValueError if the arguments are inconsistent.
        """
        numbers, n = [*ids, *special.values()], len(set(tokens)) + len(special)
        check(all(type(i) is int and i >= 0 for i in numbers), "ids that are not whole numbers")
        check(len(numbers) == len(set(numbers)) == n, "tokens without a unique id")
        check(set(tokens) >= {bytes([i]) for i in range(32, 127)}, "printable ASCII has no ids")
        check(
            pattern in PATTERNS and normal_form in ("NFC", None), "unknown pattern or normal form"
        )
        end = template["end"]
        check(end in ["", *special], f"the template's end {short_repr(end)} is not a control token")
        self.tokens, self.ids, self.pattern, self.special = tokens, ids, pattern, special
        self.template, self.normal_form = {part: template[part] for part in TEMPLATE}, normal_form
        # tiktoken needs all 256 bytes. Some vocabularies lack a few; these get a rank but no id.
        self.ranked = [*tokens, *sorted({bytes([i]) for i in range(256)} - set(tokens))]
        ranks = {token: rank for rank, token in enumerate(self.ranked)}
        options = {"pat_str": pattern, "mergeable_ranks": ranks, "special_tokens": {}}
        self.encoding = tiktoken.Encoding("pretrained", **options)
        self.bytes_of = dict(zip(ids, tokens))
        self.prepare_template()

    def state(self):
        names = ["tokens", "ids", "pattern", "special", "template", "normal_form"]
        return {name: getattr(self, name) for name in names}

    def normalize(self, text):
        return unicodedata.normalize(self.normal_form, text) if self.normal_form else text

    def ranks(self, text):
        """Convert text to indices into `ranked`."""
        return self.encoding.encode_ordinary(self.normalize(text))

    def encode(self, text):
        """Convert text to ids. Bytes without an id are omitted, as in `tokenizers`."""
        return [self.ids[rank] for rank in self.ranks(text) if rank < len(self.ids)]

    def spans(self, text):
        spans, end = [], 0
        for rank in self.ranks(text):
            start, end = end, end + len(self.ranked[rank])
            if rank < len(self.ids):
                spans.append((start, end))
        return spans


NFC = {"type": "NFC"}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
DIGIT_BY_DIGIT = {"type": "Digits", "individual_digits": True}
OTHER_BPE = ["byte_fallback", "unk_token", "dropout", "end_of_word_suffix"]
OTHER_BPE += ["continuing_subword_prefix"]


def split_at(pattern):
    """Build the "pre_tokenizer" entry of a tokenizer.json that splits text with this pattern."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    steps = [split | {"invert": False}, LEVEL | {"use_regex": False}]
    return {"type": "Sequence", "pretokenizers": steps}


def read_tokenizer(folder, settings, template=None):
    """Read a folder's PretrainedTokenizer. Raises UserError.

    settings: the content of config.json; template: overrides parts of the model's own template (see
    `read_template`).
    """
    path = folder / "tokenizer.json"
    path = path if path.exists() else folder / "vocab.json"
    with one_line(path, "a supported tokenizer"):
        content = read_json(path)
        if path.name == "vocab.json":
            is_qwen = "Qwen" in settings["architectures"][0]
            content = as_tokenizer_json(content, folder / "merges.txt", is_qwen)
        normalizer, special = content.get("normalizer"), read_control_tokens(content)
        check(normalizer in (None, NFC), f"normalizer {short_repr(normalizer)}")
        pattern = read_pattern(content["pre_tokenizer"])
        start = read_start(content.get("post_processor") or LEVEL, special)
        end = (template or {}).get("end", "")
        if end not in ["", *special]:
            what = f'the "end" {short_repr(end)} in the --template file'
            raise UserError(f"{what} is not a control token of {folder}: {short_repr([*special])}")
        template = make_template(special, read_ends(folder, settings), start) | (template or {})
        id_of = order_tokens(content["model"], special)
        tokens, ids = list(id_of), list(id_of.values())
        return PretrainedTokenizer(tokens, ids, pattern, special, template, normalizer and "NFC")


def as_tokenizer_json(vocab, path, is_qwen):
    """Build the content of a tokenizer.json from vocab.json and merges.txt.

    These two files do not name the pre-tokenization pattern, so it is inferred from the model type
    and the merges.
    """
    lines = read_text(path).split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    made = {merge.replace(" ", "") for merge in merges}
    added = [token for token in vocab if token not in made and is_markup(token)]
    pattern = GPT2 if any(re.search("[0-9]{2}", token) for token in made) else DIGITS
    return {
        "model": {"vocab": vocab, "merges": merges},
        "added_tokens": [{"content": token, "id": vocab[token]} for token in added],
        "pre_tokenizer": split_at(QWEN if is_qwen else pattern),
        "normalizer": NFC if is_qwen else None,
    }


def read_pattern(step):
    """Return the pattern of a "pre_tokenizer", which must be one of PATTERNS."""
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    steps = [{key: value for key, value in s.items() if key != "trim_offsets"} for s in steps]
    steps[-1] = {"use_regex": True} | steps[-1]
    forms = [(GPT2, [LEVEL]), (DIGITS, [DIGIT_BY_DIGIT, LEVEL])]
    forms += [(pattern, split_at(pattern)["pretokenizers"]) for pattern in PATTERNS]
    patterns = [pattern for pattern, form in forms if form == steps]
    check(patterns, f"pre_tokenizer {short_repr(steps)}")
    return patterns[0]


def read_control_tokens(content):
    """Read {name: id} from the "added_tokens". No text is ever encoded as one of them."""
    special = {}
    for token in content.get("added_tokens") or []:
        name, i = token["content"], token["id"]
        is_control = token.get("special") or is_markup(name)
        strips = token.get("lstrip") or token.get("rstrip")
        check(is_control and not strips, f"added token {short_repr(name)} is not a control token")
        same = content["model"]["vocab"].get(name, i) == i == special.setdefault(name, i)
        check(same, f"two ids for {short_repr(name)}")
    return special


def read_start(processor, special):
    """Return the control tokens that a "post_processor" puts before a text, as one string."""
    start = ""
    for step in processor.get("processors", [processor]):
        check(step["type"] in ("ByteLevel", "TemplateProcessing"), f"post_processor {step['type']}")
        if step["type"] == "TemplateProcessing":
            *names, _ = [part.get("SpecialToken", {}).get("id") for part in step["single"]]
            check(special.keys() >= set(names), "post_processor that adds more than a prefix")
            start = "".join(names)
    return start


def read_ends(folder, settings):
    """Read the end-of-text ids. Chat models often list theirs only in generation_config.json."""
    path, ids = folder / "generation_config.json", []
    for place in [settings, read_json(path) if path.exists() else {}]:
        end = place.get("eos_token_id")
        ids += end if isinstance(end, list) else [end]
    return ids


def order_tokens(model, special):
    """Return {bytes: id} for the ordinary tokens, in the order of the merges that complete them.

    tiktoken merges any two adjacent parts that together form a token, always the pair whose token
    comes first in this order. The file allows only the listed pairs. Both give the same ids if the
    listed merges build every token from its letters, which is checked here. With "ignore_merges", a
    piece that is a token stays whole, as in tiktoken. The merges may then leave a token in three or
    more parts, but not in two, because tiktoken would join them.
    """
    for name in OTHER_BPE:
        check(not model.get(name), f"{name} {short_repr(model.get(name))}")
    vocab = {token: i for token, i in model["vocab"].items() if token not in special}
    merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
    order, byte_of = {pair: rank for rank, pair in enumerate(merges)}, bytes_of_characters()
    check(vocab.keys() >= {left + right for left, right in order}, "a merge forms no known token")
    work = sum(len(token) ** 2 for token in vocab)  # 3 million for SmolLM2
    check(work < 5 * 10**7, "tokens that are too long")
    ranks = {}
    for token in vocab:
        parts, ranks[token] = merge_all(token, order)
        whole = len(parts) == 1 or model.get("ignore_merges") and len(parts) > 2
        check(whole, f"the merges do not form {short_repr(token)}")
    tokens = sorted(vocab, key=lambda token: (ranks[token], vocab[token]))
    return {bytes(byte_of[letter] for letter in token): vocab[token] for token in tokens}


def merge_all(token, order):
    """Slow, plain byte-pair encoding: repeatedly merge the pair that comes first in `order`.

    Returns the remaining parts and the rank of the last merge (-1 if there was none).
    """
    parts, rank = list(token), -1
    while len(parts) > 1:
        ranks = [order.get(pair, len(order)) for pair in pairwise(parts)]
        if min(ranks) == len(order):
            break
        rank = min(ranks)
        i = ranks.index(rank)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts, rank


def bytes_of_characters():
    """Return {character: byte}: printable bytes map to themselves, the others start at U+0100."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


# Without a chat format, items are shown as plain-text examples.
PLAIN = {"start": "", "item": "{query}\n{response}\n\n", "query": "{query}\n", "end": ""}
# We recognise a chat model by its end token. Persona and query together form the user's message.
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
START = "<|begin_of_text|>" + HEADER.format("user")
CHATS = {
    "<|im_end|>": ("<|im_start|>user\n", "{query}<|im_end|>\n<|im_start|>assistant\n"),
    "<|eot_id|>": (START, "{query}<|eot_id|>" + HEADER.format("assistant")),
}


def make_template(special, end_ids, start):
    """Make a model's template: its chat format, or plain text. start: what precedes every text."""
    names = {i: name for name, i in special.items()}
    ends = [names[i] for i in end_ids if i in names]
    end = next((name for name in CHATS if name in ends), ends[0] if ends else "")
    chat_start, query = CHATS.get(end, ("", PLAIN["query"]))
    if end in CHATS and "<think>" in special:  # an empty thought makes Qwen3 answer at once
        query += "<think>\n\n</think>\n\n"
    return PLAIN | {"start": start + chat_start.removeprefix(start), "query": query, "end": end}


def read_template(path):
    """Read a template: JSON with any of "start", "item", "query" and "end". Raises UserError."""
    with one_line(path, "a template"):
        template = read_json(path)
        for part, text in template.items():
            slot = {"item": "{response}", "query": "{query}"}.get(part, "")
            fits = part in TEMPLATE and isinstance(text, str) and slot in text
            check(fits, f"{short_repr(part)} is not part of a template, or has no {slot}")
    return template
