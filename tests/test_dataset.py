"""Rows, prompts and batches: both views contain the same response, token for token."""

import json
import math
import random

import pytest

from perce_mini import dataset
from perce_mini.dataset import encode_example, encode_rows, size
from perce_mini.rows import DataError, held_out_file, read_examples, subsample
from perce_mini.runtime.errors import UserError
from perce_mini.tokenizer import Tokenizer
from tests.tiny import KETTLE, LAMP, TOKENIZER, make_example, make_row

ROW = dict(make_row())


def persona(e):
    return e.prompt[: len(e.prompt) - len(e.plain_prompt)]


def spell(ids):
    """Decode ids to text, showing control tokens by name."""
    names = {i: name for name, i in TOKENIZER.special.items()}
    return "".join(names.get(i) or TOKENIZER.decode([i]) for i in ids)


def read(folder, *lines):
    lines = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines]
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    return read_examples(folder / "rows.jsonl")


def test_good_rows_come_back_as_they_are(tmp_path):
    labelled = ROW | {"personal": [[0, 5]], "profile": [], "extra": 1, "query": ""}
    rows = read(tmp_path, ROW, b" \r", labelled)
    assert rows == [ROW, labelled] and rows[1].where.endswith("rows.jsonl:3")


BAD_VALUES = {
    "query": [None, "a\0b", "\ud800"],
    "user": [7],
    "response": ["  \n"],
    "task": ["all"],
    "profile": [{}, ["x"], [LAMP, {"query": "x"}], [{"query": "x", "response": "\udc00"}]],
    "personal": ["x", [[0, 99]], [[-1, 3]], [[3, 3]], [[True, 3]], [[0, 10**4000]], [[0]]],
}
BAD_LINES = [(line, "JSON") for line in [b'{"user": "u",', b"[" * 100_000, b"\xff{}"]]
BAD_LINES += [(b"[1]", "object"), (b"7", "object")]
BAD_LINES += [(ROW | {key: value}, key) for key in BAD_VALUES for value in BAD_VALUES[key]]


@pytest.mark.parametrize("line, reason", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_row_is_named_by_file_line_and_reason(tmp_path, line, reason):
    with pytest.raises(DataError, match=f"rows.jsonl:2: .*{reason}") as caught:
        read(tmp_path, ROW, line)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_files_that_are_missing_or_empty_are_named(tmp_path):
    with pytest.raises(UserError, match="nothing.jsonl: No such file"):
        read_examples(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="rows.jsonl.*no examples"):
        read(tmp_path, b"")
    with pytest.raises(DataError, match="test.jsonl"):
        held_out_file(tmp_path)
    for name in ["val.jsonl", "test.jsonl"]:  # test.jsonl is preferred
        (tmp_path / name).touch()
        assert held_out_file(tmp_path) == tmp_path / name
    assert held_out_file(tmp_path / "val.jsonl") == tmp_path / "val.jsonl"


def test_a_subsample_takes_one_row_of_each_part():
    rows = list(range(6000))
    chosen = subsample(rows, 125)
    assert chosen == subsample(rows, 125)
    assert [row // 48 for row in chosen] == list(range(125))
    assert {row % 4 for row in chosen} == {0, 1, 2, 3}  # misses nothing that repeats every 4 rows
    assert [subsample(rows, n) for n in [0, None, 7000]] == [rows] * 3


def test_bm25_against_the_formula():
    documents = ["red kettle red", "blue lamp", "red lamp lamp lamp"]
    rarity = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))  # two of three documents contain "red"
    average = (3 + 2 + 4) / 3

    def score(tf, length):
        return rarity * tf * 2.5 / (tf + 1.5 * (0.25 + 0.75 * length / average))

    assert dataset.bm25("red", documents) == pytest.approx([score(2, 3), 0, score(1, 4)])
    assert dataset.bm25("red", []) == [] and dataset.bm25("red", ["", ""]) == [0, 0]


def test_the_best_items_stand_in_the_prompt_oldest_first():
    queries = ["red kettle", "nothing", "a red", "kettle red a", "none"]
    profile = [{"query": query, "response": "x"} for query in queries]
    # "a red" and "red kettle" are equally relevant, and "a red" is newer
    assert dataset.retrieve("a red kettle", profile, 3) == [3, 2, 0]
    e = make_example(profile=profile, top_k=2)
    assert spell(persona(e)) == "<|persona|>a red<|response|>x<|persona|>kettle red a<|response|>x"
    assert spell(e.plain_prompt) == "<|query|>a red kettle<|response|>"
    assert spell(e.response) == "Howdy, it boils.<|end|>" and e.profile_indices == [2, 3]
    assert make_example(profile=profile, top_k=5).profile_indices == [0, 1, 2, 3, 4]
    in_answers = [{"query": "x", "response": query} for query in ["no", "red kettle", "no"]]
    # retrieval also reads responses
    assert dataset.retrieve("a red kettle", in_answers, 2) == [1, 2]


def test_an_item_that_equals_the_response_never_reaches_the_prompt():
    """Neither view may contain the answer, and the other items keep their indices."""
    answer = {"query": "a red kettle", "response": "Howdy,  it boils.\n"}
    rows = [make_row(profile=[answer, LAMP, answer, KETTLE]), make_row(profile=[answer])]
    rows[0].plain_profile = [LAMP, answer]
    first, second = encode_rows(rows, TOKENIZER, 512, 1)
    assert first.profile_indices == [3]
    assert first.prompt == make_example(profile=[KETTLE]).prompt
    assert first.plain_prompt == make_example(profile=[LAMP]).prompt
    assert second.prompt == second.plain_prompt


def test_only_the_profile_is_shortened_whole_items_first():
    whole, kettle = make_example(), persona(make_example(profile=[KETTLE]))
    fixed = len(whole.plain_prompt) + len(whole.response)
    for block_size in range(fixed, size(whole) + 1):
        e = make_example(block_size=block_size)
        assert (e.plain_prompt, e.response) == (whole.plain_prompt, whole.response)
        assert size(e) <= block_size and bool(e.profile_indices) == bool(persona(e))
        if block_size < size(whole):  # drops the less relevant lamp, then the kettle's tail
            assert persona(e) == kettle[: block_size - fixed]
    with pytest.raises(DataError, match=f"the row: .*{fixed - 1}"):
        encode_example(dict(make_row()), TOKENIZER, fixed - 1)  # a row that has no file or line
    e = encode_example(make_row(), TOKENIZER, 45, max_new_tokens=30)
    assert len(e.response) < 30 and len(e.prompt) == 15  # room for a generated response


def test_an_empty_prompt_is_refused(tmp_path):
    """Otherwise the first token would be predicted from another row or from its own end, and its
    log P would be 2 too high. test_scoring checks that no row's scores depend on other rows.
    """
    tokenizer = Tokenizer(TOKENIZER.tokens)
    tokenizer.template = {"start": "", "item": "{response}\n", "query": "{query}", "end": "<|end|>"}
    tokenizer.prepare_template()
    rows = read(tmp_path, ROW, ROW | {"query": ""})
    with pytest.raises(DataError, match="rows.jsonl:2: .*empty"):
        encode_rows(rows, tokenizer, 512, 4)


def test_personal_spans_in_characters_become_tokens():
    text = "Ünïted, Zorvax said"
    e = make_example(response=text, personal=[[8, 14], [0, 1]])
    marked = [TOKENIZER.tokens[i] for i, p in zip(e.response, e.personal) if p]
    assert b"".join(marked).decode() == "ÜZorvax"
    assert len(e.personal) == len(e.response) and not e.personal[-1]


def test_an_epoch_holds_every_example_once_in_batches_of_similar_length():
    lengths = random.Random(0).choices(range(1, 41), k=200)
    examples = [make_example(response="it " * length, profile=[]) for length in lengths]
    batches = dataset.epoch_batches(examples, 8, seed=0, epoch=0)
    assert sorted(id(e) for batch in batches for e in batch) == sorted(map(id, examples))
    assert [len(batch) for batch in batches] == [8] * 25
    longest = [max(map(size, batch)) for batch in batches]
    assert sum(8 * length for length in longest) < 1.1 * sum(map(size, examples))  # padding
    assert sum(a < b for a, b in zip(longest, longest[1:])) < 18  # the batches are shuffled
    random.seed(1)
    assert dataset.epoch_batches(examples, 8, seed=0, epoch=0) == batches
    for seed, epoch in [(0, 1), (1, 0)]:  # batches differ across epochs and seeds
        other = dataset.epoch_batches(examples, 8, seed, epoch)
        assert sum(batch in batches for batch in other) < 5


def test_training_can_start_at_any_step():
    assert [dataset.steps_per_epoch(n, 4, 2) for n in [1, 4, 8, 9, 16, 17]] == [1, 1, 1, 2, 2, 3]
    examples = [make_example() for _ in range(23)]

    def ids(step):
        return [[id(e) for e in batch] for batch in step]

    steps = dataset.training_steps(examples, 4, 2, seed=0)
    first_ten = [ids(next(steps)) for _ in range(10)]  # an epoch has 6 batches, so 3 steps
    assert [len(step) for step in first_ten[:3]] == [2, 2, 2] and first_ten[:3] != first_ten[3:6]
    for first in range(6):
        steps = dataset.training_steps(examples, 4, 2, 0, first)
        assert [ids(next(steps)) for _ in range(5)] == first_ten[first : first + 5]
