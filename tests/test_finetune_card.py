"""The model card: what the hub parses, what a reader runs, what is never left half written."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from clap_folders import CAPTIONS, save_clap
from huggingface_hub import ModelCard

from humanclap import load_clap, relate
from humanclap.finetune import FinetuneConfig, finetune, write_card

RATE = 16_000


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def run(request, tmp_path_factory):
    """A fine-tuning of one tiny model on ten clips: its folder and its result."""
    root = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(20):
        soundfile.write(root / f"{number}.wav", rng.uniform(-0.5, 0.5, 12_000), RATE)
        rows.append({"audio": f"{number}.wav", "text": f"{CAPTIONS[number % 5][:20]} {number // 10}"})
    pairs = pd.DataFrame(rows).assign(target=rng.integers(0, 11, 20) / 10)
    base = load_clap(save_clap(root / "base", fused=request.param), device="cpu")
    config = FinetuneConfig(epochs=2, learning_rate=1e-3, batch_size=5)
    return finetune(config, pairs[:10], pairs[10:], root, root / "run", base=base, progress=False)


@pytest.fixture(scope="module")
def table():
    rows = [
        ("wsce+mae", "all", "srcc", 0.4567, 0.4, 0.5, 120, "", 0.39, 0.79),
        ("wsce+mae", "all", "ktau", 0.31, 0.25, 0.37, 120, "", 0.2, np.nan),
        ("wsce+mae", "AudioLDM | 2 <b>", "srcc", np.nan, np.nan, np.nan, 3, "fewer than 4 pairs", np.nan, np.nan),
        ("mae", "all", "srcc", 0.1, 0.0, 0.2, 120, "", 0.39, 0.79),
    ]
    names = ["model", "cell", "metric", "value", "low", "high", "n", "note", "floor", "ceiling"]
    return pd.DataFrame(rows, columns=names)


def changed(run, folder, settings=None, history=None):
    """The model folder of a copy of the run with other settings or another history."""
    shutil.copytree(run.checkpoint.parent, folder)
    (folder / "settings.json").write_text(json.dumps(run.settings if settings is None else settings))
    if history is not None:
        history.to_csv(folder / "history.csv", index=False)
    return folder / "model"


def front_matter(path):
    _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def table_rows(body, heading):
    """The cells of each row of the table below `heading`."""
    part = body.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


# --- what is in it --------------------------------------------------------------------------------------


def test_the_front_matter_is_what_the_hub_reads(run, table, tmp_path):
    path = write_card(run.checkpoint, "RELATE ratings", table=table)
    assert path == run.checkpoint / "README.md"
    head, body = front_matter(path)
    assert head["library_name"] == "transformers" and head["pipeline_tag"] == "feature-extraction"
    assert head["license"] == "other" and head["license_name"] and {"clap", "human-clap"} <= set(head["tags"])
    assert head["metrics"] == ["spearmanr", "pearsonr", "mse"] and "synthetic" not in body.lower()
    assert "base_model" not in head  # a local folder is no model of the hub's
    assert ModelCard.load(path).data.to_dict()["metrics"] == head["metrics"]
    settings = run.settings | {"base": run.settings["base"] | {"name": "laion/clap-htsat-fused@365dea6"}}
    head, _ = front_matter(write_card(changed(run, tmp_path / "run", settings), "RELATE ratings"))
    assert head["base_model"] == "laion/clap-htsat-fused"


def test_synthetic_numbers_are_called_synthetic(run, table):
    head, body = front_matter(write_card(run.checkpoint, "synthetic", table=table))
    assert "synthetic-data" in head["tags"] and head["license"] == "mit"
    for part in (body[:400], body.split("## Test")[1][:60]):
        assert "**Data: synthetic" in part or "Data: **synthetic**" in part
    assert "none of its\n> numbers says anything about real audio" in body


def test_results_come_with_interval_floor_and_ceiling(run, table):
    _, body = front_matter(write_card(run.checkpoint, "RELATE ratings", table=table))
    head, _, *rows = table_rows(body, "Test")
    assert head == ["cell", "metric", "value", "interval", "n", "floor", "ceiling"]
    assert rows[0] == ["all", "SRCC", "0.457", "0.400 to 0.500", "120", "0.390", "0.790"]
    assert rows[1][-2:] == ["0.200", "–"]
    assert rows[2] == [r"AudioLDM \| 2 &lt;b&gt;", "SRCC", "– (fewer than 4 pairs)", "–", "3", "–", "–"]
    assert len(rows) == 3  # no other model's
    bare = table.drop(columns=["note", "floor", "ceiling"])
    _, body = front_matter(write_card(run.checkpoint, "RELATE ratings", table=bare, model="mae"))
    assert table_rows(body, "Test")[2:] == [["all", "SRCC", "0.100", "0.000 to 0.200", "120", "–", "–"]]
    _, body = front_matter(write_card(run.checkpoint, "RELATE ratings"))
    assert "Not tested yet." in body and not table_rows(body, "Test")


def test_screening_split_and_every_setting_are_there(run):
    ratings = pd.DataFrame({
        "audio": ["a", "b", "c"] * 2, "text": ["x", "y", "z"] * 2, "rating": [5, 6, 1, 5, 6, 9],
        "listener": ["1"] * 3 + ["2"] * 3, "system": "natural", "split": ["train", "test", "test"] * 2,
        "is_anchor": [False, False, True] * 2,
    })  # fmt: skip
    screening = relate.screen_listeners(ratings, 2.0)
    _, body = front_matter(write_card(run.checkpoint, "RELATE ratings", screening=screening))
    rows = {row[0]: row[-1] for row in table_rows(body, "Training data")}
    assert "above 2 (0-10) are left out: 1 of 2" in rows["screening"]
    assert rows["training pairs"].startswith(f"10 (sha256 {run.settings['data']['train']['sha256'][:16]}")
    assert ["train", "1", "1", "1"] in table_rows(body, "Training data")
    settings = {row[0].replace("\\", ""): row[1] for row in table_rows(body, "Training") if len(row) == 2}
    assert set(run.settings["config"]) <= set(settings)
    assert settings["learning_rate"] == "0.001" and settings["base"] == "base"
    assert str(run.checkpoint.parent) not in body  # whose folders they were is nobody else's business


def test_the_curve_has_the_ends_and_the_best_epoch(run, tmp_path):
    epochs = 50
    history = pd.DataFrame({
        "epoch": range(epochs + 1), "train_loss": [np.nan, *np.linspace(1, 0, epochs)], "temperature": 0.07,
        "validation_loss": np.abs(np.arange(epochs + 1) - 37) / 37 + 0.5, "validation_srcc": 0.25,
    })  # fmt: skip
    settings = run.settings | {"best_epoch": 37}
    _, body = front_matter(write_card(changed(run, tmp_path / "better", settings, history), "RELATE ratings"))
    shown = [row for row in table_rows(body, "Training") if len(row) == 5][2:]
    assert [shown[0][0], shown[-1][0]] == ["0", "50"] and len(shown) in (15, 16)
    assert ["**37**", "0.265", "0.500", "0.250", "0.070"] in shown and shown[0][1] == "–"
    assert "epoch 37 of 50, whose loss is lower than the base's" in body
    worse = history.assign(validation_loss=history["validation_loss"].where(history["epoch"] > 0, 0.1))
    _, body = front_matter(write_card(changed(run, tmp_path / "worse", settings, worse), "RELATE ratings"))
    assert "whose loss is **not** lower than the base's" in body


def test_text_from_outside_is_shown_and_not_obeyed(run, tmp_path):
    evil = "x | y\n# <script>alert(1)</script> [a](http://b) {{ 1 + 1 }} `c`"
    settings = json.loads(json.dumps(run.settings))
    settings["base"]["name"] = settings["config"]["kind"] = evil
    head, body = front_matter(write_card(changed(run, tmp_path / "run", settings), evil, notes=[evil]))
    assert head["license"] == "other"
    assert "<script>" not in body and "[a](http" not in body and "\n# <" not in body
    assert r"\{\{ 1 + 1 \}\}" in body
    rows = [row for row in table_rows(body, "Training") if row[0] == "kind"]
    assert len(rows) == 1 and len(rows[0]) == 2


# --- the folder afterwards ------------------------------------------------------------------------------


def clip(path, seconds, seed=0):
    samples = np.random.default_rng(seed).uniform(-0.4, 0.4, round(seconds * RATE)).astype(np.float32)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


def test_the_card_s_code_runs_and_scores_as_load_clap_does(run, tmp_path, monkeypatch):
    """The snippets are executed as they are, in the checkpoint's folder: within 1e-6 of each other."""
    _, body = front_matter(write_card(run.checkpoint, "synthetic"))
    plain, ours = re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL)
    for name in os.listdir(run.checkpoint):
        (tmp_path / name).symlink_to(run.checkpoint / name)
    monkeypatch.chdir(tmp_path)
    fused = load_clap(run.checkpoint, device="cpu").window == "fusion"
    # Where transformers draws nothing: within the window and, with fusion, less than one hop above it.
    for seconds in (0.4, 1.0, *([1.01] if fused else [])):
        clip(tmp_path / "clip.wav", seconds)
        first, second = {}, {}
        exec(plain, first)
        exec(ours, second)
        row = second["table"].iloc[0]
        assert row["status"] == "ok" and first["cosine"].shape == (1,)
        assert float(first["cosine"]) == pytest.approx(row["cosine"], abs=1e-6)
        assert first["clap_score"] == pytest.approx(row["clap_score"], abs=1e-6)


# --- refused, and never half written --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"label": " "}, ValueError, "label is ' '; say where the ratings come from"),
        (
            {"table": pd.DataFrame({"model": ["mae"]})},
            ValueError,
            "table has no column cell, metric, value, low, high, n;",
        ),
        ({"model": "mse"}, ValueError, r"no rows of model 'mse'. Available: wsce\+mae, mae"),
    ],
)
def test_unfit_arguments_are_named_and_the_old_card_stays(run, table, change, error, says):
    path = write_card(run.checkpoint, "RELATE ratings")
    before = path.read_bytes()
    with pytest.raises(error, match=says):
        write_card(run.checkpoint, **{"label": "synthetic", "table": table} | change)
    assert path.read_bytes() == before


def test_a_folder_that_is_no_model_of_a_run_is_refused(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no .*config.json, .*: give the model folder of a run"):
        write_card(tmp_path, "synthetic")
    shutil.copytree(run.checkpoint, tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="there is no .*settings.json, .*history.csv: give"):
        write_card(tmp_path / "model", "synthetic")
