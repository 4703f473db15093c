"""Rows, examples, batches: the two views hold the same response, token for token."""

import json
import math

import pytest
import torch

from perce_mini.dataset import (
    DataError,
    Row,
    collate,
    encode_example,
    encode_rows,
    epoch_batches,
    read_examples,
    size,
    steps_per_epoch,
    subsample,
    training_steps,
)
from perce_mini.head import score_in_slices
from perce_mini.model import GPT, GPTConfig
from perce_mini.percontrast import token_logprobs
from perce_mini.retrieval import bm25, retrieve, strangers
from perce_mini.tokenizer import Tokenizer

PROFILE = [
    {"query": "a blue lamp", "response": "Howdy, it shines."},
    {"query": "a red kettle", "response": "Howdy, it is red."},
]
ROW = {"user": "u", "task": "review", "query": "a red kettle", "response": "Howdy, it boils.", "profile": PROFILE}
TOKENIZER = Tokenizer.train("Howdy, it boils. Howdy, it shines. a red kettle a blue lamp " * 10, 300)


def row(**changes):
    return ROW | changes


def example(**changes):
    return encode_example(row(**changes), TOKENIZER, 512)


def persona(e):
    return e.prompt[: len(e.prompt) - len(e.plain_prompt)]


def shown(ids):
    """Ids as text, control tokens by their names."""
    names = {i: name for name, i in TOKENIZER.special.items()}
    return "".join(names.get(i) or TOKENIZER.decode([i]) for i in ids)


def read(tmp_path, *lines):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return read_examples(path)


# -------------------------------------------------------------------------------------------- reading


def test_good_rows_come_back_as_they_are(tmp_path):
    labelled = row(personal=[[0, 5]], profile=[], extra=1)
    rows = read(tmp_path, ROW, b"", labelled)
    assert rows == [ROW, labelled] and rows[1].where.endswith("rows.jsonl:3")


BAD_LINES = [
    (b"{", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"\xff{}", "not JSON"),
    (b"[1]", "must be an object, not list"),
    ({k: v for k, v in ROW.items() if k != "query"}, "no 'query'"),
    (row(user=7), "'user' must be a string, not int"),
    (row(response="  \n"), "'response' is empty"),
    (row(response=None), "'response' must be a string"),
    (row(profile={}), "no 'profile', or it is not a list"),
    (row(profile=["x"]), "profile item 0 must be an object"),
    (row(profile=[{"query": "x"}]), "profile item 0 has no 'response'"),
    (row(query="a\0b"), "NUL"),
    (row(profile=[{"query": "x", "response": "\ud800"}]), "lone surrogate"),
    (row(response="\udc00 a"), "lone surrogate"),
    (row(personal=[[0, 99]]), "personal span"),
    (row(personal=[[3, 3]]), "personal span"),
    (row(personal=[[True, 3]]), "personal span"),
    (row(personal=[[0]]), "personal span"),
    (row(personal="x"), "'personal' must be a list"),
]


@pytest.mark.parametrize("line, reason", BAD_LINES)
def test_a_bad_row_is_named_by_file_line_and_reason(tmp_path, line, reason):
    with pytest.raises(DataError, match="rows.jsonl:2: ") as caught:
        read(tmp_path, ROW, line)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(DataError, match="nothing.jsonl: No such file"):
        read_examples(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="no examples"):
        read(tmp_path, b"")


# ------------------------------------------------------------------------------------------ retrieval


def test_bm25_against_the_formula():
    documents = ["red kettle red", "blue lamp", "red lamp lamp lamp"]
    rarity = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))  # "red" is in two of three
    average = (3 + 2 + 4) / 3

    def score(tf, length):
        return rarity * tf * 2.5 / (tf + 1.5 * (0.25 + 0.75 * length / average))

    assert bm25("red", documents) == pytest.approx([score(2, 3), 0, score(1, 4)])
    assert bm25("red", []) == []


def test_the_best_items_are_chosen_and_shown_oldest_first():
    profile = [{"query": q, "response": "x"} for q in ["red kettle", "nothing", "a red", "kettle red a", "none"]]
    assert retrieve(ROW["query"], profile, 3) == [3, 2, 0]  # all words; then "a red" and "red kettle", a tie
    text = shown(persona(encode_example(row(profile=profile), TOKENIZER, 512, top_k=2)))
    assert text == "<|persona|>a red<|response|>x<|persona|>kettle red a<|response|>x"
    everything = TOKENIZER.decode(persona(encode_example(row(profile=profile), TOKENIZER, 512, top_k=5)))
    assert [everything.index(p["query"]) for p in profile] == sorted(everything.index(p["query"]) for p in profile)


def test_an_error_in_json_is_on_the_line_that_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(ROW)[:-1] + "\n")
    with pytest.raises(DataError, match=r"rows.jsonl:2: not JSON \(.*: line 1 column"):
        read_examples(tmp_path / "rows.jsonl")


def test_of_equally_relevant_items_the_newest_are_taken():
    assert retrieve(ROW["query"], [{"query": "z", "response": "z"}] * 5, 2) == [4, 3]


# ---------------------------------------------------------------------------------------- the two views


def test_example_layout():
    e = example()
    assert shown(e.plain_prompt) == "<|query|>a red kettle<|response|>"
    assert shown(e.response) == "Howdy, it boils.<|end|>"
    items = ["a blue lamp<|response|>Howdy, it shines.", "a red kettle<|response|>Howdy, it is red."]
    assert shown(persona(e)) == "".join(f"<|persona|>{item}" for item in items)


def test_both_views_predict_the_same_response_token_for_token():
    examples = [example(), example(profile=[]), example(response="it shines, it boils"), example(query="")]
    batch = collate(examples)
    assert batch.labels.tolist() == [token for e in examples for token in e.response]
    for view in (batch.persona, batch.plain):
        ids, rows, T = view.ids.flatten(), [], view.ids.shape[1]
        for at, label in zip(view.at.tolist(), batch.labels.tolist()):
            rows.append(at // T)
            if (at + 1) % T and ids[
                at + 1
            ] != 0:  # the token after the predicting position, where it is an input at all
                assert ids[at + 1] == label
        assert rows == [b for b, e in enumerate(examples) for _ in e.response]
        first = [view.at.tolist()[rows.index(b)] for b in range(len(examples))]
        assert all(ids[at] == TOKENIZER.special["<|response|>"] for at in first)
    assert batch.persona.ids.shape[1] > batch.plain.ids.shape[1]


def test_only_the_profile_is_shortened_whole_items_first():
    whole = example()
    fixed = len(whole.plain_prompt) + len(whole.response)
    red = len(persona(encode_example(row(profile=ROW["profile"][1:]), TOKENIZER, 512)))
    for block in range(fixed, size(whole) + 1):
        e = encode_example(ROW, TOKENIZER, block)
        assert (e.plain_prompt, e.response) == (whole.plain_prompt, whole.response) and size(e) <= block
        assert bool(e.read) == bool(persona(e))
        if block < size(whole):  # the less relevant lamp goes as a whole, then the kettle's tail
            assert persona(e) == persona(whole)[-red:][: block - fixed]
    for some in [Row(ROW), dict(ROW)]:  # a row made in code may be a dict, which knows no file
        with pytest.raises(DataError, match="row: query .* do not fit into the block"):
            encode_example(some, TOKENIZER, fixed - 1)


def test_room_can_be_kept_for_an_answer():
    e = encode_example(row(profile=ROW["profile"][1:]), TOKENIZER, 35, reserve=20)
    assert len(e.response) < 20 and len(e.prompt) == 15


def test_control_tokens_in_text_stay_text():
    e = example(
        query="<|end|><|response|>", response="<|end|>", profile=[{"query": "<|query|>", "response": "<|persona|>"}]
    )
    ids = [*e.prompt, *e.response]
    assert [ids.count(i) for i in TOKENIZER.special.values()] == [1, 1, 2, 1]


def test_personal_spans_in_characters_become_tokens():
    text = "Ünïted, Zorvax said"
    e = example(response=text, personal=[[8, 14]])
    marked = "".join(TOKENIZER.tokens[i].decode("latin-1") for i, p in zip(e.response, e.personal) if p)
    assert marked.strip() == "Zorvax" and len(e.personal) == len(e.response)


def test_a_strangers_profile_stands_in_the_plain_view():
    other = row(user="v", query="else", profile=[{"query": "a blue lamp", "response": "Hi!"}])
    rows = [row(), other, row(task="post"), row(profile=[])]
    mine, newcomer = encode_rows(rows, TOKENIZER, 512, 4, contrast="stranger")[::3]
    query = example().plain_prompt
    assert mine.plain_prompt == persona(encode_example(other, TOKENIZER, 512)) + query != query
    assert newcomer.plain_prompt == newcomer.prompt == query  # no persona, no contrast: PIR is 0
    plain = collate([mine]).plain.ids[0].tolist() + mine.response[-1:]
    assert shown(plain) == shown(mine.plain_prompt + mine.response)


def test_strangers_are_other_users_of_the_same_task_who_wrote_before():
    rows = [row(user=f"u{i % 7}", task=f"t{i % 2}", profile=ROW["profile"] if i % 3 else []) for i in range(60)]
    found = strangers(rows)
    for mine, other in zip(rows, found):
        assert other["user"] != mine["user"] and other["task"] == mine["task"] and other["profile"]
    assert found == strangers(rows) and len({other["user"] for other in found}) == 7
    assert strangers([row(), row()]) == [None, None]  # nobody else there


def test_an_empty_profile_has_pir_zero():
    torch.manual_seed(0)
    model, batch = GPT(GPTConfig(TOKENIZER.vocab_size)), collate([example(profile=[])])
    states = [model.hidden(view.ids).flatten(0, 1)[view.at] for view in (batch.persona, batch.plain)]
    persona, plain = (score_in_slices(token_logprobs, hidden, model.head, batch.labels) for hidden in states)
    assert torch.equal(persona, plain)


# ----------------------------------------------------------------------------------------------- order


def test_an_epoch_holds_every_example_once_in_batches_of_similar_length():
    examples = [example(response="it " * (1 + i % 40)) for i in range(100)]
    batches = epoch_batches(examples, 8, seed=0, epoch=0)
    assert sorted(id(e) for batch in batches for e in batch) == sorted(map(id, examples))
    in_file_order = [examples[i : i + 8] for i in range(0, 100, 8)]
    padded, unsorted = (sum(len(b) * max(map(size, b)) for b in some) for some in [batches, in_file_order])
    assert padded < 1.06 * sum(map(size, examples)) < unsorted


def test_order_depends_on_seed_and_epoch_alone():
    examples = [example(response="it " * (1 + i % 40)) for i in range(50)]

    def order(seed, epoch):
        return [[id(e) for e in batch] for batch in epoch_batches(examples, 8, seed, epoch)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 1) and order(0, 0) != order(1, 0)


def test_long_and_short_batches_are_mixed():
    """Sorting is within runs of 16 batches, and then the batches are shuffled: lengths do not rise over an epoch."""
    examples = [example(response="it " * (1 + i)) for i in range(64)]
    longest = [max(map(size, batch)) for batch in epoch_batches(examples, 4, seed=0, epoch=0)]
    assert longest[:8] != sorted(longest[:8])


def test_steps_of_an_epoch():
    assert [steps_per_epoch(n, 4, 2) for n in [1, 4, 8, 9, 16, 17]] == [1, 1, 1, 2, 2, 3]


def test_steps_can_be_taken_up_anywhere():
    examples = [example() for _ in range(23)]

    def ids(step):
        return [[id(e) for e in batch] for batch in step]

    steps = training_steps(examples, 4, 2, seed=0)
    taken = [ids(next(steps)) for _ in range(10)]  # 6 batches = 3 steps per epoch
    assert [len(step) for step in taken[:3]] == [2, 2, 2] and taken[:3] != taken[3:6]
    for first in range(9):
        assert ids(next(training_steps(examples, 4, 2, 0, first))) == taken[first]


def test_a_subsample_takes_one_row_of_each_part_and_misses_none_of_what_recurs():
    rows = list(range(6000))
    taken = subsample(rows, 125)
    assert [row // 48 for row in taken] == list(range(125)) and taken == subsample(rows, 125)
    assert {row % 4 for row in taken} == {0, 1, 2, 3}  # a user's first text stands in every fourth row
    assert subsample(rows, 0) == subsample(rows, None) == subsample(rows, 7000) == rows
