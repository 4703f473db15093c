"""The README's PerCE for `transformers.Trainer` and TRL's `SFTTrainer`, against this project's own step."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers

from perce_mini import dataset, hf
from perce_mini.hf.folder import their_name
from perce_mini.percontrast import perce_loss, token_logprobs
from perce_mini.trainer import Settings, backward

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "README.md"

CODE = re.search(r"<!-- test: other trainers -->\s+```python\n(.*?)```", SOURCE.read_text(encoding="utf-8"), re.S)[1]
KINDS = ["PerCETrainer", "PerCESFTTrainer"]

TURN = "<|im_start|>{role}\n{content}<|im_end|>\n"
TEMPLATE = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def chat(*texts):
    """User and assistant in turn."""
    return [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * len(texts), texts)]


# Responses and personas of many lengths, so that a mean of the micro-batches' means is another number.
ROWS = [
    {"messages": chat("a red kettle", "Howdy, it boils.", "a blue lamp", "Howdy, it shines and shines.")},
    {"messages": chat("the lamp", "No.")},
    {"messages": chat("a cup", "It is a cup, I say, a cup of tea.", "tea", "Hot.", "a pot", "It is a pot, I say.")},
    {"messages": [{"role": "system", "content": "You like cats."}, *chat("cats?", "Meow!")]},
]


# ------------------------------------------------------------------------------------ a model, and one step of it


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")  # TRL sends no telemetry then


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder: random weights that make much of the persona, and bytes as vocabulary."""
    torch.manual_seed(0)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate([*letters, "he"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [("h", "e")]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|pad|>"])
    first = ("<|pad|>", tokenizer.token_to_id("<|pad|>"))  # if asked for, as others put a token that starts a text
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<|pad|> $A", special_tokens=[first])
    special = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE, **special)
    shape = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, eos_token_id=258, initializer_range=0.35))
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    theirs.save_pretrained(path)
    return path


def load_model(folder):
    return transformers.LlamaForCausalLM.from_pretrained(folder)


def rows_for(kind, times=1):
    """ROWS in the form that a trainer takes. Skips the test where TRL is missing."""
    if kind == "PerCETrainer":
        return ROWS * times
    pytest.importorskip("trl")
    from datasets import Dataset

    return Dataset.from_list(ROWS * times)


def run(kind, folder, rows, code=CODE):
    """What the README's code defines, around the model of a folder; without TRL's part for a `Trainer`."""
    if kind == "PerCETrainer":
        code = code.split("from trl")[0]
    code = code.replace("remove_unused", "use_cpu=True, remove_unused")  # TRL asks for a GPU else
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = {"model": load_model(folder), "tokenizer": tokenizer, "dataset": rows}
    exec(code, names)
    return names


def make_trainer(kind, folder, code=CODE, side="right", **options):
    """A trainer of one step on all ROWS. Its SGD has the rate 1: what a weight loses is its gradient."""
    rows = rows_for(kind)
    names = run(kind, folder, rows, code)
    names["tokenizer"].padding_side = side
    sgd = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 0}
    quiet = {"save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    options = {"bf16": False, "max_steps": 1, "per_device_train_batch_size": 4, **sgd, **quiet, **options}
    args = dataclasses.replace(names["trainer"].args, **options)
    return names[kind](load_model(folder), args, names["collate"], rows, processing_class=names["tokenizer"])


def step(*args, **options):
    """Loss and gradient {weight's name: tensor} of one step of `make_trainer`."""
    trainer = make_trainer(*args, **options)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    loss = trainer.train().training_loss
    return loss, {name: before[name] - p.detach() for name, p in trainer.model.named_parameters()}


def distance(one, two):
    """The largest difference between two gradients."""
    assert one.keys() == two.keys()
    return max((one[name] - two[name]).abs().max().item() for name in one)


def norm(gradient):
    return torch.cat([part.flatten() for part in gradient.values()]).norm().item()


def own_step(folder):
    """Loss, gradient, and the tally of the weights, of trainer.py on ids that are put together by hand."""
    model, _ = hf.load(folder)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    examples = []
    for row in ROWS:
        *persona, query, response = row["messages"]
        asked = TURN.format(**query) + "<|im_start|>assistant\n"
        texts = ["".join(TURN.format(**item) for item in persona), asked, response["content"] + "<|im_end|>"]
        before, asked, answer = (tokenizer.encode(text, add_special_tokens=False).ids for text in texts)
        examples.append(dataset.Example(row, before + asked, asked, answer, personal=[]))
    n_tokens = sum(len(e.response) for e in examples)
    tally = backward(model.hidden, model, dataset.collate(examples), Settings(loss="perce"), n_tokens)
    gradient = {their_name(name): p.grad for name, p in model.named_parameters()}
    return tally[0].item(), gradient, (tally[1:] / n_tokens).tolist()


# ------------------------------------------------------------------------------------------------ the README's code


def test_it_needs_one_file_of_this_project_and_is_short():
    lines = [line for line in CODE.splitlines() if line.strip()]
    assert len(lines) <= 25 and max(map(len, lines)) <= 120
    modules = {node.module for node in ast.walk(ast.parse(CODE)) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(ast.parse(CODE)) if isinstance(node, ast.Import) for name in node.names}
    assert modules == {"torch", "transformers", "trl", "perce_mini.percontrast"}


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_as_it_stands(folder, kind):
    trainer = run(kind, folder, rows_for(kind, times=4))["trainer"]
    assert type(trainer).__name__ == kind and list(trainer.train_dataset[0]) == ["messages"]  # untouched
    start, with_gradient = trainer.model.lm_head.weight.detach().clone(), []
    trainer.model.register_forward_pre_hook(lambda *_: with_gradient.append(torch.is_grad_enabled()))
    trainer.args.max_steps = 2
    done = trainer.train()
    assert done.global_step == 2 and done.training_loss > 0
    assert not torch.equal(start, trainer.model.lm_head.weight)
    assert with_gradient == [False, True] * 2  # the plain view, then the persona view


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side, near", [("right", 1e-5), ("left", 1e-4)])  # on the left, it shifts positions
def test_a_step_is_the_step_of_this_project(folder, kind, side, near):
    """Wherever the tokenizer puts the padding."""
    loss, gradient, (weight, floor, _) = own_step(folder)
    assert weight > 1 and 0.1 < floor < 0.9  # the weights are not all the same
    again, theirs = step(kind, folder, side=side)
    assert again == pytest.approx(loss, abs=1e-5) and distance(theirs, gradient) < near


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_micro_batches_are_one_batch(folder, kind):
    loss, whole = step(kind, folder)
    halves = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    again, parts = step(kind, folder, **halves)
    assert again == pytest.approx(loss, abs=1e-5) and distance(parts, whole) < 1e-5
    _, doubled = step(kind, folder, re.sub(r", n_tokens=\w+", "", CODE), **halves)
    assert norm(doubled) / norm(whole) == pytest.approx(2, rel=0.1)  # the sum of two means


def test_labels_that_are_not_shifted_give_another_loss(folder):
    """And nothing says so."""
    names, loss = run("PerCETrainer", folder, ROWS), own_step(folder)[0]
    batch = names["collate"](ROWS)
    with torch.no_grad():
        persona, plain = (names["model"](**batch[view]).logits for view in ["persona", "plain"])
    labels, plain_labels = batch["labels"], batch["plain_labels"]
    wrong = perce_loss(token_logprobs(persona, labels), token_logprobs(plain, plain_labels))
    persona, plain, labels, plain_labels = persona[:, :-1], plain[:, :-1], labels[:, 1:], plain_labels[:, 1:]
    right = perce_loss(token_logprobs(persona, labels), token_logprobs(plain, plain_labels))
    assert right.item() == pytest.approx(loss, abs=1e-5) and abs(wrong - right) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_has_the_same_loss(folder, kind):
    found = make_trainer(kind, folder).evaluate(rows_for(kind))
    assert found["eval_loss"] == pytest.approx(own_step(folder)[0], abs=1e-5)


# It ends without a farewell: what `Trainer` holds keeps the group's threads alive, which now and then abort an exit.
WORKER = """
import os
import sys
import torch
from tests.reference.test_trainers import step
folder, *kinds = sys.argv[1:]
for kind in kinds:
    _, gradient = step(kind, folder, per_device_train_batch_size=2, ddp_backend="gloo")
    torch.save(gradient, f"{kind}{torch.distributed.get_rank()}.pt")
torch.distributed.barrier()
os._exit(0)
"""


def test_two_processes_make_the_gradient_of_one(folder, tmp_path):
    kinds = KINDS if find_spec("trl") else KINDS[:1]
    (tmp_path / "worker.py").write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, "worker.py", folder, *kinds], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for kind in kinds:
        _, gradient = step(kind, folder)
        for rank in range(2):
            assert distance(torch.load(f"{kind}{rank}.pt"), gradient) < 1e-5


def test_a_template_that_changes_the_prompt_is_noticed(folder):
    names = run("PerCETrainer", folder, ROWS)
    names["tokenizer"].chat_template = "{{ messages | length }}" + TEMPLATE  # counts the response, too
    with pytest.raises(IndexError):
        names["collate"](ROWS)
