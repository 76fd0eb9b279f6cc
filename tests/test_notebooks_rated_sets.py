"""Notebooks 01 and 04 run on other rated sets as they are, and say what these cannot be broken down by."""

from __future__ import annotations

import shutil

import nbformat
import pandas as pd
import pytest
from test_notebooks import PROJECT, papermill

from humanclap import relate
from humanclap.losses import KINDS

pytestmark = pytest.mark.slow
N_PAIRS = 60


@pytest.fixture(scope="module")
def runs(tmp_path_factory, demo_runs):
    """The demo's corpus and stand-ins, and stand-ins in the place of notebook 03's checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(demo_runs, folder, dirs_exist_ok=True)
    standin = next((folder / "demo" / "claps-seed0").glob("laion-standin"))
    for kind in KINDS:
        shutil.copytree(standin, folder / "demo" / "human-clap" / kind / "seed0" / "model")
    (folder / "demo" / "tables").mkdir(exist_ok=True)
    choice = pd.DataFrame({"model": KINDS, "training_seed": 0, "chosen": [kind == "wsce+mae" for kind in KINDS]})
    choice.to_csv(folder / "demo" / "tables" / "03_choice.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def rated(runs):
    """Test ratings of the synthetic corpus, N_PAIRS pairs, and the folder of their clips."""
    root = runs / "demo" / "corpus-seed0"
    ratings = relate.load_ratings(root / "scores" / "REL.csv")
    ratings = ratings[~ratings["is_anchor"] & (ratings["split"] == "test")]
    wanted = ratings["text"].drop_duplicates().head(N_PAIRS // 3)
    return ratings[ratings["text"].isin(wanted)], root / "RELATE_wave"


def plain(rated, folder):
    """A plain CSV beside its clips: single ratings with their listeners, no systems."""
    ratings, clips = rated
    shutil.copytree(clips, folder / "clips")
    table = ratings.assign(audio="clips/" + ratings["audio"])[["audio", "text", "rating", "listener"]]
    table.to_csv(folder / "mine.csv", index=False)
    return folder / "mine.csv"


def xacle(rated, folder):
    """XACLE's validation means, in the spelling of its files."""
    ratings, clips = rated
    means = ratings.groupby(["audio", "text"], as_index=False)["rating"].mean()
    means["wave_file_name"] = means["audio"].str.replace("/", "_")
    (folder / "meta_data").mkdir()
    (folder / "wav" / "validation").mkdir(parents=True)
    for row in means.itertuples():
        shutil.copy(clips / row.audio, folder / "wav" / "validation" / row.wave_file_name)
    means = means.rename(columns={"rating": "average_semantic_alignement_score"})
    columns = ["wave_file_name", "text", "average_semantic_alignement_score"]
    means[columns].to_csv(folder / "meta_data" / "validation_average.csv", index=False)
    return folder


@pytest.mark.parametrize("make, said", [(plain, "no anchors"), (xacle, "means without their listeners")])
def test_notebooks_01_and_04_run_on_another_rated_set(runs, rated, tmp_path, make, said):
    path = make(rated, tmp_path)
    for name in ("01_baseline_clapscore", "04_breakdowns"):
        done = papermill(PROJECT / "notebooks" / f"{name}.ipynb", runs, "-p", "rated_set", path)
        assert done.returncode == 0, done.stderr[-3000:]
        cells = nbformat.read(runs / "executed.ipynb", as_version=4).cells
        outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
        printed = "".join(output.get("text", "") for output in outputs)
        assert said in printed and "no system known" in printed
    (tables,) = runs.glob(f"demo/sets/{path.stem}-*/tables")
    table = pd.read_csv(tables / "04_table_2.csv")
    everything = table[table["cell"] == "all"]
    assert set(everything["model"]) >= {*KINDS, "laion-standin"} and everything["value"].notna().all()
    assert table.loc[table["cell"] == "natural", "note"].str.contains("no system known").all()
    assert everything["ceiling"].notna().all() == (make is plain)
    assert "synthetic" not in set(table["data"])
