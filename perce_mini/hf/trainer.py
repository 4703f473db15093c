"""PerCE for `transformers.Trainer` and for trainers derived from it, such as TRL's.

    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
    from perce_mini.hf.trainer import PerCETrainer

    model = AutoModelForCausalLM.from_pretrained("my-model")
    tokenizer = AutoTokenizer.from_pretrained("my-model")
    texts = ["Review a kettle.", "Howdy, it boils!", "Review a lamp.", "Howdy, it shines!"]
    roles = ["user", "assistant", "user", "assistant"]
    chat = [{"role": role, "content": text} for role, text in zip(roles, texts)]
    trainer = PerCETrainer(model, TrainingArguments("out/mine"), [{"messages": chat}], tokenizer)
    trainer.train()

The last two messages of a chat are the query and the response. The messages before them are the
persona, which the plain view omits. With TRL:

    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from perce_mini.hf.trainer import PerCEMixin

    class PerCESFTTrainer(PerCEMixin, SFTTrainer): ...

    chats = Dataset.from_list([{"messages": chat}])
    trainer = PerCESFTTrainer(model, SFTConfig("out/mine", bf16=False), chats, tokenizer)
    trainer.train()
"""

from functools import partial

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer

from perce_mini.percontrast import CLIP_MAX, CLIP_MIN, causal_lm_logprobs, pir_weights, weighted_nll

MARK = "[[the response]]"


def encode_chat(tokenizer, messages):
    """Encode a chat: the ids of its prompt, and the ids of its response with the end token.

    Anything that the chat template inserts before the response, such as Qwen3's empty thought,
    belongs to the prompt. Raises ValueError if the prompt depends on the response, or if the last
    message is not the assistant's.
    """

    def render(response):
        last = messages[-1] | {"content": response}
        return tokenizer.apply_chat_template([*messages[:-1], last], tokenize=False)

    if messages[-1]["role"] != "assistant":
        raise ValueError("the last message of a chat must come from the assistant")
    prompt, end = render(MARK).split(MARK)
    text = render(messages[-1]["content"])
    if not (text.startswith(prompt) and text.endswith(end)):
        raise ValueError("the chat template makes the prompt depend on the response")
    texts = [prompt, text.removeprefix(prompt).rstrip()]
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def make_view(prompts, responses):
    """Make right-padded inputs for the model, and labels that are -100 where nothing is scored."""
    ids = [torch.tensor(p + r) for p, r in zip(prompts, responses)]
    labels = [torch.tensor([-100] * len(p) + r) for p, r in zip(prompts, responses)]
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    inputs = {"input_ids": pad_sequence(ids, batch_first=True), "attention_mask": mask}
    return inputs, pad_sequence(labels, batch_first=True, padding_value=-100)


def collate(rows, tokenizer):
    """Collate rows with a chat under "messages" into both views of the same responses."""
    chats = [row["messages"] for row in rows]
    prompts, responses = zip(*[encode_chat(tokenizer, chat) for chat in chats])
    plain_prompts = [encode_chat(tokenizer, chat[-2:])[0] for chat in chats]
    persona, labels = make_view(prompts, responses)
    plain, plain_labels = make_view(plain_prompts, responses)
    return {"persona": persona, "labels": labels, "plain": plain, "plain_labels": plain_labels}


class PerCEMixin:
    """Make a Trainer minimise the PerCE loss: class MyTrainer(PerCEMixin, SomeTrainer).

    clip_min, clip_max: bounds on the weights (Eq. 7); options: other Trainer arguments.
    """

    def __init__(self, model, args, train_dataset, processing_class, **options):
        self.clip_min = options.pop("clip_min", CLIP_MIN)
        self.clip_max = options.pop("clip_max", CLIP_MAX)
        args.remove_unused_columns = False  # the collator reads "messages"
        if hasattr(args, "dataset_kwargs"):  # TRL must not change the chats
            args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
        args.average_tokens_across_devices = True  # num_items_in_batch counts all processes' tokens
        options |= {"train_dataset": train_dataset, "processing_class": processing_class}
        super().__init__(model, args, partial(collate, tokenizer=processing_class), **options)
        self.model_accepts_loss_kwargs = True  # so that num_items_in_batch is always passed

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Compute this micro-batch's share of the PerCE loss.

        PIR would mistake dropout noise for the persona's influence, so the weights come from passes
        without dropout. A model with dropout needs a second pass over the persona view.
        """
        persona, labels = inputs["persona"], inputs["labels"]
        logp_plain = score_without_dropout(model, inputs["plain"], inputs["plain_labels"])
        before = random_state(labels.device)
        outputs = model(**persona)
        logp = logp_persona = causal_lm_logprobs(outputs.logits, labels)
        if not torch.equal(before, random_state(labels.device)):  # dropout drew random numbers
            logp_persona = score_without_dropout(model, persona, labels)
        weights = pir_weights(logp_persona, logp_plain, self.clip_min, self.clip_max)
        if num_items_in_batch is None:
            loss = weighted_nll(logp, weights)
        else:  # DataParallel repeats the number; DDP averages gradients that we want to sum
            n_tokens = torch.as_tensor(num_items_in_batch).float().mean()
            loss = weighted_nll(logp, weights, n_tokens) * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


@torch.no_grad()
def score_without_dropout(model, view, labels):
    """Compute log P of the labelled tokens (N,), without gradients."""
    was_training = model.training
    model.eval()
    logp = causal_lm_logprobs(model(**view).logits, labels)
    model.train(was_training)
    return logp


def random_state(device):
    """The state of the random number generator that layers use on this device."""
    source = torch if device.type == "cpu" else torch.get_device_module(device)
    return source.get_rng_state()


class PerCETrainer(PerCEMixin, Trainer):
    """transformers.Trainer with the PerCE loss; see the top of this file."""
