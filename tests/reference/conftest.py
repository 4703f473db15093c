"""Tests that need more packages than the project. A file whose packages are missing is left out:

pip install transformers accelerate trl tokenizers safetensors rouge_score nltk
"""

from importlib.util import find_spec

NEEDED = {
    "test_transformers.py": ["transformers", "safetensors"],
    "test_tokenizers.py": ["tokenizers"],
    "test_safetensors.py": ["safetensors"],
    "test_rouge_score.py": ["rouge_score"],
    "test_nltk.py": ["nltk"],
    "test_trainers.py": ["tokenizers", "transformers", "accelerate"],
}
collect_ignore = [file for file, packages in NEEDED.items() if not all(map(find_spec, packages))]
