"""`humanclap evaluate` and `judge`: any tool's scores against ratings, joined with an account, judged as scipy does."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from humanclap import evaluate, relate
from humanclap.cli import main
from humanclap.judge import NEVER_LISTENS, judge, relate_label
from humanclap.tables import TableError

FEW = {"n_resamples": 200}


@pytest.fixture(scope="module")
def rel(relate_root):
    return relate_root / "scores" / "REL.csv"


@pytest.fixture(scope="module")
def pairs(real_ratings):
    return relate.aggregate_pairs(relate.screen_listeners(real_ratings).ratings)


@pytest.fixture(scope="module")
def test_pairs(pairs):
    return pairs[pairs["split"] == "test"].reset_index(drop=True)


@pytest.fixture
def plain(tmp_path):
    """A plain CSV of 40 rated pairs, 20 captions, without systems and splits, and a score that follows the ratings."""
    rng = np.random.default_rng(0)
    ratings = pd.DataFrame(
        {"audio": [f"clips/{i:02d}.wav" for i in range(40)], "text": [f"sound {i // 2}" for i in range(40)]}
    )
    ratings["rating"] = rng.integers(0, 11, 40)
    ratings.to_csv(tmp_path / "ratings.csv", index=False)
    scores = ratings.assign(score=(ratings["rating"] + rng.normal(0, 2, 40)).round(6)).drop(columns="rating")
    scores.to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path, ratings, scores


def value(found, metric, model="mine", column="value"):
    return found.overall.set_index(["model", "metric"]).loc[(model, metric), column]


def test_a_submission_on_rel_csv_equals_scipy(rel, pairs, tmp_path):
    rng = np.random.default_rng(1)
    made = pairs.assign(score=rng.random(len(pairs)).round(3))  # train and test pairs, with ties
    made[["audio", "text", "score"]].to_csv(tmp_path / "mine.csv", index=False)
    found = judge([tmp_path / "mine.csv"], rel, **FEW)
    test = made[made["split"] == "test"]
    assert value(found, "srcc") == pytest.approx(stats.spearmanr(test["score"], test["target"])[0], abs=1e-12)
    assert value(found, "lcc") == pytest.approx(stats.pearsonr(test["score"], test["target"])[0], abs=1e-12)
    assert value(found, "ktau") == pytest.approx(stats.kendalltau(test["score"], test["target"])[0], abs=1e-12)
    assert value(found, "mse") == pytest.approx(((test["score"] - test["target"]) ** 2).mean(), abs=1e-12)
    assert "5,784 rows; 2,892 of test pairs; 2,892 of train pairs, not judged" in " ".join(found.notes)
    assert "253 removed" in found.notes[0]  # by the paper's rule, and said
    assert 0.4 < value(found, "srcc", column="floor") < value(found, "srcc", column="ceiling") < 0.85


def test_a_blind_guess_has_not_shown_that_it_listens(rel, pairs, test_pairs, tmp_path):
    guess = evaluate.strongest_blind(pairs[pairs["split"] == "train"], test_pairs).predictions
    test_pairs[["audio", "text"]].assign(score=guess).to_csv(tmp_path / "guess.csv", index=False)
    test_pairs[["audio", "text"]].assign(score=test_pairs["target"]).to_csv(tmp_path / "people.csv", index=False)
    found = judge({"guess": tmp_path / "guess.csv", "people": tmp_path / "people.csv"}, rel, **FEW)
    said = dict(line.split(":", 1) for line in found.verdicts())
    assert NEVER_LISTENS in said["guess"] and "above the floor" in said["people"]
    assert value(found, "srcc", "guess") == pytest.approx(value(found, "srcc", "guess", "floor"))
    assert value(found, "srcc", "people", "difference") > 0.4  # from the first score, the baseline
    assert set(found.by_system["cell"]) >= {"natural", "tango2", "within systems"}


def test_clips_are_found_by_their_ends_and_what_does_not_join_is_counted(plain):
    folder, ratings, scores = plain
    other = pd.DataFrame({
        "path": [f"/data/{name}" for name in scores["audio"][:20]] + [f"{i:02d}" for i in range(20, 38)] + ["new.wav", "./clips/39.wav"],
        "similarity": [*scores["score"][:38], 1.0, np.nan],
    })  # fmt: skip
    other.to_csv(folder / "other.tsv", index=False, sep="\t")
    found = judge([folder / "other.tsv"], folder / "ratings.csv", **FEW)
    assert found.unscored == 1
    assert "40 rows; 38 of test pairs; 1 without a score; 1 of clips that nobody rated" in " ".join(found.notes)
    direct = stats.spearmanr(scores["score"][:38], ratings["rating"][:38])[0]
    assert value(found, "srcc", "other") == pytest.approx(direct, abs=1e-12)
    both = judge({"a": folder / "scores.csv", "b": folder / "other.tsv"}, folder / "ratings.csv", **FEW)
    assert value(both, "srcc", "a") == value(both, "srcc", "b") and value(both, "srcc", "a", "n") == 38
    assert "2 pairs left out, which not every score has" in both.notes


@pytest.mark.parametrize("change, says", [
    ({"text": "file"}, "no column of scores. It has audio, file, other; known: clap_score"),
    ({"audio": ["x/00.wav", "y/00.wav"]}, None),
    ({"score": ["high"]}, "line 2, column 'score': 'high' is not allowed; a score is a number"),
    ({"audio": ["clips/01.wav"], "text": ["sound 0"]}, "line 3: clips/01.wav with 'sound 0' has another score in a line above"),
])  # fmt: skip
def test_what_can_not_be_joined_is_refused_with_its_line(plain, change, says):
    folder, _, scores = plain
    if says is None:  # two rated clips have the name
        ratings = pd.DataFrame(
            {"audio": ["x/00.wav", "y/00.wav", "z.wav"], "text": ["a", "b", "c"], "rating": [1, 2, 3]}
        )
        ratings.to_csv(folder / "ratings.csv", index=False)
        says = "line 2: clips/00.wav fits 2 rated clips, such as x/00.wav, y/00.wav"
    elif isinstance(change.get("text"), str):
        scores = scores.rename(columns={"text": "file", "score": "other"})
    else:
        scores = scores.astype(object)
        for column, values in change.items():
            scores.loc[: len(values) - 1, column] = values
    scores.to_csv(folder / "scores.csv", index=False)
    with pytest.raises(TableError) as error:
        judge([folder / "scores.csv"], folder / "ratings.csv", **FEW)
    assert says in str(error.value)


def test_without_a_split_the_floor_is_cross_fitted_and_means_have_no_ceiling(plain):
    folder, ratings, _ = plain
    found = judge({"mine": folder / "scores.csv"}, folder / "ratings.csv", **FEW)
    assert any("each fifth of the captions from the other four" in note for note in found.notes)
    assert found.by_system is None and "nothing within systems" in " ".join(found.notes)
    means = ratings.rename(columns={"rating": "mean_rating"})
    means.to_csv(folder / "means.csv", index=False)
    again = judge({"mine": folder / "scores.csv"}, folder / "means.csv", **FEW)
    assert value(again, "srcc") == value(found, "srcc") and np.isnan(value(again, "srcc", column="ceiling"))
    assert "no ceiling: single ratings are not known" in again.notes


def test_swapped_captions_are_a_control(plain):
    folder, ratings, _ = plain
    wrong = evaluate.swap_captions(ratings).drop(columns=["original_text", "rating"])
    wrong.assign(score=np.random.default_rng(2).random(40)).to_csv(folder / "swapped.csv", index=False)
    found = judge({"mine": folder / "scores.csv"}, folder / "ratings.csv", swapped=folder / "swapped.csv", **FEW)
    controls = found.listening.set_index("control")["value"]
    assert controls["SRCC, swapped captions"] < controls["SRCC"] - 0.3
    with pytest.raises(TableError, match="must hold one score of each of the 40 judged clips"):
        wrong.head(5).assign(score=0.5).to_csv(folder / "few.csv", index=False)
        judge({"mine": folder / "scores.csv"}, folder / "ratings.csv", swapped=folder / "few.csv", **FEW)


def test_the_command_writes_every_format_and_says_what_it_found(plain, capsys):
    folder, _, _ = plain
    command = ["evaluate", f"llm={folder / 'scores.csv'}", str(folder / "ratings.csv"), "--resamples", "200"]
    assert main([*command, "--out", str(folder / "judged")]) == 0
    said = capsys.readouterr().out
    assert "llm: SRCC" in said and "40 of test pairs" in said
    names = {path.name for path in (folder / "judged").iterdir()}
    assert {"overall.csv", "overall.md", "overall.tex", "listening.csv", "summary.json"} <= names
    summary = json.loads((folder / "judged" / "summary.json").read_text())
    assert summary["scores"]["llm"]["srcc"]["n"] == 40 and summary["verdicts"][0] in said
    assert main(["evaluate", str(folder / "ratings.csv")]) == 2
    assert "two tables are needed" in capsys.readouterr().err
    assert main([*command, "--baseline", "clap"]) == 2
    assert "baseline must be" in capsys.readouterr().err.replace("\n", " ")


def test_rows_whose_status_is_not_ok_have_no_score(plain, capsys):
    folder, ratings, scores = plain
    status = ["file not found", *["ok"] * 39]
    scores.assign(status=status).to_csv(
        folder / "scores.csv", index=False
    )  # the number of a row that failed is no score
    found = judge({"mine": folder / "scores.csv"}, folder / "ratings.csv", **FEW)
    assert found.unscored == 1 and value(found, "srcc", column="n") == 39
    assert main(["evaluate", str(folder / "scores.csv"), str(folder / "ratings.csv"), "--resamples", "100"]) == 1
    assert "1 without a score" in capsys.readouterr().out


def test_tables_of_one_name_are_refused_and_a_path_may_hold_an_equals_sign(plain, capsys):
    folder, _, scores = plain
    (folder / "n=3").mkdir()
    scores.to_csv(folder / "n=3" / "scores.csv", index=False)
    with pytest.raises(TableError, match="two score tables are called 'scores'"):
        judge([folder / "scores.csv", folder / "n=3" / "scores.csv"], folder / "ratings.csv", **FEW)
    command = [
        "evaluate",
        str(folder / "scores.csv"),
        f"llm={folder / 'n=3' / 'scores.csv'}",
        str(folder / "ratings.csv"),
    ]
    assert main([*command, "--resamples", "100"]) == 0
    assert "\nllm: SRCC" in capsys.readouterr().out


def test_synthetic_ratings_are_called_synthetic(plain, relate_root, tmp_path):
    folder, ratings, _ = plain
    ratings.rename(columns={"rating": "mean_rating"}).assign(data="synthetic").to_csv(folder / "means.csv", index=False)
    assert (
        judge({"mine": folder / "scores.csv"}, folder / "means.csv", **FEW).label == "mean ratings of means (synthetic)"
    )
    assert relate_label(relate_root / "scores" / "REL.csv") == "RELATE ratings"
    (tmp_path / "corpus" / "scores").mkdir(parents=True)
    csv = tmp_path / "corpus" / "scores" / "REL.csv"
    csv.write_text("wavname\n")
    assert relate_label(csv) == "ratings of corpus"
    (tmp_path / "corpus" / "synthetic.json").write_text("{}")
    assert relate_label(csv) == "synthetic"
