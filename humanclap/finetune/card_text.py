"""What stands in the places of the model card's template: its tables, and text that can break none of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from humanclap.relate import Screening

HISTORY_COLUMNS = ("epoch", "train_loss", "validation_loss", "validation_srcc", "temperature")
CURVE_ROWS = 15


def data_rows(settings: dict, screening: Screening | None) -> list[tuple[str, str]]:
    config, rows = setting(settings, "config"), []
    if screening is not None:
        rule = (
            f"listeners whose mean rating of the mismatched anchors is above {screening.max_anchor_mean:g} (0-10) are "
            f"left out: {len(screening.removed):,} of {len(screening.kept) + len(screening.removed):,}"
        )
        rows.append(("screening", rule))
    if "split_by" in config:
        by, seed = plain_text(config["split_by"]), plain_text(config.get("split_seed", "–"))
        rows.append(("training and validation", f"split by {by}, seed {seed}"))
    for part, name in (("train", "training"), ("validation", "validation")):
        found = setting(settings, "data", part)
        rows.append((f"{name} pairs", f"{setting(found, 'pairs'):,} (sha256 {plain_text(setting(found, 'sha256'))[:16]}…)"))
    shared = settings["data"].get("shared")
    if shared:
        said = ", ".join(f"{plain_text(name)} {count}" for name, count in shared.items())
        rows.append(("in both of these", said))
    return rows


def config_rows(settings: dict) -> list[tuple[str, str]]:
    """Every setting; the base by its name, as its path is nobody else's business."""
    config = {**setting(settings, "config"), "base": setting(settings, "base", "name")}
    return [(plain_text(name), plain_text(value)) for name, value in config.items()]


def version_rows(settings: dict) -> list[tuple[str, str]]:
    base = settings["base"]
    rows = {f"base, {name}": base[name] for name in ("checkpoint_sha256", "weights_sha256") if name in base}
    rows |= {name: settings[name] for name in ("device", "threads", "seconds", "status") if name in settings}
    return [(plain_text(name), plain_text(value)) for name, value in {**rows, **setting(settings, "versions")}.items()]


def front_end(folder: Path) -> dict:
    extractor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rate = int(extractor["sampling_rate"])
    seconds = extractor["nb_max_samples"] / rate
    fused = bool(model.get("audio_config", {}).get("enable_fusion", False))
    return {"sample_rate": rate, "window_seconds": f"{seconds:g}", "fused": fused}


def better_than_base(history: pd.DataFrame, best_epoch: int) -> str:
    loss = history.set_index("epoch")["validation_loss"]
    if best_epoch not in loss.index or 0 not in loss.index:
        raise ValueError(f"history has epochs {loss.index.min()} to {loss.index.max()}; needed: 0 and {best_epoch}")
    improved = loss[best_epoch] < loss[0]
    return f"whose loss is {'' if improved else '**not** '}lower than the base's"


def curve(history: pd.DataFrame, best_epoch: int) -> dict:
    """At most CURVE_ROWS epochs and the best one: first, last and some between them at equal distances."""
    last = len(history) - 1
    places = {round(last * i / (CURVE_ROWS - 1)) for i in range(CURVE_ROWS)}
    places |= set(history.reset_index(drop=True).index[history["epoch"] == best_epoch])
    rows = []
    for row in history.iloc[sorted(places)][list(HISTORY_COLUMNS)].to_dict("records"):
        epoch = int(row.pop("epoch"))
        rows.append([f"**{epoch}**" if epoch == best_epoch else str(epoch), *map(number, row.values())])
    return {"curve_names": [name.replace("_", " ") for name in HISTORY_COLUMNS], "curve": rows}


def shown_result(row: dict) -> dict:
    note = row.get("note")
    note = f" ({plain_text(note)})" if isinstance(note, str) and note else ""
    interval = f"{number(row['low'])} to {number(row['high'])}" if pd.notna(row["low"]) else "–"
    return {
        "cell": plain_text(row["cell"]),
        "metric": plain_text(str(row["metric"]).upper()),
        "value": number(row["value"]) + note,
        "interval": interval,
        "n": f"{int(row['n']):,}",
        "floor": number(row.get("floor")),
        "ceiling": number(row.get("ceiling")),
    }


def plain_text(value: object) -> str:
    """Any text as Markdown and HTML show it letter by letter, on one line and within a cell of a table."""
    line = " ".join(str(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]{}|#~$!])", r"\\\1", line)


def number(value: object) -> str:
    return "–" if value is None or pd.isna(value) else f"{float(value):.3f}"


def setting(settings: dict, *path: str):
    found = settings
    for name in path:
        if not isinstance(found, dict) or found.get(name) is None:
            where = ".".join(path)
            raise ValueError(f"the settings have no {where}: give FinetuneResult.settings, or a run's manifest.json")
        found = found[name]
    return found
