"""PIR of any text matches two forward passes, and profiles are read from text files."""

import pytest
import torch

from perce_mini import pir
from perce_mini.dataset import collate, encode_example
from perce_mini.percontrast import token_logprobs
from perce_mini.runtime.errors import UserError
from perce_mini.sample import read_profile
from tests.conftest import ROOT, call
from tests.tiny import TOKENIZER, make_model, make_row

TEXTS = ["Howdy, it shines.", "It boils."]


def test_pir_equals_two_forward_passes():
    model, text = make_model(n_layer=2), "Howdy, it boils!"
    pairs = pir.score_pir(model, TOKENIZER, TEXTS, "a red kettle", text)
    assert "".join(token for token, _ in pairs) == text
    items = [{"query": "", "response": text} for text in TEXTS]
    row = make_row(query="a red kettle", response=text, profile=items)
    batch = collate([encode_example(row, TOKENIZER, model.config.block_size)])
    logp = []
    for view in [batch.persona, batch.plain]:
        logits = model(view.ids).flatten(0, 1)[view.target_positions]
        logp.append(token_logprobs(logits, batch.labels))
    by_hand = (logp[0] - logp[1])[:-1]  # without the end token
    assert torch.tensor([x for _, x in pairs]).tolist() == pytest.approx(by_hand.tolist(), abs=1e-4)
    assert all(x == 0 for _, x in pir.score_pir(model, TOKENIZER, [], "a red kettle", text))


def test_a_profile_is_a_text_file_or_a_folder(tmp_path):
    (tmp_path / "a.txt").write_text("Howdy,\nit shines.\n \nIt boils.\n")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/1.txt").write_text(TEXTS[0])
    (tmp_path / "texts/2.md").write_text(TEXTS[1])
    for name in ["a.txt", "texts"]:
        assert [item["response"] for item in read_profile(tmp_path / name)] == TEXTS, name
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty contains no text"):
        read_profile(tmp_path / "empty")


def test_the_command_marks_a_text_and_writes_a_page(trained, tmp_path):
    (tmp_path / "mine.txt").write_text("\n\n".join(TEXTS))
    (tmp_path / "new.txt").write_text("Howdy, it boils!")
    profile, text = ["--profile", tmp_path / "mine.txt"], ["--text", tmp_path / "new.txt"]
    html = ["--html", tmp_path / "pir.html", "--device", "cpu"]
    result = call(pir.main, trained / "out/perce", *profile, *text, *html)
    assert result.status == 0, result.err
    assert "made-up" not in result.out  # the base model was not trained on the default data
    assert "Howdy, it boils!" in result.out.replace("[", "").replace("]", "")
    assert "PIR" in (tmp_path / "pir.html").read_text()
    shipped = call(pir.main, ROOT / "data/base", *profile, *text, *html, "--top-k", 1)
    said = " ".join(shipped.out.split())
    assert "made-up" in said and "1 earlier text in" in said
    before = (tmp_path / "mine.txt").read_text()
    html[1] = tmp_path / "mine.txt"  # an input is never overwritten
    assert call(pir.main, trained / "out/perce", *profile, *text, *html).is_refusal("mine.txt")
    assert (tmp_path / "mine.txt").read_text() == before
    (tmp_path / "new.txt").write_text(" \n")
    assert call(pir.main, trained / "out/perce", *profile, *text).is_refusal("new.txt")
