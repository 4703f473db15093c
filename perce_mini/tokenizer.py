"""Byte-level BPE: trained here, run by tiktoken.

Training starts from the 256 bytes and again and again joins the pair of neighbouring tokens seen most
often. TIES: of the pairs seen equally often, the one whose (left, right) byte strings sort first. So the
same text gives the same vocabulary on every machine.

A text is first cut into pieces by PATTERN and no token crosses a piece. All classes in it are spelled
out in ASCII (everything beyond ASCII counts as a letter), so Python's `re`, which trains, and tiktoken's
Rust engine, which encodes, cut alike, whatever Unicode tables they carry.
"""

import heapq
import json
import re
import unicodedata
from collections import Counter, defaultdict

import tiktoken

PATTERN = (r"'(?:s|t|d|m|ll|re|ve)|[ ]?[A-Za-z\x80-\U0010FFFF]+|[ ]?[0-9]{1,3}"
           r"|[ ]?[^ \t\r\nA-Za-z0-9\x80-\U0010FFFF]+|[ \t\r\n]+")

# Control tokens. Their ids come after the vocabulary's, and no text is ever encoded as one of them:
# `Tokenizer.encode` reads their spelling as ordinary characters.
SPECIAL = ["<|persona|>", "<|query|>", "<|response|>", "<|end|>"]

# How a prompt is put together: a start, the profile's items (the persona), the query; and the token that ends a
# response. Control tokens come from here alone; users' texts take the places of {query} and {response}.
LAYOUT = {"start": "", "item": "<|persona|>{query}<|response|>{response}", "query": "<|query|>{query}<|response|>",
          "end": "<|end|>"}  # fmt: skip


class TokenizerError(ValueError):
    pass


def train_bpe(text, n_tokens, pattern=PATTERN):
    """Learn a vocabulary of `n_tokens` byte strings (at least the 256 bytes) from `text`.

    Returns a list of bytes, rank by rank. It is shorter when the text has no more pairs to join.
    """
    pieces = Counter(re.findall(pattern, text))
    words = [list(piece.encode()) for piece in pieces]  # token ids of each distinct piece ...
    often = list(pieces.values())  # ... and how many times it occurs
    tokens = [bytes([i]) for i in range(256)]
    rank = {token: i for i, token in enumerate(tokens)}

    count, where = Counter(), defaultdict(set)  # pair -> occurrences; pair -> the words that hold it
    for w, word in enumerate(words):
        for pair in zip(word, word[1:]):
            count[pair] += often[w]
            where[pair].add(w)

    entry = lambda pair: (-count[pair], tokens[pair[0]], tokens[pair[1]], pair)  # heap order: the rule above
    heap = [entry(pair) for pair in count]
    heapq.heapify(heap)
    while heap and len(tokens) < n_tokens:
        top = heapq.heappop(heap)
        pair = top[-1]
        if count[pair] == 0:
            continue
        if -top[0] != count[pair]:  # other merges have touched it since: put it back as it stands now
            heapq.heappush(heap, entry(pair))
            continue
        left, right = pair
        joined = tokens[left] + tokens[right]
        new = rank.setdefault(joined, len(tokens))
        if new == len(tokens):  # else ab + c made before what a + bc makes now: one token, two ways to it
            tokens.append(joined)
        changed = set()

        def recount(pair, n):
            count[pair] += n
            if n > 0:
                where[pair].add(w)
                changed.add(pair)

        for w in where.pop(pair):
            word, n, i = words[w], often[w], 0
            while i + 1 < len(word):
                if word[i] == left and word[i + 1] == right:  # only the neighbours' pairs change
                    if i > 0:
                        recount((word[i - 1], left), -n)
                        recount((word[i - 1], new), n)
                    if i + 2 < len(word):
                        recount((right, word[i + 2]), -n)
                        recount((new, word[i + 2]), n)
                    word[i : i + 2] = [new]
                i += 1
        del count[pair]
        for pair in changed:
            heapq.heappush(heap, entry(pair))
    return tokens


class Tokenizer:
    def __init__(self, tokens, pattern=PATTERN, ids=None, special=None, layout=LAYOUT, normal_form=None):
        """tokens: byte strings, rank by rank, with no repeats; the control tokens follow them.

        A pretrained model's own tokenizer (pretrained.py) also says ids: the id of every rank, or None; special: its
        control tokens {name: id}; normal_form: the Unicode form ("NFC") that texts take first.
        """
        self.settings = dict(pattern=pattern, ids=ids, special=special, layout=layout, normal_form=normal_form)
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

    @classmethod
    def named(cls, name):
        """One of tiktoken's vocabularies ("gpt2", "cl100k_base", ...). Raises TokenizerError."""
        try:
            encoding = tiktoken.get_encoding(name)
        except ValueError:
            known = ", ".join(tiktoken.list_encoding_names())
            raise TokenizerError(f"tokenizer {name!r} is not known; tiktoken has {known},"
                                 " and 'bpe' trains one here") from None
        except OSError as error:  # requests' errors are OSErrors
            raise TokenizerError(f"tokenizer {name!r} has to be downloaded and cannot be reached"
                                 f" ({type(error).__name__}); --tokenizer bpe needs no network") from None
        ranks = encoding._mergeable_ranks
        return cls(sorted(ranks, key=ranks.get), encoding._pat_str)

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
        ends = [0]
        for i in ids:
            ends.append(ends[-1] + len(self.bytes_of.get(i, b"")))
        return list(zip(ends, ends[1:]))

    def lay_out(self, part, query="", response=""):
        """The ids of a part of the layout ("start", "item", "query"), with these texts in their places."""
        ids = []
        for piece in self.pieces[part]:
            if piece in self.special:
                ids.append(self.special[piece])
            else:
                ids += self.encode({"{query}": query, "{response}": response}.get(piece, piece))
        return ids

    def save(self, path):
        """Write all there is to know as JSON; the tokens in rank order, byte by byte as Latin-1 characters."""
        state = self.settings | {"tokens": [token.decode("latin-1") for token in self.tokens]}
        with open(path, "w", encoding="utf-8") as f:
            json.dump(state, f, ensure_ascii=True, indent=0)

    @classmethod
    def load(cls, path):
        """Read what `save` wrote. Raises TokenizerError."""
        try:
            with open(path, encoding="utf-8") as f:
                state = json.load(f)
            return cls(**state | {"tokens": [token.encode("latin-1") for token in state["tokens"]]})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TokenizerError(f"{path}: not a tokenizer file ({type(error).__name__}: {error})") from None
