"""How every source of rows ends: files of JSON lines, all replaced together, and a line that says what was dropped."""

from functools import partial
from pathlib import Path

from perce_mini.files import replace_files, write_jsonl


def write_splits(folder: str | Path, splits: dict, dropped: dict) -> None:
    """Replace folder/SPLIT.jsonl by the rows of every split, {split: rows}; a split without rows loses its old file.

    All new files are whole before the first old one goes. Prints what was written, and `dropped`, {reason: count}.
    Raises UserError, OSError.
    """
    paths = {split: Path(folder) / f"{split}.jsonl" for split in splits}
    replace_files({paths[split]: partial(write_jsonl, rows) for split, rows in splits.items() if rows})
    for split, rows in splits.items():
        if rows:
            print(f"wrote {paths[split]}: {len(rows)} rows of {len({row['user'] for row in rows})} users")
        elif paths[split].exists():
            paths[split].unlink()
            print(f"removed {paths[split]}: there are no rows for it now")
    print_dropped(dropped)


def print_dropped(dropped: dict) -> None:
    said = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
    print("dropped:", said or "nothing", flush=True)
