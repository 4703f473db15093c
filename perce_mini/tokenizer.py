"""Byte-level BPE: trained in Python, applied by tiktoken.

Training starts from the 256 bytes. It repeatedly merges the pair of adjacent tokens that occurs
most often:

    aaab aaac      most frequent pair: (a, a)     ->  X = aa
    Xab  Xac       most frequent pair: (X, a)     ->  Y = Xa
    Yb   Yc        ...

If several pairs occur equally often, it merges the one whose (left, right) byte strings sort first.
So the same text gives the same vocabulary on every machine.

A text is first split into pieces by PATTERN, and no token spans two pieces. All character classes
in PATTERN are spelled out in ASCII (everything beyond ASCII counts as a letter). So Python's `re`,
used for training, and tiktoken's Rust engine, used for encoding, split a text the same way,
whatever version of Unicode they support.
"""

import re
from collections import Counter, defaultdict
from itertools import accumulate, pairwise

import tiktoken

PATTERN = (
    r"'(?:s|t|d|m|ll|re|ve)|[ ]?[A-Za-z\x80-\U0010FFFF]+|[ ]?[0-9]{1,3}"
    r"|[ ]?[^ \t\r\nA-Za-z0-9\x80-\U0010FFFF]+|[ \t\r\n]+"
)

# Control tokens. Their ids follow those of the vocabulary. No text is ever encoded as one of them:
# `encode` reads "<|end|>" as seven ordinary characters.
SPECIAL = ["<|persona|>", "<|query|>", "<|response|>", "<|end|>"]

# A prompt consists of the start, the items of the persona, and the query. "end" is the token that
# ends a response. Only the template contains control tokens; users' texts replace {query} and
# {response}.
TEMPLATE = {
    "start": "",
    "item": "<|persona|>{query}<|response|>{response}",
    "query": "<|query|>{query}<|response|>",
    "end": "<|end|>",
}


def merge_pair(ids, pair, new_id):
    """Replace every occurrence of the pair: [1, 2, 3, 1, 2], (1, 2), 4 -> [4, 3, 4]."""
    merged = []
    for i in ids:
        if merged and (merged[-1], i) == pair:
            merged[-1] = new_id
        else:
            merged.append(i)
    return merged


def train_bpe(text, n_tokens):
    """Learn a vocabulary of `n_tokens` byte strings (at least the 256 bytes) from `text`.

    Returns the byte strings in the order of their ids; fewer if nothing is left to merge.
    """
    counts = Counter(re.findall(PATTERN, text))  # process equal pieces only once
    words = [list(piece.encode()) for piece in counts]
    times = list(counts.values())
    tokens = [bytes([i]) for i in range(256)]
    pair_counts = Counter()
    words_with = defaultdict(set)  # pair -> the words that contain it, or used to

    def count(w, sign):
        """Add (+1) or remove (-1) the pairs of word number w."""
        for pair in pairwise(words[w]):
            pair_counts[pair] += sign * times[w]
            words_with[pair].add(w)

    def spelled(pair):
        return tokens[pair[0]], tokens[pair[1]]

    for w in range(len(words)):
        count(w, +1)
    while len(tokens) < n_tokens:
        most = max(pair_counts.values(), default=0)
        if most == 0:
            break
        ties = [pair for pair, n in pair_counts.items() if n == most]
        best = min(ties, key=spelled)
        new_id = len(tokens)
        tokens.append(b"".join(spelled(best)))
        for w in words_with.pop(best):
            count(w, -1)
            words[w] = merge_pair(words[w], best, new_id)
            count(w, +1)
    return tokens


class Tokenizer:
    """Ids of ordinary text are indices into `tokens`. The ids of the control tokens follow them."""

    pretrained = False  # hf/tokenizer.py extends this class for pretrained models

    def __init__(self, tokens):
        self.tokens, self.template = tokens, TEMPLATE
        ranks = {token: i for i, token in enumerate(tokens)}
        self.encoding = tiktoken.Encoding(
            "perce-mini", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={}
        )
        self.bytes_of = dict(enumerate(tokens))
        self.special = {name: len(tokens) + i for i, name in enumerate(SPECIAL)}
        self.prepare_template()

    def prepare_template(self):
        """Split every part of the template at control tokens, {query} and {response}."""
        names = ["{query}", "{response}", *sorted(self.special, key=len, reverse=True)]
        split = re.compile(f"({'|'.join(map(re.escape, names))})").split
        self.parts = {part: split(text) for part, text in self.template.items()}
        self.vocab_size = max([*self.bytes_of, *self.special.values()]) + 1
        self.end = self.special.get(self.template["end"])

    @classmethod
    def train(cls, text, vocab_size):
        """Train on `text`; `vocab_size` includes the four control tokens."""
        return cls(train_bpe(text, vocab_size - len(SPECIAL)))

    def state(self):
        """Return what a checkpoint stores; Tokenizer(**state) restores the tokenizer."""
        return {"tokens": self.tokens}

    def normalize(self, text):
        """Return the text that `encode` uses; some pretrained models need a Unicode normal form."""
        return text

    def encode(self, text):
        """Convert text to ids. Never produces a control token, even if the text spells one."""
        return self.encoding.encode_ordinary(text)

    def decode(self, ids):
        """Convert ids to text. Omits control tokens; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self.bytes_of.get(i, b"") for i in ids).decode("utf-8", "replace")

    def spans(self, text):
        """Locate each token of `encode(text)`: [(start, end), ...] in UTF-8 bytes of
        `normalize(text)`."""
        lengths = [len(self.bytes_of[i]) for i in self.encode(text)]
        return list(pairwise(accumulate(lengths, initial=0)))

    def encode_template(self, part, query="", response=""):
        """Fill a part of the template ("start", "item", "query") with the texts, and encode it."""
        texts = {"{query}": query, "{response}": response}
        ids = []
        for piece in self.parts[part]:
            if piece in self.special:
                ids.append(self.special[piece])
            else:
                ids += self.encode(texts.get(piece, piece))
        return ids
