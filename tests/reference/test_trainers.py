"""PerCETrainer and its TRL form against this project's own step."""

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
from transformers import LlamaForCausalLM as Llama

from perce_mini import dataset, hf
from perce_mini.hf import trainer as hf_trainer
from perce_mini.hf.folder import their_name
from perce_mini.hf.trainer import PerCEMixin, PerCETrainer, encode_chat
from perce_mini.rows import Row
from perce_mini.trainer import Settings, micro_batch_loss

ROOT = Path(__file__).resolve().parents[2]
# The two examples at the top of hf/trainer.py.
EXAMPLE, TRL_EXAMPLE = re.findall(r"(?:^    .*\n|^\n)+(?=\S|\Z)", hf_trainer.__doc__, re.M)
KINDS = ["PerCETrainer", "PerCESFTTrainer"] if find_spec("trl") else ["PerCETrainer"]

TURN = "<|im_start|>{role}\n{content}<|im_end|>\n"
TEMPLATE = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# Qwen3 writes an empty thought before the last answer; others open a thought for a new one.
THOUGHT = "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
THINKING = TEMPLATE.replace("{{ m.content }}", THOUGHT)
OPENING = TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")


def chat(*texts):
    """User and assistant in turn."""
    roles = ["user", "assistant"] * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts)]


# Of many lengths, so that a mean of the micro-batches' means is another number.
CHATS = [
    chat("a red kettle", "Howdy, it boils.", "a blue lamp", "Howdy, it shines and shines."),
    chat("the lamp", "No."),
    chat("a cup", "It is a cup, I say, a cup of tea.", "tea", "Hot.", "a pot", "It is a pot."),
    [{"role": "system", "content": "You like cats."}, *chat("cats?", "Meow!")],
]
ROWS = [{"messages": messages} for messages in CHATS]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")  # TRL sends no telemetry then
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # TRL asks for a GPU else


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder: random weights that make much of the persona, and bytes as vocabulary."""
    torch.manual_seed(0)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate([*letters, "he"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [("h", "e")]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<s>", "<think>", "</think>"])
    start = [("<s>", tokenizer.token_to_id("<s>"))]  # which must not be put before a response
    template = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=start)
    tokenizer.post_processor = template
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=TEMPLATE, eos_token="<|im_end|>"
    )
    path = tmp_path_factory.mktemp("model")
    Llama(make_config()).save_pretrained(path)
    theirs.save_pretrained(path)
    return path


def make_config(**options):
    shape = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    shape |= {"eos_token_id": 258, "initializer_range": 0.35}
    return transformers.LlamaConfig(**shape | options)


class NoKwargs(Llama):
    """A model whose forward takes two arguments and nothing else."""

    def forward(self, input_ids, attention_mask):
        return super().forward(input_ids, attention_mask)


def make_trainer(kind, folder, rows=ROWS, model=None, **options):
    """A trainer of one step on all rows; with SGD of rate 1 a weight loses its gradient."""
    model = model or Llama.from_pretrained(folder)
    sgd = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0}
    quiet = {"save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "bf16": False}
    clip = {name: options.pop(name) for name in ["clip_min", "clip_max"] if name in options}
    batch = {"max_steps": 1, "per_device_train_batch_size": 4, "lr_scheduler_type": "constant"}
    options = batch | sgd | quiet | options
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if kind == "PerCETrainer":
        args = transformers.TrainingArguments(**options)
        return PerCETrainer(model, args, rows, tokenizer, **clip)
    import trl
    from datasets import Dataset

    kind = type("PerCESFTTrainer", (PerCEMixin, trl.SFTTrainer), {})
    return kind(model, trl.SFTConfig(**options), Dataset.from_list(rows), tokenizer, **clip)


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


def own_step(folder, **settings):
    """Loss, gradient, mean weight of perce_mini.trainer, with prompts made by hand."""
    model, _ = hf.load(folder)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    examples = []
    for *persona, query, response in CHATS:
        prompt = encode(TURN.format(**query) + "<|im_start|>assistant\n")
        before = encode("".join(TURN.format(**item) for item in persona))
        answer = encode(response["content"] + "<|im_end|>")
        examples.append(dataset.Example({}, before + prompt, prompt, answer, [False] * len(answer)))
    batch = dataset.collate(examples)
    loss, sums = micro_batch_loss(model, batch, Settings(**settings), len(batch.labels))
    loss.backward()
    gradient = {their_name(name): p.grad for name, p in model.named_parameters()}
    return loss.item(), gradient, (sums[2] / len(batch.labels)).item()


def test_the_examples_run_as_they_stand(folder, tmp_path, monkeypatch):
    # TRL computes in bfloat16, and refuses to without a GPU.
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    (tmp_path / "my-model").symlink_to(folder)
    names = {}
    exec(re.sub("^    ", "", EXAMPLE, flags=re.M), names)
    assert names["trainer"].state.global_step == 3
    if find_spec("trl"):
        exec(re.sub("^    ", "", TRL_EXAMPLE, flags=re.M), names)
        assert type(names["trainer"]).__name__ == "PerCESFTTrainer"
        assert names["trainer"].state.global_step == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", [{}, {"clip_min": 0.1, "clip_max": 1.5}])
def test_a_step_is_the_step_of_this_project(folder, kind, clip):
    loss, gradient, weight = own_step(folder, **clip)
    again, theirs = step(kind, folder, **clip)
    assert weight > 0.3 and again == pytest.approx(loss, abs=1e-5)
    assert distance(theirs, gradient) < 1e-5
    trainer = make_trainer(kind, folder, **clip)
    evaluated = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    assert evaluated == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("kind, Model", [*((kind, Llama) for kind in KINDS), (KINDS[0], NoKwargs)])
def test_accumulated_micro_batches_are_one_batch(folder, kind, Model):
    loss, whole, _ = own_step(folder)
    halves = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    again, parts = step(kind, folder, model=Model.from_pretrained(folder), **halves)
    assert again == pytest.approx(loss, abs=1e-5) and distance(parts, whole) < 1e-5


# It ends at once: what Trainer holds keeps the group's threads alive, which may abort an exit.
WORKER = """
import os, sys, torch
from tests.reference.test_trainers import step
folder, *kinds = sys.argv[1:]
how = {"average_tokens_across_devices": False, "ddp_backend": "gloo"}  # it is set to True
how |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
for kind in kinds:
    _, gradient = step(kind, folder, **how)
    torch.save(gradient, f"{kind}{torch.distributed.get_rank()}.pt")
torch.distributed.barrier()
os._exit(0)
"""


def test_two_processes_make_the_gradient_of_one(folder, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    launch = f"{sys.executable} -m torch.distributed.run --standalone --nproc_per_node 2 worker.py"
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launch.split(), folder, *KINDS]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, gradient, _ = own_step(folder)
    files = list(tmp_path.glob("*.pt"))
    assert len(files) == 2 * len(KINDS)
    for file in files:
        assert distance(torch.load(file), gradient) < 1e-5, file


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_persona_all_weights_are_at_the_floor_in_spite_of_dropout(folder, kind):
    torch.manual_seed(0)
    model = Llama(make_config(attention_dropout=0.5))
    rows = [{"messages": chat("the lamp", "No, no, no.")}]
    trainer = make_trainer(kind, folder, rows, model)
    inputs = trainer.data_collator(rows)
    trainer.model.train()
    losses = []
    for seed in [1, 1, 2]:
        torch.manual_seed(seed)
        losses.append(trainer.compute_loss(trainer.model, inputs).item())
    assert losses[0] == losses[1] != losses[2]  # the loss itself has dropout
    torch.manual_seed(1)
    ce = trainer.model(**inputs["persona"], labels=inputs["labels"]).loss.item()
    assert losses[0] == pytest.approx(0.8 * ce, rel=1e-5)


def test_without_dropout_a_view_is_scored_once(folder):
    trainer, passes = make_trainer("PerCETrainer", folder), []
    hook = lambda model, *_: passes.append((torch.is_grad_enabled(), model.training))  # noqa: E731
    trainer.model.register_forward_pre_hook(hook)
    trainer.train()
    assert passes == [(False, False), (True, True)]


@pytest.mark.parametrize("template", [THINKING, OPENING])
def test_a_thought_that_the_template_writes_belongs_to_the_prompt(folder, template):
    """The same tokens are scored as in a run on the folder itself."""
    theirs = transformers.AutoTokenizer.from_pretrained(folder, chat_template=template)
    ours = hf.load(folder)[1]
    prompt, response = encode_chat(theirs, chat("the lamp", "think"))
    row = {"user": "u", "task": "t", "query": "the lamp", "response": "think", "profile": []}
    example = dataset.encode_example(Row(row), ours, 100)
    assert response == example.response
    if template == THINKING:
        assert ours.encode_template("start")[0] == 259 and [259, *prompt] == example.prompt


def test_chats_that_cannot_be_scored_are_refused(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ValueError, match="assistant"):
        encode_chat(tokenizer, chat("a", "b", "c"))
    tokenizer.chat_template = "{{ messages[-1].content | length }}" + TEMPLATE
    with pytest.raises(ValueError, match="template"):
        encode_chat(tokenizer, CHATS[0])


def test_the_package_itself_needs_no_transformers():
    code = "import sys, perce_mini.hf; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
