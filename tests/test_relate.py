"""RELATE's ratings: the published counts exactly, hand-made cases, and every kind of bad file."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pandas as pd
import pytest

from humanclap import relate
from humanclap.relate.pairs import published_ratings

HEADER = "wavname,text,score,listener_id,audio type,anchor label,in RELATE dataset,in AudioCaps"
LINE = "/tango/test/1.wav,A dog barks,8,0007,tango,False,test,test"
ANCHOR = "/audiocaps/train/2.wav,A bell rings,1,0007,natural,True,excluded,"


def write(folder, *lines, header=HEADER):
    path = folder / "REL.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def make(rows, **columns):
    """Ratings from (audio, text, rating, listener, is_anchor) tuples, past the loader."""
    table = pd.DataFrame(rows, columns=["audio", "text", "rating", "listener", "is_anchor"])
    table["system"] = table["audio"].str.split("/").str[0].map({"audiocaps": "natural"}).fillna("tango")
    table["split"] = table["audio"].str.split("/").str[1]
    table["relate_split"] = ""
    return table.assign(**columns)


# --- the real files ---


def test_the_file_has_the_published_size(real_ratings):
    assert len(real_ratings) == 28_770
    assert real_ratings["listener"].nunique() == 1_370
    assert real_ratings["is_anchor"].sum() == 4_110
    assert set(real_ratings["system"]) == set(relate.SYSTEMS)
    assert real_ratings["rating"].between(0, 10).all() and real_ratings["rating"].dtype.kind == "i"
    assert "0000" in set(real_ratings["listener"])  # ids are text: their zeros stay
    assert not real_ratings["audio"].str.startswith("/").any()


def test_the_loader_reads_what_a_plain_csv_reader_reads(real_ratings, relate_root):
    with (relate_root / "scores" / "REL.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["wavname"] for row in rows] == ("/" + real_ratings["audio"]).tolist()
    assert [int(row["score"]) for row in rows] == real_ratings["rating"].tolist()
    assert [row["anchor label"] == "True" for row in rows] == real_ratings["is_anchor"].tolist()
    assert [row["in RELATE dataset"] for row in rows] == real_ratings["relate_split"].tolist()
    # the folder agrees with RELATE's own split, wherever that is given
    given = [(row["in AudioCaps"], split) for row, split in zip(rows, real_ratings["split"]) if row["in AudioCaps"]]
    assert given and all(a == b for a, b in given)


def test_the_papers_rule_gives_the_documented_counts(real_ratings):
    screening = relate.screen_listeners(real_ratings, max_anchor_mean=2.0)
    assert (len(screening.kept), len(screening.removed)) == (1_117, 1_370 - 1_117)
    counts = screening.counts()
    assert counts.loc["train", ["ratings", "pairs"]].tolist() == [10_203, 2_892]
    assert counts.loc["test", ["ratings", "pairs"]].tolist() == [9_903, 2_892]
    pairs = relate.aggregate_pairs(screening.ratings)
    assert pairs.groupby("split").size().to_dict() == {"train": 2_892, "test": 2_892}
    assert pairs["n_ratings"].sum() == 20_106
    assert pairs["n_ratings"].mean() == pytest.approx(3.5, abs=0.05)


def test_relates_own_screening_gives_the_published_counts(real_ratings):
    used = published_ratings(real_ratings)
    train = used["relate_split"] == "train"
    assert (train.sum(), (~train).sum()) == (9_963, 7_797)
    assert (used[train]["listener"].nunique(), used[~train]["listener"].nunique()) == (1_085, 873)
    pairs = relate.published_pairs(real_ratings)
    assert (pairs["relate_split"] == "train").sum() == 2_862
    assert pairs["relate_split"].isin(["validation", "test"]).sum() == 2_598
    # and it is a listener rule: mean anchor rating below 2 for train, below 1 for test
    means = relate.anchor_means(real_ratings)
    ours = real_ratings[~real_ratings["is_anchor"]]
    limit = ours["split"].map({"train": 2, "test": 1})
    assert (ours["listener"].map(means) < limit).sum() == len(used)


@pytest.mark.parametrize("name", ["IS", "OS"])
def test_the_other_two_files_load_with_the_same_function(whole_relate_root, name):
    ratings = relate.load_ratings(whole_relate_root / "scores" / f"{name}.csv")
    assert len(ratings) == 28_833
    assert set(ratings["relate_split"]) == {""}
    assert len(relate.aggregate_pairs(relate.screen_listeners(ratings).ratings)) > 5_000
    with pytest.raises(ValueError, match="REL.csv only"):
        relate.published_pairs(ratings)


def test_the_questionnaire_loads_in_words(whole_relate_root, real_ratings):
    listeners = relate.load_listeners(whole_relate_root / "listener_attributes" / "REL.csv")
    assert set(listeners["listener"]) == set(real_ratings["listener"])
    assert listeners["device"].value_counts().to_dict() == {"headphones": 754, "earphones": 548, "other": 68}
    assert listeners["age"].cat.ordered
    assert len(relate.load_listeners(whole_relate_root / "listener_attributes" / "IS_and_OS.csv")) == 1_373


# --- a bad file ---

BAD = {
    "rating 4.5": (LINE.replace(",8,", ",4.5,"), "'4.5' is not allowed"),
    "rating full-width": (LINE.replace(",8,", ",８,"), "'８' is not allowed"),
    "test clip in train": (LINE.replace("False,test", "False,train"), "'train' for the clip tango/test/1.wav"),
    "line break in a path": (LINE.replace("/tango/test/1.wav", '"/tango/test/1\n.wav"'), "line break"),
    "path absolute": (LINE.replace("/tango/test", "//tango/test"), "must stay below RELATE_wave"),
    "path backslash": (
        LINE.replace("/tango/test/1.wav", r"\tango\test\1.wav"),
        "must stay below RELATE_wave",
    ),
    "split unknown": (LINE.replace("/test/", "/dev/"), "train/test"),
    "no folder": (LINE.replace("/tango/test/", ""), "/<system>/<split>/<file>"),
    "split of RELATE": (LINE.replace("False,test", "False,dev"), "column 'in RELATE dataset': 'dev'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named_with_what_is_allowed(tmp_path, case):
    line, message = BAD[case]
    path = write(tmp_path, ANCHOR, line)
    with pytest.raises(relate.RatingsError, match=message) as error:
        relate.load_ratings(path)
    assert f"{path}, line {4 if case == 'line break in a path' else 3}" in str(error.value)


def test_a_pair_in_two_of_relates_splits_is_refused_but_excluded_beside_one_is_not(tmp_path):
    other = LINE.replace("0007", "0008")
    with pytest.raises(relate.RatingsError, match="line 3.*is in test and validation"):
        relate.load_ratings(write(tmp_path, LINE, other.replace("False,test", "False,validation")))
    assert len(relate.load_ratings(write(tmp_path, LINE, other.replace("False,test", "False,excluded")))) == 2


def test_values_in_other_spellings_are_read_as_what_they_are(tmp_path):
    line = LINE.replace(",8,", ",8.0,").replace("False", "FALSE").replace("A dog barks", " A dog barks ")
    path = write(tmp_path, "", line, "  ", ",,,,,,,", ANCHOR)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    ratings = relate.load_ratings(path)
    assert ratings["rating"].tolist() == [8, 1] and ratings["is_anchor"].tolist() == [False, True]
    assert ratings["text"].tolist() == ["A dog barks", "A bell rings"]


# --- wrong tables -----------------------------------------------------------------------------------------------------


def test_anchors_are_dropped_whatever_the_type_of_the_column(real_ratings):
    objects = real_ratings.assign(is_anchor=real_ratings["is_anchor"].astype(object))
    assert len(relate.screen_listeners(objects).ratings) == 20_106
    with pytest.raises(ValueError, match="is_anchor holds 'False'; allowed: True and False"):
        relate.screen_listeners(real_ratings.assign(is_anchor="False"))
    with pytest.raises(ValueError, match="28770 of 28770 rows have no is_anchor"):
        relate.screen_listeners(real_ratings.assign(is_anchor=None))


def test_a_filtered_categorical_column_invents_no_pairs_and_no_listeners(real_ratings):
    some = real_ratings[real_ratings["listener"].isin(["0000", "0001", "0002"])]
    categories = some.assign(
        **{name: some[name].astype("category") for name in ("system", "listener", "audio", "text")}
    )
    screening = relate.screen_listeners(categories)
    assert len(screening.kept) + len(screening.removed) == 3
    expected = relate.aggregate_pairs(relate.screen_listeners(some).ratings)
    assert len(relate.aggregate_pairs(screening.ratings)) == len(expected)


@pytest.mark.parametrize("column", ["text", "rating"])
def test_empty_cells_and_missing_columns_are_named_not_dropped(real_ratings, column):
    left = relate.screen_listeners(real_ratings).ratings.head(100)
    with pytest.raises(ValueError, match=f"3 of 100 rows have no {column}"):
        relate.aggregate_pairs(left.assign(**{column: left[column].where(left.index > 2)}))
    with pytest.raises(ValueError, match=f"ratings has no column {column}"):
        relate.aggregate_pairs(left.drop(columns=column))


def test_nothing_that_is_passed_in_is_changed(real_ratings):
    before = real_ratings.copy()
    screening = relate.screen_listeners(real_ratings)
    pairs = relate.aggregate_pairs(screening.ratings)
    kept = pairs.copy()
    relate.split_train_validation(pairs)
    relate.published_pairs(real_ratings)
    pd.testing.assert_frame_equal(real_ratings, before)
    pd.testing.assert_frame_equal(pairs, kept)


# --- screening ---


def test_screening_by_hand():
    rows = [("audiocaps/test/1.wav", "x", 9, who, False) for who in "abc"]
    rows += [("tango/train/9.wav", "y", rating, who, True) for who, rating in zip("abc", (2, 3, 0))]
    rows += [("tango/train/8.wav", "y", rating, who, True) for who, rating in zip("abc", (2, 2, 0))]
    ratings = make(rows)
    screening = relate.screen_listeners(ratings)  # means 2, 2.5, 0: a mean of exactly 2 stays
    assert (screening.kept, screening.removed) == (("a", "c"), ("b",))
    assert screening.ratings["listener"].tolist() == ["a", "c"]
    assert not screening.ratings["is_anchor"].any()
    assert relate.screen_listeners(ratings, 10).removed == ()
    assert relate.screen_listeners(ratings, 0).kept == ("c",)


@pytest.mark.parametrize("limit", [-0.1, 10.1, float("nan"), "2"])
def test_a_threshold_off_the_scale_is_refused(limit):
    with pytest.raises(ValueError, match="must be a number from 0 to 10"):
        relate.screen_listeners(make([("tango/test/1.wav", "x", 1, "a", True)]), limit)


# --- pairs ---


def test_pairs_by_hand():
    rows = [("tango/test/1.wav", "x", r, who, False) for who, r in zip("abc", (2, 4, 9))]
    rows += [("audiocaps/train/1.wav", "x", 7, "a", False)]
    pairs = relate.aggregate_pairs(make(rows))
    assert pairs["audio"].tolist() == ["audiocaps/train/1.wav", "tango/test/1.wav"]
    assert pairs["n_ratings"].tolist() == [1, 3]
    assert pairs["mean_rating"].tolist() == [7, 5]
    assert pairs["target"].tolist() == [0.7, 0.5]
    assert np.isnan(pairs["rating_std"][0])
    assert pairs["rating_std"][1] == pytest.approx(13**0.5)
    shuffled = relate.aggregate_pairs(make(rows[::-1]))
    pd.testing.assert_frame_equal(pairs, shuffled)


# --- training and validation ---


@pytest.fixture(scope="module")
def real_pairs(real_ratings):
    return relate.aggregate_pairs(relate.screen_listeners(real_ratings).ratings)


def test_a_split_by_caption_shares_no_caption_and_reaches_the_nearest_number(real_pairs):
    train, validation = relate.split_train_validation(real_pairs, n_train=1925)
    assert (len(train), len(validation)) == (1926, 966)  # three clips per caption: the nearest multiple of 3
    assert not set(train["text"]) & set(validation["text"])
    assert set(train["split"]) | set(validation["split"]) == {"train"}


def test_a_split_by_pair_takes_exactly_that_many(real_pairs):
    train, validation = relate.split_train_validation(real_pairs, n_train=1925, by="pair")
    assert (len(train), len(validation)) == (1925, 967)
    both = pd.concat([train, validation])
    assert not both.duplicated(["audio", "text"]).any()
    again, _ = relate.split_train_validation(real_pairs, n_train=1925, by="pair")
    pd.testing.assert_frame_equal(train, again)
    other, _ = relate.split_train_validation(real_pairs, n_train=1925, by="pair", seed=1)
    assert set(other["audio"]) != set(train["audio"])


def test_the_nearest_number_is_that_of_a_search_over_all_subsets():
    rng = np.random.default_rng(5)
    for sizes in ([2, 4, 7], [3, 3, 5, 8], [1, 9, 9], *rng.integers(1, 9, (6, 7)).tolist()):
        pairs = pd.DataFrame({"text": np.repeat([f"t{i}" for i in range(len(sizes))], sizes)})
        subsets = {sum(s) for k in range(1, len(sizes)) for s in itertools.combinations(sizes, k)}
        for wanted in range(1, len(pairs)):
            train, validation = relate.split_train_validation(pairs, n_train=wanted, seed=wanted)
            assert abs(len(train) - wanted) == min(abs(s - wanted) for s in subsets)
            assert len(train) + len(validation) == len(pairs) and not set(train["text"]) & set(validation["text"])


def test_a_fraction_and_a_table_without_splits():
    pairs = pd.DataFrame({"text": [f"t{i // 2}" for i in range(20)]})
    train, validation = relate.split_train_validation(pairs, n_train=0.7)
    assert (len(train), len(validation)) == (14, 6)


@pytest.mark.parametrize("n_train", [0, 20, 3.5, "many", True, float("nan")])
def test_a_number_that_leaves_nothing_is_refused(n_train):
    pairs = pd.DataFrame({"text": [f"t{i}" for i in range(20)]})
    with pytest.raises(ValueError, match="n_train"):
        relate.split_train_validation(pairs, n_train=n_train)
