"""Tables I to III as one frame and in print: against the functions it is made of, and by its structure."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from differences import differences
from test_evaluate_tables import make_pairs
from test_evaluate_tables_seeds import seeded_table

from humanclap import paper
from humanclap.evaluate import breakdown, holm, paper_table, render_table, write_table

B = 10_000
COLUMNS = (
    "model cell metric value low high n n_constant n_seeds seed_sd floor ceiling floor_name difference diff_low diff_high p "
    "p_holm floor_diff_low floor_diff_high mark family baseline n_resamples note"
)


@pytest.fixture(scope="module")
def scores():
    """Baseline, a good model of three seeds, a bad one, and one that never listens."""
    pairs = make_pairs(captions=60)
    rng = np.random.default_rng(4)
    bad = pairs.assign(model="b_a&d", clap_score=rng.uniform(size=len(pairs)))
    known = pairs.groupby("system")["target"].transform("mean")
    blind = pairs.assign(model="blind", clap_score=known + 1e-3 * rng.normal(size=len(pairs)))
    return pd.concat([seeded_table(pairs, noise=0.15), bad, blind], ignore_index=True)


@pytest.fixture(scope="module")
def ceilings():
    return pd.DataFrame({"cell": ["all", "natural"], "metric": "srcc", "ceiling": [0.9, 0.8], "other": 1})


@pytest.fixture(scope="module")
def table_2(scores, ceilings):
    return paper_table(scores, "system", "laion", floor="blind", ceilings=ceilings)


def test_every_number_is_that_of_the_function_for_it(scores, table_2):
    assert list(table_2.columns) == COLUMNS.split()
    heard = scores[scores["model"] != "blind"]
    keys = ["model", "cell", "metric"]
    found = table_2.set_index(keys)
    cells = breakdown(heard, by="system", n_resamples=B).set_index(keys)
    pd.testing.assert_frame_equal(found[list(cells.columns)], cells)
    gains = differences(heard, "laion", by="system", n_resamples=B, family="Table II", correct=True).set_index(keys)
    renamed = gains.rename(columns={"low": "diff_low", "high": "diff_high"})
    columns = ["difference", "diff_low", "diff_high", "p", "p_holm"]
    pd.testing.assert_frame_equal(found.loc[gains.index, columns], renamed[columns])
    assert found.loc["laion", columns].isna().all(axis=None)
    over = differences(scores, "blind", by="system", n_resamples=B).set_index(keys)
    ends = over.loc[found.index, ["low", "high"]].to_numpy()
    np.testing.assert_array_equal(found[["floor_diff_low", "floor_diff_high"]], ends)
    np.testing.assert_array_equal(found["floor"], over.loc[found.index, "baseline_value"])
    assert (found["family"] == "Table II").all() and (found["n_resamples"] == B).all()
    assert "within systems" in set(table_2["cell"]) and "blind" not in set(table_2["model"])
    np.testing.assert_array_equal(found["p_holm"], holm(found["p"]))


def test_a_floor_as_a_column_and_as_a_model_are_the_same(scores, table_2):
    blind = scores.loc[scores["model"] == "blind", ["audio", "text", "clap_score"]]
    beside = scores[scores["model"] != "blind"].merge(blind.rename(columns={"clap_score": "guess"}))
    found = paper_table(beside, "system", "laion", floor="guess")
    apart = ["ceiling", "floor_name"]
    pd.testing.assert_frame_equal(found.drop(columns=apart), table_2.drop(columns=apart))
    named = paper_table(beside.assign(guess_name="ridge"), "overall", "laion", "guess", n_resamples=20, correct=False)
    assert "† better than the floor (ridge), a predictor that never listens" in render_table(named, "markdown", "x")


def test_marks_say_better_worse_and_above_the_floor(scores):
    found = paper_table(scores, "overall", "laion", floor="blind").set_index(["model", "metric"])
    for (model, metric), row in found.iterrows():
        better = row["difference"] < 0 if metric == "mse" else row["difference"] > 0
        differs = row["p_holm"] < 0.05
        above = row["floor_diff_high"] < 0 if metric == "mse" else row["floor_diff_low"] > 0
        expected = ("*" if differs and better else "") + ("‡" if differs and not better else "") + "†" * above
        assert row["mark"] == expected, (model, metric)
    assert found.loc[("wsce+mae", "srcc"), "mark"] == "*†"
    assert found.loc[("b_a&d", "srcc"), "mark"] == "‡"  # random scores: worse than the baseline, not above the floor
    assert found.loc[("laion", "srcc"), "mark"] in ("", "†")
    smaller = scores[scores["model"].isin(["laion", "blind"])]
    mse = smaller[smaller["model"] == "laion"].assign(model="near", clap_score=lambda t: t["target"] + 0.01)
    found = paper_table(pd.concat([smaller, mse]), "overall", "laion", floor="blind", metrics="mse").set_index("model")
    assert found.loc["near", "difference"] < 0 and found.loc["near", "mark"] == "*†"


def test_without_correction_fewer_resamples_and_no_marks_of_difference(scores):
    found = paper_table(scores, "overall", "laion", floor="blind", n_resamples=50, correct=False)
    assert found["p_holm"].isna().all() and (found["family"] == "").all()
    assert set(found["mark"]) <= {"", "†"}
    assert "no correction for many comparisons was made" in render_table(found, "markdown", "synthetic")
    with pytest.raises(ValueError, match="too few for Holm's correction"):
        paper_table(scores, "overall", "laion", n_resamples=2000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "ms"}, "baseline 'ms' is not in the table. Available: laion"),
        ({"baseline": "laion", "floor": "deaf"}, "floor 'deaf' is neither a column nor a model.*Models: laion"),
        ({"baseline": "blind", "floor": "blind"}, "baseline 'blind' is not in the table"),
        (
            {"baseline": "laion", "ceilings": pd.DataFrame({"cell": ["all"] * 2, "metric": "srcc", "ceiling": 1.0})},
            "ceilings must have one row for each cell, metric",
        ),
    ],
)
def test_bad_arguments_are_named(scores, arguments, message):
    with pytest.raises(ValueError, match=message):
        paper_table(scores, **arguments)


def test_rows_are_models_then_floor_ceiling_and_n(table_2):
    names = {"wsce+mae": "wSCE + MAE", "all": "All"}
    text = render_table(paper.beside(table_2, "II"), "markdown", "synthetic", names=names)
    rows = [cells_of(line) for line in text.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == [
        "laion", "wSCE + MAE", r"b\_a&d", "floor (never listens)", "ceiling", "n"
    ]  # fmt: skip
    assert rows[0][1:] == list(dict.fromkeys(table_2["cell"].replace("all", "All")))
    row = table_2.set_index(["model", "cell"]).loc[("wsce+mae", "natural")]
    interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
    mark = row["mark"].replace("*", r"\*")
    assert (
        row["mark"] != "" and rows[3][1] == f"{row['value']:.3f} ± {row['seed_sd']:.3f}{mark} {interval} (paper 0.358)"
    )
    assert rows[2][1].endswith("(paper 0.201)") and "paper" not in rows[4][1]
    assert rows[6][1] == "0.800" and rows[7][1] == "60"
    one = render_table(table_2[table_2["cell"] == "all"], "markdown", "x")
    assert cells_of(next(line for line in one.splitlines() if line.startswith("|")))[1:] == ["SRCC"]


def test_the_notes_name_data_resamples_family_and_marks(table_2):
    marked = table_2.assign(n_constant=np.where(table_2["cell"] == "tango", 17, 0))
    notes = render_table(marked, "markdown", "synthetic")
    for part in (
        "Data: synthetic.", "95 % percentile bootstrap intervals over 10,000 resamples of captions",
        "means over 3 training seeds", "worse than laion: p \\< 0.05",
        "the 16 differences of this table (family: Table II)", "† better than the floor (blind)", "Ceiling:",
        "constant are left out: at most 17 (tango)",
    ):  # fmt: skip
        assert part in notes, part
    assert "means over" not in render_table(table_2.assign(n_seeds=1), "markdown", "x")


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_is_a_table(table_2):
    text = render_table(table_2.assign(model=table_2["model"].replace("laion", "a|b*c_d<e")), "markdown", "synthetic")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3 + 3  # head and rule, models, floor and ceiling and n
    assert {len(cells_of(line)) for line in lines} == {9}
    assert set(lines[1]) == {"|", "-", ":"}
    assert cells_of(lines[2])[0] == r"a\|b\*c\_d\<e"
    assert text.startswith("**Table II**\n\n|")


def test_latex_is_booktabs_with_everything_escaped(table_2):
    hard = table_2.assign(model=table_2["model"].replace("laion", r"50% a\b#{x}~^$<"))
    text = render_table(hard, "latex", "synthetic & more")
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 1
    order = [r"\caption{", r"\begin{tabular}{lcccccccc}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    inside = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
    rows = [line for line in inside if line.endswith(r"\\")]
    assert len(rows) == 1 + 3 + 3  # head, models, floor and ceiling and n
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {8}
    assert inside.count(r"\midrule") == 1
    assert r"50\% a\textbackslash{}b\#\{x\}\textasciitilde{}\textasciicircum{}\$\textless{}" in text
    assert r"b\_a\&d" in text and r"synthetic \& more" in text
    plain = re.sub(r"\\[a-zA-Z]+|\\.", "", text)
    assert plain.count("{") == plain.count("}")
    assert not re.search(r"[%#~^<>†‡±−–“”≤]", plain)  # nothing left that LaTeX reads as something else
    assert not any(row.lstrip("& ").startswith("[") for row in rows)


def test_write_table_writes_three_files(table_2, tmp_path):
    paths = write_table(table_2, tmp_path / "tables" / "04_table.2", "synthetic", names={"all": "All"})
    assert [path.name for path in paths] == ["04_table.2.csv", "04_table.2.md", "04_table.2.tex"]
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == sorted(path.name for path in paths)
    back = pd.read_csv(paths[0], keep_default_na=False, na_values=[""], dtype={"mark": str, "note": str})
    np.testing.assert_allclose(back["value"], table_2["value"], rtol=1e-5)
    assert (back["data"] == "synthetic").all()
    texts = [path.read_text(encoding="utf-8") for path in paths[1:]]
    for text, kind in zip(texts, ("markdown", "latex")):
        assert render_table(table_2, kind, "synthetic", names={"all": "All"}) == text
    assert render_table(pd.read_csv(paths[0]), "latex", "synthetic", names={"all": "All"}) == texts[1]
