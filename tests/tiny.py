"""The smallest possible tokenizer, model, rows and examples."""

import torch

from perce_mini.dataset import encode_example
from perce_mini.model import GPT, GPTConfig
from perce_mini.rows import Row
from perce_mini.tokenizer import Tokenizer

TEXT = "Howdy, it boils. Howdy, it shines. a red kettle a blue lamp "
TOKENIZER = Tokenizer.train(TEXT * 10, 300)
LAMP = {"query": "a blue lamp", "response": "Howdy, it shines."}
KETTLE = {"query": "a red kettle", "response": "Howdy, it is red."}


def make_model(seed=0, **shape):
    torch.manual_seed(seed)
    shape = {"n_layer": 1, "n_head": 2, "n_kv_head": 2, "n_embd": 32} | shape
    model = GPT(GPTConfig(TOKENIZER.vocab_size, **shape))
    model.embedding.weight.data *= 20  # so that the views and the weights differ
    return model


def make_row(query="a red kettle", response="Howdy, it boils.", profile=(LAMP, KETTLE), **others):
    row = {"user": "u", "task": "t", "query": query, "response": response, "profile": list(profile)}
    return Row(row | others)


def make_example(*args, block_size=512, top_k=4, tokenizer=TOKENIZER, **others):
    return encode_example(make_row(*args, **others), tokenizer, block_size, top_k)


def make_examples():
    """Four examples of different lengths; the second one has no profile."""
    long = make_example(response="it boils and it boils, it boils", profile=[LAMP])
    return [make_example(), make_example("a", "red", []), long, make_example("", "it shines")]


def response_logprobs(model, prompt, response):
    """log P of every token (n, V) at the response positions, without padding."""
    logits = model(torch.tensor([prompt + response]))[0]
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]


def gradient(model):
    """The gradients of all trained weights as one vector."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
