"""The numbers printed by the walkthrough match slow computations."""

import copy
import json
import re

import pytest
import torch

from perce_mini import walkthrough
from perce_mini.runtime import checkpoint
from perce_mini.trainer import Settings, make_optimizer, training_step
from tests.conftest import call
from tests.tiny import KETTLE, TOKENIZER, make_example, make_model, make_row, response_logprobs

EXAMPLE = make_example(personal=[[0, 5]])
PERSONAL = torch.tensor(EXAMPLE.personal)


def trained_model():
    """A model after a few steps, so that P is large enough to show differences in four decimals."""
    model, settings = make_model(n_layer=2), Settings(loss="ce", lr=5e-3, warmup=0.0)
    optimizer = make_optimizer(model, settings)
    for step in range(4):
        training_step(model, optimizer, [[EXAMPLE]], settings, step)
    return model


MODEL = trained_model()


@pytest.fixture(scope="module")
def chapters(tmp_path_factory):
    """The text of the seven chapters. The answer for this user is made up."""
    folder = tmp_path_factory.mktemp("walkthrough")
    checkpoint.save(folder, MODEL, TOKENIZER, Settings(), 0)
    rows = [make_row(user="v", profile=[KETTLE]), make_row(personal=[[0, 5]])]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walkthrough, "show_answers", lambda *_: ["boils it: Howdy a b"])
        args = ["--run", folder, "--data", folder / "rows.jsonl", "--row", 2]
        result = call(walkthrough.main, *args)
    assert result.status == 0 and max(map(len, result.out.splitlines())) <= 80, result.err
    return re.split(r"==+ .* ==+\n", result.out)[1:]


def logprobs(model, prompt):
    response = EXAMPLE.response
    return response_logprobs(model, prompt, response)[range(len(response)), response]


def weights():
    pir = logprobs(MODEL, EXAMPLE.prompt) - logprobs(MODEL, EXAMPLE.plain_prompt)
    return {"CE": torch.ones(len(pir)), "PerCE": pir.detach().clamp(0.8, 5)}


def numbers(text):
    return [float(x) for x in re.findall(r"[-+]?\d+\.\d+", text)]


def test_the_row_and_the_tokens(chapters):
    row, views, table = chapters[:3]
    assert all(text in row for text in ["a red kettle", "Howdy, it boils.", "Howdy, it shines."])
    for prompt in [EXAMPLE.prompt, EXAMPLE.plain_prompt]:
        assert f"{len(prompt)} + {len(EXAMPLE.response)} tokens" in views
    logp, plain = logprobs(MODEL, EXAMPLE.prompt), logprobs(MODEL, EXAMPLE.plain_prompt)
    columns = [logp.exp(), plain.exp(), logp - plain, weights()["PerCE"], -logp]
    assert numbers(table) == pytest.approx(torch.stack(columns, 1).flatten().tolist(), abs=2e-3)
    lines = table.strip().splitlines()[1:]
    assert [line.endswith("personal") for line in lines] == EXAMPLE.personal


def test_losses_and_gradients(chapters):
    logits = response_logprobs(MODEL, EXAMPLE.prompt, EXAMPLE.response).detach().requires_grad_()
    losses, shares = [], [100 * PERSONAL.float().mean().item()]
    for w in weights().values():
        logp = logits.log_softmax(-1)[range(len(w)), EXAMPLE.response]
        losses.append(-(w * logp).mean())
        sizes = torch.autograd.grad(losses[-1], logits)[0].norm(dim=-1)
        shares.append(100 * (sizes[PERSONAL].sum() / sizes.sum()).item())
    printed = [numbers(line)[-1] for line in chapters[3].split("\n\n")[0].strip().splitlines()]
    assert printed == pytest.approx([loss.item() for loss in losses] * 2, abs=1e-4)
    assert numbers(chapters[4]) == pytest.approx(shares, abs=0.06)


def test_one_step_with_each_loss(chapters):
    """The learning rate is 0.05 and the gradient is clipped to norm 1. Group means come last."""
    changes = []
    for w in weights().values():
        model = copy.deepcopy(MODEL)
        loss = -(w * logprobs(model, EXAMPLE.prompt)).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.cat([g.flatten() for g in gradients]).norm().clamp(min=1)
        for p, g in zip(model.parameters(), gradients):
            p.data -= 0.05 * g / norm
        changes.append(logprobs(model, EXAMPLE.prompt) - logprobs(MODEL, EXAMPLE.prompt))
    changes = torch.stack(changes, dim=1)
    others = changes[~PERSONAL].mean(dim=0)  # the last group
    printed = [float(x) for x in re.findall(r"[-+]\d+\.\d+", chapters[5])]
    assert printed[: changes.numel()] == pytest.approx(changes.flatten().tolist(), abs=2e-3)
    assert printed[-2:] == pytest.approx(others.tolist(), abs=2e-3)


def test_rouge_by_hand(chapters):
    assert "P = 1/5, R = 1/3" in chapters[6] and numbers(chapters[6]) == [0.25]
