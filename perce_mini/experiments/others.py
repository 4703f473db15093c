"""What other commands record, as tables: the benchmark on a GPU and by arithmetic, and runs on real texts."""

from perce_mini.experiments.bench import LABELS
from perce_mini.experiments.records import RESULTS, read, table

COMMANDS = {
    "gpu": "python -m perce_mini.experiments.bench --gpu --json data/results/gpu.json",
    "memory": "python -m perce_mini.experiments.bench --memory --json data/results/memory.json",
    "real": "python -m perce_mini.hf.compare MODEL_FOLDER DATA_FOLDER",
}
TITLES = {"gpu": "How fast on one GPU?", "memory": "How much memory does a step take?", "real": "Real texts"}
REAL = {"before": "before", "ce": "CE", "perce": "PerCE", "perce-stranger": "PerCE against a stranger"}


def recorded():
    """{name: results} as experiments have them."""
    found = {}
    for name, tables_of in {"gpu": gpu_tables, "memory": memory_tables, "real": real_tables}.items():
        if results := [read(path.stem) for path in sorted(RESULTS.glob(f"{name}*.json"))]:
            tables = [one for r in results for one in tables_of(r)]
            found[name] = {"title": TITLES[name], "command": COMMANDS[name], "tables": tables}
            found[name] |= {key: results[0][key] for key in ["commit", "date"] if key in results[0]}
    return found


def gpu_tables(r):
    caption = f"{r['parameters'] / 1e6:.0f} M parameters, length 1,024, bfloat16, compiled."
    return [cost_table(caption, r)]


def cost_table(caption, figures, corner=""):
    """What the benchmark found, on one device."""
    rows = {label: [{figures["device"]: figures[name]}] for name, label in LABELS.items() if figures.get(name)}
    return table(caption, [figures["device"]], rows, corner, digits=0)


def memory_tables(r):
    rows = {name: [parts] for name, parts in r.items() if isinstance(parts, dict) and "all" in parts}
    what = "One example of 5,000 tokens, 1,000 of them scored, blocks being recomputed"
    caption = f"{what}; head: a slice of logits, and its gradient."
    return [table(caption, next(iter(rows.values()))[0], rows, "GB", digits=1)]


def real_tables(r):
    """Figures, and where most tokens' PIR lies."""
    setting, rows = r["settings"], {label: real_row(r, run) for run, label in REAL.items()}
    batch = setting["batch_size"] * setting["grad_accum"]
    trained = f"LoRA of rank {setting['lora_rank']}" if setting["lora_rank"] else "all weights"
    runs = f"{r['model']} on {r['data']}: {setting['steps']} steps of {batch} examples ({trained})"
    tried = ", ".join(f"{float(rate):g}" for rate in r["validation log-likelihood"].get("ce", {}))
    chosen = f", rates chosen among {tried} on validation users" if tried else ""
    caption = f"{runs}{chosen}, {r['examples']} held-out examples. Differences: paired bootstrap over users."
    columns = list(rows["PerCE"][0])
    figures = table(caption, columns[:8], rows, transposed=True)
    return [figures, table(f"{r['model']} on {r['data']}: PIR.", columns[8:], rows, digits=2, transposed=True)]


def real_row(r, run):
    row = []
    for seed in (seed for seed in r["seeds"] if run in seed["none"]["runs"]):
        own, stranger = (seed[contrast]["runs"][run] for contrast in ["none", "stranger"])
        figures = {"learning rate": f"{r['rates'][run]:g}" if run in r["rates"] else ""}
        figures |= {metric: own[metric] for metric in ["rouge_l", "logp", "logp_plain", "pir"]}
        figures["mean PIR against a stranger"] = stranger["pir"]
        change = seed["none"]["minus ce"].get(run)
        for metric, words in {"rouge_l": "ROUGE-L minus CE", "logp": "log-likelihood with persona minus CE"}.items():
            figures[words] = list(change[metric].values()) if change else ""
        for words, one in {"PIR": own, "PIR against a stranger": stranger}.items():
            for share in ["0.05", "0.5", "0.95"]:
                figures[f"{float(share):.0%} of tokens have {words} below"] = one["pir_quantiles"][share]
        row.append(figures)
    return row
