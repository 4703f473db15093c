"""A stranger's profile in the plain view."""

from perce_mini.contrast import add_strangers, strangers
from perce_mini.dataset import encode_rows
from tests.tiny import KETTLE, LAMP, TOKENIZER, make_example, make_row


def test_strangers_are_other_users_of_the_same_task_who_have_a_profile():
    rows = []
    for i in range(60):
        rows.append(make_row(user=f"u{i % 7}", task=f"t{i % 2}", profile=[LAMP] if i % 3 else []))
    others = strangers(rows)
    for row, other in zip(rows, others):
        assert other["user"] != row["user"] and other["task"] == row["task"] and other["profile"]
    rare = [make_row(user="many") for _ in range(500)] + [make_row(user="one")]
    # everyone gets a stranger
    assert {other["user"] for other in strangers(rare)} == {"one", "many"}
    assert others == strangers(rows) and len({other["user"] for other in others}) == 7


def test_a_strangers_profile_stands_in_the_plain_view(capsys):
    other = make_row(user="v", query="else", profile=[{"query": "a blue lamp", "response": "Hi!"}])
    rows = [make_row(profile=[KETTLE]), other, make_row(task="post"), make_row(profile=[])]
    add_strangers(rows)
    mine, _, alone, newcomer = encode_rows(rows, TOKENIZER, 512, 4)
    query = make_example(profile=[]).prompt
    assert mine.plain_prompt == make_example(profile=other["profile"]).prompt != query
    assert mine.prompt == make_example(profile=[KETTLE]).prompt
    assert alone.plain_prompt == query != alone.prompt  # nobody else wrote for this task
    assert newcomer.plain_prompt == newcomer.prompt == query  # no persona: PIR must be 0
    assert "1 of 4" in capsys.readouterr().err
