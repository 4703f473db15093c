"""Byte-level BPE: trained here, run by tiktoken.

Training starts from the 256 bytes and again and again merges the pair of neighbouring tokens seen most often. Ties: of
the pairs seen equally often, the one whose (left, right) byte strings sort first. So the same text gives the same
vocabulary on every machine.

A text is first cut into pieces by PATTERN and no token crosses a piece. All classes in it are spelled out in ASCII
(everything beyond ASCII counts as a letter), so Python's `re`, which trains, and tiktoken's Rust engine, which encodes,
cut alike, whatever Unicode tables they carry.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from itertools import accumulate, pairwise

import tiktoken

PATTERN = (
    r"'(?:s|t|d|m|ll|re|ve)|[ ]?[A-Za-z\x80-\U0010FFFF]+|[ ]?[0-9]{1,3}"
    r"|[ ]?[^ \t\r\nA-Za-z0-9\x80-\U0010FFFF]+|[ \t\r\n]+"
)

# Control tokens. Their ids come after the vocabulary's, and no text is ever encoded as one of them:
# `Tokenizer.encode` reads their spelling as ordinary characters.
SPECIAL = ["<|persona|>", "<|query|>", "<|response|>", "<|end|>"]

# How a prompt is put together: a start, the persona (items of the user's profile), the query; and the token that ends a
# response. Control tokens come from here alone; users' texts take the places of {query} and {response}.
LAYOUT = {
    "start": "",
    "item": "<|persona|>{query}<|response|>{response}",
    "query": "<|query|>{query}<|response|>",
    "end": "<|end|>",
}


def merge_pair(word, pair, new):
    """Replace every occurrence of the pair in a word (list of ids) by `new`, from left to right."""
    left, right = pair
    merged = []
    for token in word:
        if token == right and merged and merged[-1] == left:
            merged[-1] = new
        else:
            merged.append(token)
    return merged


def train_bpe(text, n_tokens):
    """Learn a vocabulary of `n_tokens` byte strings (at least the 256 bytes) from `text`.

    Returns a list of bytes, rank by rank. It is shorter when the text has no more pairs to merge.
    """
    pieces = Counter(re.findall(PATTERN, text))
    words, times = [list(piece.encode()) for piece in pieces], list(pieces.values())
    tokens = [bytes([i]) for i in range(256)]
    rank = {token: i for i, token in enumerate(tokens)}
    count, where = Counter(), defaultdict(set)  # pair -> how often it occurs; the words that hold it, or once held it

    def add(w, sign):
        """Count word number w in (+1) or out (-1)."""
        for pair in pairwise(words[w]):
            count[pair] += sign * times[w]
            where[pair].add(w)

    for w in range(len(words)):
        add(w, +1)
    while len(tokens) < n_tokens and (most := max(count.values(), default=0)):
        pair = min((pair for pair, n in count.items() if n == most), key=lambda pair: [tokens[i] for i in pair])
        merged = tokens[pair[0]] + tokens[pair[1]]
        new = rank.setdefault(merged, len(tokens))
        if new == len(tokens):  # else another pair made this string before (ab + c, a + bc): one token
            tokens.append(merged)
        for w in where.pop(pair):
            add(w, -1)
            words[w] = merge_pair(words[w], pair, new)
            add(w, +1)
    return tokens


class Tokenizer:
    def __init__(self, tokens, pattern=PATTERN, ids=None, special=None, layout=LAYOUT, normal_form=None):
        """tokens: byte strings, rank by rank, with no repeats; the control tokens follow them.

        A pretrained model's own tokenizer (hf/tokenizer.py) also says ids: the id of every rank, or None; special: its
        control tokens {name: id}; normal_form: the Unicode form ("NFC") that texts take first.
        """
        self.given = dict(pattern=pattern, ids=ids, special=special, layout=layout, normal_form=normal_form)
        self.tokens, self.normal_form = tokens, normal_form
        self.ids = ids or list(range(len(tokens)))
        self.special = {name: len(tokens) + i for i, name in enumerate(SPECIAL)} if special is None else special
        self.bytes_of = {i: token for i, token in zip(self.ids, tokens) if i is not None}
        ranks = {token: rank for rank, token in enumerate(tokens)}
        self.encoding = tiktoken.Encoding("perce-mini", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self.vocab_size = max([*self.bytes_of, *self.special.values()]) + 1
        marks = "|".join(map(re.escape, ["{query}", "{response}", *sorted(self.special, key=len, reverse=True)]))
        self.pieces = {part: re.split(f"({marks})", text) for part, text in layout.items()}
        self.end = self.special.get(layout["end"])

    @classmethod
    def train(cls, text, vocab_size):
        """Learn from `text`; `vocab_size` counts the four control tokens."""
        return cls(train_bpe(text, vocab_size - len(SPECIAL)))

    def state(self):
        """All there is to know, in plain values: Tokenizer(**state) is the same again."""
        return {"tokens": self.tokens, **self.given}

    def encode(self, text):
        """text -> ids. Never a control token, whatever the text spells."""
        if self.normal_form:
            text = unicodedata.normalize(self.normal_form, text)
        ids = [self.ids[rank] for rank in self.encoding.encode_ordinary(text)]
        return [i for i in ids if i is not None]  # some vocabularies lack a byte; it is dropped, as `tokenizers` does

    def decode(self, ids):
        """ids -> text; control tokens are left out, bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self.bytes_of.get(i, b"") for i in ids).decode("utf-8", "replace")

    def spans(self, ids):
        """Where each token's bytes lie in their text: [(start, end), ...) in UTF-8 bytes."""
        return list(pairwise(accumulate((len(self.bytes_of.get(i, b"")) for i in ids), initial=0)))

    def lay_out(self, part, query="", response=""):
        """The ids of a part of the layout ("start", "item", "query"), with these texts in their places."""
        ids = []
        for piece in self.pieces[part]:
            if piece in self.special:
                ids.append(self.special[piece])
            else:
                ids += self.encode({"{query}": query, "{response}": response}.get(piece, piece))
        return ids
