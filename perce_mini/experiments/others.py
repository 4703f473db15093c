"""What perce_mini.hf.compare records of runs on real texts (data/results/real-*.json), as an experiment's results."""

from perce_mini.experiments.records import RESULTS, read, table

COMMAND = "python -m perce_mini.hf.compare MODEL_FOLDER DATA_FOLDER"
REAL = {"before": "before", "ce": "CE", "perce": "PerCE", "perce-stranger": "PerCE against a stranger"}


def recorded():
    """{"real": results}, or {} where there are none."""
    found = [read(path.stem) for path in sorted(RESULTS.glob("real*.json"))]
    tables = [one for r in found for one in real_tables(r)]
    made = {key: found[0][key] for key in ["commit", "date"] if key in found[0]} if found else {}
    return {"real": {"title": "Real texts", "command": COMMAND, "tables": tables} | made} if found else {}


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
