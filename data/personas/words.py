"""The words and templates of the made-up world, read from words.ini."""

from configparser import ConfigParser
from pathlib import Path

INI = ConfigParser(delimiters=":", interpolation=None)
INI.read_string(Path(__file__).with_name("words.ini").read_text(encoding="utf-8"))


def read_pools(section):
    """{name: list of words} of a section."""
    texts = INI[section].items()
    return {name: [word.replace("_", " ") for word in text.split()] for name, text in texts}


def read_templates(section):
    """{name: list of templates} of a section."""
    return {name: text.strip().split("\n") for name, text in INI[section].items()}


STYLE = read_pools("style")
STYLE["capital"] = [syllable.title() for syllable in STYLE["syllable"]]
STYLE["ending"] = ENDINGS = list(STYLE["syllable"])  # a list of its own, see User.parts
STYLE[" "] = [" "]
TRAITS = {trait: [STYLE[part] for part in parts] for trait, parts in read_pools("traits").items()}
BRITISH = dict(INI["british"])  # {usual spelling: British spelling}

VERDICTS = read_pools("verdicts")
POOLS = read_pools("common")
POOLS |= {"aspect": STYLE["aspect"], "other": POOLS["part"], "rating": list(VERDICTS)}

TEMPLATES = {task: read_templates(task) for task in ["abstract", "review", "topic"]}
PERSONAL = {task: read_templates(f"{task}, personal") for task in TEMPLATES}
SENTENCES = read_templates("sentences")
ORDINARY = read_pools("ordinary")
