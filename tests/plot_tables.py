"""Tables as the figures take them: small, seeded, with the columns of the functions that make them."""

import numpy as np
import pandas as pd

SYSTEMS = ("natural", "audioldm", "audioldm2", "tango", "tango2")
CELLS = (*SYSTEMS, "synthesized", "within systems", "all")
RANGES = tuple(f"{sign} {part}" for sign in ("<=5", ">5") for part in ("all", "natural", "synthesized"))
SEVEN = ("laion-clap", "msclap-2023", "wsce+mse", "wsce+mae", "wsce", "mse", "mae")
LONG = "somebody/a-model-with-a-very-long-name-from-the-hub-v2-final"
TWELVE = (*SEVEN, "laion-clapmodel", "msclap-2022", "human-clap-released", LONG, "mine")


def with_ends(values, width=0.05):
    """value, low, high of a column of values."""
    return pd.DataFrame({"value": values, "low": np.subtract(values, width), "high": np.add(values, 1.5 * width)})


def score_table(models=("laion-clap", "wsce+mae"), n=240, seed=0, seeds=0) -> pd.DataFrame:
    """A long score table; fine-tuned models (a "+" in the name) have `seeds` training seeds."""
    rng = np.random.default_rng(seed)
    systems = np.resize(SYSTEMS, n)
    rating = np.clip(rng.normal(5, 2.5, n), 0, 10).round(2)
    pairs = {"audio": [f"{s}/{i}.wav" for i, s in enumerate(systems)], "text": [f"t{i // 3}" for i in range(n)]}
    pairs |= {"system": systems, "mean_rating": rating, "target": rating / 10}
    parts = []
    for place, model in enumerate(models):
        for training_seed in range(seeds) if seeds and "+" in model else [np.nan]:
            score = np.clip(0.2 + 0.02 * (1 + place % 4) * rating + rng.normal(0, 0.15, n), 0, 1)
            parts.append(pd.DataFrame({**pairs, "clap_score": score, "model": model, "training_seed": training_seed}))
    return pd.concat(parts, ignore_index=True)


def cell_table(models=("laion-clap", "wsce+mae"), cells=CELLS, metric="srcc", seed=0) -> pd.DataFrame:
    """As `evaluate.paper_table`: a value, interval, floor, ceiling for each model and cell."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame([(m, c) for m in models for c in cells], columns=["model", "cell"])
    floors, ceilings = (dict(zip(cells, rng.uniform(*ends, len(cells)))) for ends in ((0.1, 0.3), (0.7, 0.8)))
    sizes = dict(zip(cells, rng.integers(100, 3000, len(cells))))
    return pd.concat([rows.assign(metric=metric), with_ends(rng.uniform(0.2, 0.6, len(rows)))], axis=1).assign(
        n=rows["cell"].map(sizes), floor=rows["cell"].map(floors), ceiling=rows["cell"].map(ceilings),
        seed_sd=np.where(rows["model"].str.contains("+", regex=False), 0.02, np.nan), mark="", note="",
    )  # fmt: skip


def history_table(models=SEVEN[2:], seeds=3, epochs=6) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = []
    for model in models:
        for seed in range(seeds):
            loss = 0.1 * np.exp(-np.arange(epochs + 1) / 3) + 0.05 + rng.uniform(0, 0.01, epochs + 1)
            part = pd.DataFrame({"epoch": range(epochs + 1), "train_loss": loss * 0.9, "validation_loss": loss})
            part.loc[0, "train_loss"] = np.nan
            parts.append(part.assign(validation_srcc=0.5 - loss, model=model, training_seed=seed))
    return pd.concat(parts, ignore_index=True)


def control_table(models=SEVEN, kinds=("SRCC", "drop with swapped captions", "AUC, own against swapped caption")):
    rng = np.random.default_rng(1)
    rows = pd.DataFrame([(m, c) for m in models for c in kinds], columns=["model", "control"])
    return pd.concat([rows, with_ends(rng.uniform(0.2, 0.9, len(rows)))], axis=1).assign(n=480)


def preference_table(models=SEVEN) -> pd.DataFrame:
    systems = ("natural – audioldm", "audioldm – tango2", "audioldm2 – tango", "all shared captions")
    table = control_table(models, systems).rename(columns={"control": "systems"})
    return table.assign(floor=0.55)


def system_table(models=("laion-clap", "wsce+mae"), systems=SYSTEMS) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = pd.DataFrame([(m, s) for m in models for s in systems], columns=["model", "system"])
    score, rating = with_ends(rng.uniform(0.3, 0.4, len(rows)), 0.02), with_ends(rng.uniform(4, 7, len(rows)), 0.2)
    score.columns, rating.columns = ["score", "score_low", "score_high"], ["rating", "rating_low", "rating_high"]
    return pd.concat([rows, score, rating], axis=1).assign(n=480)


def reliability_table(models=("laion-clap", "wsce+mae", "mae"), maps=("none", "linear", "isotonic")) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = pd.DataFrame([(m, k, b) for m in models for k in maps for b in range(8)], columns=["model", "map", "bin"])
    target = with_ends(rng.uniform(0.2, 0.8, len(rows)), 0.04).rename(columns={"value": "target"})
    return pd.concat([rows, target], axis=1).assign(score=(rows["bin"] + 0.5) / 8, n=rng.integers(5, 90, len(rows)))


def homogeneous_table(models=("laion-clap", "wsce+mae", "mae")) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    rows = pd.DataFrame([(m, c) for m in models for c in RANGES], columns=["model", "cell"])
    ends = with_ends(rng.uniform(0.1, 0.4, len(rows)), 0.08).rename(columns={"value": "expected"})
    table = pd.concat([rows, ends], axis=1).assign(value=rng.uniform(0.1, 0.4, len(rows)), n=500)
    inside = np.where(table["value"] < table["low"], "less than expected", "more than expected")
    return table.assign(verdict=np.where(table["value"].between(table["low"], table["high"]), "as expected", inside))


def mse_table(models=SEVEN) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = pd.DataFrame([(m, k) for m in models for k in ("none", "linear", "isotonic")], columns=["model", "map"])
    ends = with_ends(rng.uniform(0.05, 0.08, len(rows)), 0.004).rename(columns={"value": "mse"})
    return pd.concat([rows, ends], axis=1).assign(constant_mse=0.07)


def ablation_table(cells=("all",)) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    rows = pd.DataFrame([(m, m.removeprefix("wsce+"), c) for m in ("wsce+mae", "wsce+mse") for c in cells])
    rows.columns = ["model", "reference", "cell"]
    ends = with_ends(rng.uniform(-0.05, 0.1, len(rows))).rename(columns={"value": "difference"})
    table = pd.concat([rows, ends], axis=1).assign(
        metric="srcc", value=0.5, reference_value=0.4, n_seeds=3, seed_sd=0.02
    )
    middle = table["difference"]
    seeds = {"seed_min": middle - 0.03, "seed_max": middle + 0.02}
    return table.assign(**seeds, seed_t_low=middle - 0.06, seed_t_high=middle + 0.06)


def further_table(models=("laion-clap", "wsce+mae", "mae")) -> pd.DataFrame:
    kinds = {"number of events": ("1", "2", "3 or more"), "temporal words": ("without", "with")}
    return pd.concat([cell_table(models, cells).assign(breakdown=kind) for kind, cells in kinds.items()])


def rule_table() -> pd.DataFrame:
    rules = (("none", np.nan), ("anchors", 1.0), ("anchors", 2.0), ("RELATE's own", np.nan))
    rows = [(rule, t, way) for way in ("all pairs left", "common pairs, equal raters") for rule, t in rules]
    rows = pd.DataFrame(rows, columns=["rule", "max_anchor_mean", "pairs"])
    return pd.concat([rows, with_ends(np.linspace(0.2, 0.4, len(rows)))], axis=1).assign(n=range(900, 900 + len(rows)))


def screening_table() -> pd.DataFrame:
    threshold = np.array([0, 1, 2, 5, 10.0])
    reliability = np.linspace(0.7, 0.5, 5)
    ends = {"reliability_low": reliability - 0.05, "reliability_high": reliability + 0.04}
    shares = {"ratings": np.linspace(0.4, 1, 5), "pairs": np.linspace(0.6, 1, 5), "single_rating": reliability - 0.2}
    return pd.DataFrame({"max_anchor_mean": threshold, "reliability": reliability, **ends, **shares})


def ceiling_table() -> pd.DataFrame:
    table = (
        with_ends(np.linspace(0.6, 0.8, 7))
        .add_prefix("lcc_ceiling_")
        .rename(columns={"lcc_ceiling_value": "lcc_ceiling"})
    )
    return table.assign(subset=("all", *SYSTEMS, "synthesized"), n_pairs=range(400, 1100, 100))


def mark_table() -> pd.DataFrame:
    names = ("mean of the system", "system, words and temporal words", "LAION CLAP", "half of the listeners")
    table = with_ends([0.38, 0.46, 0.28, 0.55]).assign(name=names, kind=("floor", "floor", "paper", "people"))
    table.loc[2, ["low", "high"]] = np.nan
    return table


def rating_table() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    return pd.DataFrame({"rating": rng.integers(0, 11, 600), "is_anchor": rng.random(600) < 0.2})


def own_table() -> pd.DataFrame:
    table = with_ends([0.3, 0.4, np.nan], 0.02).rename(columns={"value": "mean"})
    return table.assign(system=("mine", LONG, "worth $5 to $6"), clips=(20, 20, 3), failed=(0, 1, 3))


def reference_table() -> pd.DataFrame:
    names = ("other captions", "no sound", "recordings")
    return pd.DataFrame({"reference": names, "mean": (0.1, np.nan, 0.5), "clips": (40, 0, 9)})
