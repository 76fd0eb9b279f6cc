"""The paper profile from end to end: its own notebooks, offline, on real rows of RELATE, synthetic clips and random
checkpoints of full size in the published formats. What it proves is the path, not a number."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import full_size
import nbformat
import pandas as pd
import pytest
import rehearsal
from test_notebooks import PROJECT

from humanclap.losses import KINDS

# A step limit instead of the paper's 50 epochs of 241 steps, one seed, and few random crops.
LIMITS = {"n_train": 16, "epochs": 1, "seeds": "[0]", "n_crops": 2, "n_crop_pairs": 12}
LINEUP = ["laion-clapmodel", "laion-clap", "msclap-2022", "msclap-2023", "human-clap-released"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(request, tmp_path_factory, relate_root, real_ratings):
    """The folder of the executed profile, runs/paper; everything big is removed when the module is done."""
    session = full_size.session_folder(request, tmp_path_factory)
    place = session / "rehearsal"
    place.mkdir()
    tree = rehearsal.make_tree(place / "relate", relate_root)
    hub = full_size.hub(session, sorted(real_ratings["text"].unique()))
    with full_size.serving(hub):
        checkpoints = rehearsal.make_checkpoints(place / "checkpoints", session, tree)
    offline = {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "HUMANCLAP_NO_NETWORK": "1"}
    places = {"HUMANCLAP_RELATE": tree, "HUMANCLAP_RUNS": place / "runs", "HUMANCLAP_CHECKPOINTS": checkpoints}
    variables = {**os.environ, **offline, **{name: str(path) for name, path in places.items()}}
    command = [sys.executable, "-m", "humanclap.study", "run", "paper"]
    for name, value in LIMITS.items():
        command += ["-p", name, str(value)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=PROJECT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    print(pd.read_csv(place / "runs/paper/log.csv").to_string(index=False))
    yield place / "runs" / "paper"
    shutil.rmtree(place, ignore_errors=True)


def table(run, name):
    return pd.read_csv(run / "tables" / f"{name}.csv")


def test_every_notebook_ran_and_left_its_tables(run):
    notebooks = sorted(path.stem for path in (PROJECT / "notebooks").glob("[0-9]*.ipynb"))
    log = pd.read_csv(run / "log.csv", dtype={"notebook": str})
    assert [name[:2] for name in notebooks] == sorted(set(log["notebook"]))
    assert (log["seconds"] > 0).all()
    for name in notebooks:
        assert (run / f"{name}.ipynb").is_file() and len(table(run, f"{name}_headline"))
        executed = nbformat.read(run / f"{name}.ipynb", as_version=4)
        assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")


def test_each_cell_of_tables_i_to_iii_is_filled_for_every_model(run):
    sizes = {}
    for name in ("03_table_1", "04_table_2", "04_table_3"):
        cells = table(run, name)
        assert set(cells["model"]) == {*KINDS, *LINEUP}
        assert cells[["value", "low", "high", "floor"]].notna().all(axis=None), cells[cells["value"].isna()]
        assert (run / "tables" / f"{name}.md").is_file() and (run / "tables" / f"{name}.tex").is_file()
        sizes |= cells.set_index("cell")["n"].to_dict()
    del sizes["within systems"]
    assert len(sizes) == 13 and min(sizes.values()) >= rehearsal.MIN_PAIRS
    assert 80 <= sizes["all"] <= 120


def test_the_released_model_is_a_row_of_test_pairs_only(run):
    validated = table(run, "03_validation_scores")
    assert "human-clap-released" not in set(validated["model"]) and "laion-clapmodel" in set(validated["model"])


def test_rows_and_figures_say_that_they_are_synthetic(run):
    for path in (run / "tables").glob("*.csv"):
        assert "data" not in pd.read_csv(path) or set(pd.read_csv(path)["data"]) <= {"synthetic", "none, a drawing"}, (
            path
        )
    outputs = [output for cell in nbformat.read(run / "01_baseline_clapscore.ipynb", as_version=4).cells
               if cell.cell_type == "code" for output in cell.outputs]  # fmt: skip
    printed = "".join(output.get("text", "") for output in outputs)
    assert "NOT the published weights" in printed


def test_a_variants_checkpoint_is_whole_and_open_to_others(run):
    from transformers import ClapModel, ClapProcessor

    folder = run / "human-clap" / "wsce+mae" / "seed0" / "model"
    model, processor = ClapModel.from_pretrained(folder), ClapProcessor.from_pretrained(folder)
    assert model.config.audio_config.enable_fusion and processor.feature_extractor.sampling_rate == 48_000


def test_every_training_has_a_card_and_only_the_chosen_ones_names_the_choice(run):
    chosen = table(run, "03_choice").query("chosen")["model"].tolist()
    cards = {kind: (run / "human-clap" / kind / "seed0" / "model" / "README.md").read_text() for kind in KINDS}
    assert [kind for kind, card in cards.items() if "before any test pair was scored" in card] == chosen


def test_the_same_models_through_both_packages_are_told_apart_by_their_checksums(run):
    scores = table(run, "01_scores").drop_duplicates("model").set_index("model")
    assert scores["checkpoint_sha256"].nunique() == len(LINEUP)
