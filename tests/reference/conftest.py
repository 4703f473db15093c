"""Tests that need more packages than the project; a file whose packages are missing is skipped:

pip install transformers accelerate trl tokenizers safetensors rouge_score nltk
"""

from importlib.util import find_spec

import pytest

NEEDED = {
    "test_transformers.py": ["transformers", "safetensors"],
    "test_tokenizers.py": ["tokenizers"],
    "test_safetensors.py": ["safetensors"],
    "test_rouge_score.py": ["rouge_score"],
    "test_nltk.py": ["nltk"],
    "test_trainers.py": ["tokenizers", "transformers", "accelerate"],
}


class Missing(pytest.File):
    """A file that is not imported: one skipped test that says why."""

    def collect(self):
        yield Skipped.from_parent(self, name="needs_packages")


class Skipped(pytest.Item):
    def runtest(self):
        pytest.skip(f"needs the packages {', '.join(NEEDED[self.path.name])}; pip install them")


def pytest_pycollect_makemodule(module_path, parent):
    if not all(map(find_spec, NEEDED.get(module_path.name, []))):
        return Missing.from_parent(parent, path=module_path)
