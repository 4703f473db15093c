"""Shared by the prepare.py scripts: write the splits."""

from pathlib import Path

from perce_mini.runtime.errors import plural
from perce_mini.runtime.files import write_jsonl_atomic


def write_splits(folder: str | Path, splits: dict, dropped: dict | None = None) -> None:
    """Write folder/SPLIT.jsonl for {split: rows}, and delete the file of any split without rows.

    Prints the number of rows and users, and `dropped` ({reason: number}). Raises UserError or
    OSError.
    """
    for split, rows in splits.items():
        path = Path(folder) / f"{split}.jsonl"
        if rows:
            write_jsonl_atomic(path, rows)
            users = {row["user"] for row in rows}
            print(f"wrote {path}: {plural(len(rows), 'row')} from {plural(len(users), 'user')}")
        elif path.exists():
            path.unlink()
            print(f"removed {path}: this split has no rows")
    if dropped is not None:
        print_dropped(dropped)


def print_dropped(dropped: dict) -> None:
    """Print {reason: number}."""
    reasons = [f"{number} {reason}" for reason, number in dropped.items() if number]
    print("dropped:", ", ".join(reasons) or "nothing", flush=True)
