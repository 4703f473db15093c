"""The words and templates of the made-up world, read from words.ini."""

import re
from configparser import ConfigParser
from pathlib import Path

INI = ConfigParser(delimiters=":", interpolation=None)
INI.read_string(Path(__file__).with_name("words.ini").read_text(encoding="utf-8"))
TASKS = ["abstract", "review", "topic"]  # kinds of text for fine-tuning
BASE_TASKS = ["letter", "diary", "recipe", "notice"]  # kinds of text for the base model


def read_pools(section):
    """Read a section of word lists: {name: [word, ...]}."""
    texts = INI[section].items()
    return {name: [word.replace("_", " ") for word in text.split()] for name, text in texts}


def read_templates(section):
    """Read a section of templates: {name: [template, ...]}."""
    return {name: text.strip().split("\n") for name, text in INI[section].items()}


STYLE = read_pools("style")
ENDINGS = [STYLE[name] for name in STYLE if name.endswith("ending")]  # the last parts of names
STYLE[" "] = [" "]
TRAITS = {trait: [STYLE[part] for part in parts] for trait, parts in read_pools("traits").items()}
BRITISH = dict(INI["british"])  # {usual spelling: British spelling}
POOLS = read_pools("common")

TEMPLATES = {kind: read_templates(kind) for kind in TASKS + BASE_TASKS}
PERSONAL = {kind: read_templates(f"{kind}, personal") for kind in TASKS + BASE_TASKS}
SENTENCES = read_templates("sentences")
ORDINARY = read_pools("ordinary")

# The lists to read back use these words: the pools, and the words in the templates of TASKS. The
# base model sees the words of BASE_TASKS anyway.
LISTED = sum(POOLS.values(), [])
for task in TASKS:
    templates = [*TEMPLATES[task].values(), *PERSONAL[task].values(), SENTENCES.get(task, [])]
    text = " ".join(sum(templates, []))
    LISTED += re.findall("[A-Za-z]+", re.sub("{.*?}", "", text))
LISTED = list(dict.fromkeys(LISTED))
