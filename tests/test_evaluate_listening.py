"""The table of controls: against scipy, the single functions and loops; seeds, gaps and broken input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from humanclap.evaluate import ResamplePlan, anchor_auc, listening_table, swap_captions
from humanclap.evaluate.listening import CONTROLS
from humanclap.evaluate.weighted import WeightedPartialSrcc

SETTINGS = {"n_resamples": 60, "seed": 4}


def score_of(heard: pd.Series, rng: np.random.Generator) -> np.ndarray:
    return np.round(0.1 * heard + 0.3 * rng.random(len(heard)), 2)


@pytest.fixture(scope="module")
def study():
    """60 captions × 3 clips. "listens" hears whether clip and caption go together, "clip" looks at the clip alone."""
    rng = np.random.default_rng(8)
    rows = [
        (f"{folder}/test/{i}.wav", f"{'word ' * (i % 7)}caption {i}", system)
        for i in range(60)
        for folder, system in (("audiocaps", "natural"), ("tango", "tango"), ("tango2", "tango2"))
    ]
    pairs = pd.DataFrame(rows, columns=["audio", "text", "system"])
    quality = dict(zip(pairs["audio"], rng.uniform(0, 1, len(pairs)), strict=True))
    pairs["target"] = pairs["audio"].map(quality)
    swapped = swap_captions(pairs, seed=1)
    natural = pairs[pairs["system"] == "natural"]
    anchors = pd.DataFrame({"audio": natural["audio"], "text": np.roll(natural["text"], 5)})
    elsewhere = pd.DataFrame({"audio": [f"audiocaps/test/x{i}.wav" for i in range(7)], "text": "caption of nothing"})
    anchors = pd.concat([anchors, elsewhere], ignore_index=True)

    def scored(table, model, matches, seed=np.nan):
        clip = table["audio"].map(quality).fillna(0.5)
        return table.assign(model=model, training_seed=seed, clap_score=score_of(3 * clip + 4 * matches, rng))

    tables = {"scores": [], "swapped": [], "anchors": []}
    for name, table in (("scores", pairs), ("swapped", swapped), ("anchors", anchors)):
        for seed in (0, 1):
            hears = table.get("target", 0) * 2 if name == "scores" else 0
            tables[name].append(scored(table, "listens", hears, seed))
        tables[name].append(scored(table, "clip", 0))
    tables["scores"].append(pairs.assign(model="blind", clap_score=(pairs["system"] == "tango") * 0.3))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


@pytest.fixture(scope="module")
def table(study):
    return listening_table(**study, **SETTINGS)


def runs_of(study, name, model):
    rows = study[name][study[name]["model"] == model]
    return [run for _, run in rows.groupby("training_seed", dropna=False)]


def test_values_are_those_of_scipy_and_of_the_single_functions(study, table):
    found = table.set_index(["model", "control"])["value"]
    for model in ("listens", "clip"):
        expected = {control: [] for control in CONTROLS}
        for run, away, anchors in zip(*(runs_of(study, name, model) for name in study), strict=True):
            away = run[["audio", "text"]].merge(
                away.drop(columns="text"), left_on=["audio", "text"], right_on=["audio", "original_text"]
            )
            words = run["text"].str.split().str.len()
            true = spearmanr(run["clap_score"], run["target"]).statistic
            lost = spearmanr(away["clap_score"], run["target"]).statistic
            own = (run["system"] == "natural").to_numpy()
            mine, theirs = run["clap_score"][own].to_numpy(), away["clap_score"][own].to_numpy()
            clips = dict(zip(run["audio"], run["clap_score"], strict=True))
            known = anchors[anchors["audio"].isin(clips)]
            same = known["audio"].map(clips) - known["clap_score"]
            statistic = WeightedPartialSrcc(run["clap_score"], run["target"], [words], run["system"])
            partial = statistic(np.ones((len(run), 1)))[0, 0]
            values = [
                true,
                partial,
                partial,
                lost,
                true - lost,
                anchor_auc(mine, theirs, n_resamples=1).auc,
                ((mine > theirs) + (mine == theirs) / 2).mean(),
                anchor_auc(mine, anchors["clap_score"], n_resamples=1).auc,
                ((same > 0) + (same == 0) / 2).mean(),
            ]
            for control, value in zip(CONTROLS, values, strict=True):
                expected[control].append(value)
        for control in CONTROLS:  # no temporal word in these captions: both partial correlations are one
            assert found[model, control] == pytest.approx(np.mean(expected[control]), abs=1e-12), control


def test_intervals_are_the_loops_over_resamples(study, table):
    """The drop and the AUC of the model with two seeds: both averaged within each resample."""
    first, second = runs_of(study, "scores", "listens")
    away = [
        first[["audio", "text"]].merge(run, left_on=["audio", "text"], right_on=["audio", "original_text"])
        for run in runs_of(study, "swapped", "listens")
    ]
    plan = ResamplePlan.draw(first["text"], 60, seed=4)
    target, own = first["target"].to_numpy(), (first["system"] == "natural").to_numpy()
    drops, aucs = [], []
    for resample in range(60):
        rows = plan.indices(resample)
        drop, auc = [], []
        for here, there in zip((first, second), away, strict=True):
            here, there = (part["clap_score"].to_numpy()[rows] for part in (here, there))
            drop.append(spearmanr(here, target[rows]).statistic - spearmanr(there, target[rows]).statistic)
            auc.append(anchor_auc(here[own[rows]], there[own[rows]], n_resamples=1).auc)
        drops.append(np.mean(drop))
        aucs.append(np.mean(auc))
    found = table[table["model"] == "listens"].set_index("control")[["low", "high"]]
    assert tuple(found.loc[CONTROLS[4]]) == pytest.approx(tuple(np.quantile(drops, [0.025, 0.975])), abs=1e-12)
    assert tuple(found.loc[CONTROLS[5]]) == pytest.approx(tuple(np.quantile(aucs, [0.025, 0.975])), abs=1e-12)


def test_seeds_and_gaps_are_told(table):
    found = table.set_index(["model", "control"])
    assert (found.loc["listens", "n_seeds"] == 2).all() and found.loc["listens", "seed_sd"].notna().all()
    assert (found.loc["clip", "n_seeds"] == 1).all() and found.loc["clip", "seed_sd"].isna().all()
    for control in CONTROLS[3:]:
        row = found.loc[("blind", control)]
        assert row["note"] == "not scored with these captions" and np.isnan(row["value"]) and row["n"] == 0
    row = found.loc[("blind", CONTROLS[1])]
    assert row["note"].startswith("undefined") and np.isnan([row["value"], row["low"], row["high"]]).all()
    assert row["n_undefined"] == 60
    assert found.loc[("clip", CONTROLS[7]), "note"] == "60 own captions, 67 anchors"
    assert found.loc[("clip", CONTROLS[8]), "n"] == 60
    assert found.loc[("clip", CONTROLS[8]), "note"].startswith("7 of 67 anchors left out")


def test_the_order_of_the_rows_changes_nothing(study, table):
    shuffled = {name: rows.sample(frac=1, random_state=2) for name, rows in study.items()}
    again = listening_table(**shuffled, **SETTINGS)
    key = ["model", "control"]
    pd.testing.assert_frame_equal(
        again.sort_values(key, ignore_index=True), table.sort_values(key, ignore_index=True), rtol=0, atol=1e-12
    )


def test_without_systems_or_the_other_tables(study):
    bare = study["scores"].query("model == 'clip'").drop(columns=["system", "training_seed"])
    found = listening_table(bare, **SETTINGS)
    assert tuple(found["control"]) == CONTROLS[:3]
    assert found["note"].tolist() == ["", *["no system known: given the caption only"] * 2]
    other = study["swapped"].query("model == 'clip'").drop(columns="system")
    found = listening_table(bare, other, **SETTINGS).set_index("control")
    assert found.loc[CONTROLS[5], "n"] == 180  # no system known: all pairs are the matched ones


def test_too_few_pairs_and_ties_are_marked_cells(study):
    scores = study["scores"].query("model == 'clip'")
    found = listening_table(scores.iloc[1:4], **SETTINGS)
    assert found["value"].isna().all() and (found["note"] == "fewer than 4 pairs").all()
    anchors = study["anchors"].query("model == 'clip'")
    found = listening_table(scores, anchors=anchors[anchors["text"] == "caption of nothing"], **SETTINGS)
    row = found.set_index("control").loc[CONTROLS[8]]
    assert row["n"] == 0 and np.isnan(row["value"]) and row["note"].startswith("7 of 7 anchors left out")
    flat = {name: rows.query("model == 'clip'").assign(clap_score=0.5) for name, rows in study.items()}
    found = listening_table(**flat, **SETTINGS).set_index("control")
    assert found["value"].iloc[:5].isna().all() and found["note"].iloc[:5].str.startswith("undefined").all()
    assert (found["value"].iloc[5:] == 0.5).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": lambda t: t[t["training_seed"] != 1]}, "in one of them only: listens, seed 1"),
        ({"swapped": lambda t: t[t["system"] != "tango"]}, "it lacks 60 of 180 and has 120"),
        ({"swapped": lambda t: t.assign(target=1 - t["target"])}, "targets of swapped"),
    ],
)
def test_bad_input_is_named(study, changes, message):
    broken = {name: changes.get(name, lambda t: t)(table) for name, table in study.items()}
    with pytest.raises(ValueError, match=message):
        listening_table(**broken, **SETTINGS)
