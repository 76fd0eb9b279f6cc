"""Other rated sets: XACLE's files in both spellings and plain CSVs become RELATE's columns, or say what is wrong."""

from __future__ import annotations

import csv
import statistics

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy import stats

from humanclap import evaluate, relate
from humanclap.judge import judge
from humanclap.rated_sets import RatedSetError, load_rated_set

AS_DESCRIBED = ("wave_file_name", "11-point semantic-alignment score", "average_semantic_alignement_score")
AS_ITS_CODE_READS = ("wav_file_name", "score", "average_score")
WORDS = ("dog", "train", "bell", "rain", "horn", "saw")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(1600), 16_000)


def write(path, header, rows, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=how.pop("encoding", "utf-8")) as file:
        csv.writer(file, **how).writerows([header, *rows])
    return path


def xacle(root, spelling=AS_DESCRIBED, average=(), single=("train", "validation"), n_clips=8, seed=0):
    """XACLE's tree with three listeners a pair; returns the rows of each split as (name, text, rating, listener)."""
    rng = np.random.default_rng(seed)
    rows = {}
    for split in dict.fromkeys(("train", "validation", *single)):
        rows[split] = []
        for clip in range(n_clips):
            touch(root / "wav" / split / f"{clip:05d}.wav")
            text = f"A {WORDS[clip % 6]}, then a {WORDS[(clip + 1) % 6]} {split}"
            rows[split] += [(f"{clip:05d}.wav", text, int(rng.integers(11)), f"0{who}") for who in range(3)]
        if split in single:
            write(root / "meta_data" / f"{split}.csv", (spelling[0], "text", spelling[1], "listener_id"), rows[split])
        if split in average:
            means = {}
            for name, text, rating, _ in rows[split]:
                means.setdefault((name, text), []).append(rating)
            means = [(*pair, statistics.mean(values)) for pair, values in means.items()]
            write(root / "meta_data" / f"{split}_average.csv", (spelling[0], "text", spelling[2]), means)
    return rows


def plain(folder, header="audio,text,rating", rows=("a.wav,A dog barks,7", "b.wav,Rain,2"), clips=("a", "b"), name="x"):
    for clip in clips:
        touch(folder / f"{clip}.wav")
    path = folder / f"{name}.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


# --- XACLE ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", [AS_DESCRIBED, AS_ITS_CODE_READS], ids=["described", "baseline code"])
def test_xacles_ratings_become_relates_columns(tmp_path, spelling):
    rows = xacle(tmp_path, spelling)
    found = load_rated_set(tmp_path)
    assert found.label == "XACLE ratings" and found.audio_root == tmp_path / "wav"
    expected = [
        (f"{split}/{name}", text, rating, who, split_here)
        for split, split_here in (("train", "train"), ("validation", "test"))
        for name, text, rating, who in rows[split]
    ]
    kept = found.ratings[["audio", "text", "rating", "listener", "split"]]
    assert list(kept.itertuples(index=False, name=None)) == expected
    assert found.ratings["rating"].dtype.kind == "i" and not found.ratings["is_anchor"].any()
    assert found.ratings["system"].isna().all() and (found.ratings["relate_split"] == "").all()
    assert all((found.audio_root / audio).is_file() for audio in found.pairs["audio"])


@pytest.mark.parametrize("spelling", [AS_DESCRIBED, AS_ITS_CODE_READS], ids=["described", "baseline code"])
def test_averages_give_the_same_means_and_no_ratings(tmp_path, spelling):
    both = ("train", "validation")
    xacle(tmp_path / "single")
    xacle(tmp_path / "mean", spelling, average=both, single=())
    single, mean = load_rated_set(tmp_path / "single"), load_rated_set(tmp_path / "mean")
    assert mean.ratings is None and mean.pairs["n_ratings"].isna().all()
    same = ["audio", "text", "split", "mean_rating", "target"]
    pd.testing.assert_frame_equal(mean.pairs[same], single.pairs[same])
    assert any("no ceiling" in sentence for sentence in mean.what_cannot_be_broken_down)
    assert not any("no ceiling" in sentence for sentence in single.what_cannot_be_broken_down)


def test_single_ratings_are_preferred_and_a_split_of_means_is_named(tmp_path):
    xacle(tmp_path / "both", average=("train", "validation"))
    assert len(load_rated_set(tmp_path / "both").ratings) == 48
    xacle(tmp_path / "mixed", average=("validation",), single=("train",))
    mixed = load_rated_set(tmp_path / "mixed")
    assert set(mixed.ratings["split"]) == {"train"} and len(mixed.pairs) == 16
    assert mixed.pairs["n_ratings"].isna().sum() == 8
    assert any(sentence.startswith("the test pairs are means") for sentence in mixed.what_cannot_be_broken_down)


def test_one_file_of_xacle_and_one_with_another_name(tmp_path):
    xacle(tmp_path, average=("train",))
    one = load_rated_set(tmp_path / "meta_data" / "validation.csv")
    assert set(one.pairs["split"]) == {"test"} and one.audio_root == tmp_path / "wav"
    assert load_rated_set(tmp_path / "meta_data" / "train_average.csv").ratings is None
    renamed = (tmp_path / "meta_data" / "validation.csv").rename(tmp_path / "meta_data" / "mine.csv")
    with pytest.raises(RatedSetError, match="mine.csv: XACLE's files are called train, validation.*rename it"):
        load_rated_set(renamed)


def test_xacles_three_splits_stay_apart_and_model_id_is_the_system(tmp_path):
    rows = xacle(tmp_path, AS_ITS_CODE_READS, single=("train", "validation", "test"))
    for split in rows:
        path = tmp_path / "meta_data" / f"{split}.csv"
        table = pd.read_csv(path, dtype=str)
        table.assign(model_id=[f"tta{int(name[:5]) % 2}" for name in table["wav_file_name"]]).to_csv(path, index=False)
    found = load_rated_set(tmp_path)
    assert found.pairs["split"].value_counts().to_dict() == {"train": 8, "validation": 8, "test": 8}
    assert set(found.pairs["system"]) == {"tta0", "tta1"} and not found.notes
    only_two = xacle(tmp_path / "two")
    assert "XACLE's test set is not here: its validation set is called test" in load_rated_set(tmp_path / "two").notes
    submission = pd.DataFrame(
        {"wav_file_name": [f"{i:05d}.wav" for i in range(8)], "prediction_score": np.arange(8) / 8}
    )
    submission.to_csv(tmp_path / "submission.csv", index=False)
    judged = judge([tmp_path / "submission.csv"], tmp_path, n_resamples=100)
    target = found.pairs[found.pairs["split"] == "test"].sort_values("audio")["target"]
    value = judged.overall.set_index("metric").loc["srcc", "value"]
    assert value == pytest.approx(stats.spearmanr(submission["prediction_score"], target)[0], abs=1e-12)
    assert judged.by_system is not None and len(only_two) == 2


# --- plain ----------------------------------------------------------------------------------------------

FULL = "audio,text,rating,listener,system,split"
FULL_ROWS = (
    "a.wav,A dog barks,7,ann,natural,train",
    "a.wav,A dog barks,4,bob,natural,train",
    "b.wav,Rain,2,ann,mine,test",
)


def test_a_full_csv_keeps_listener_system_and_split(tmp_path):
    found = load_rated_set(plain(tmp_path, FULL, FULL_ROWS))
    assert found.label == "ratings of x" and found.audio_root == tmp_path
    assert found.ratings["listener"].tolist() == ["ann", "bob", "ann"]
    pairs = found.pairs.set_index("audio")
    assert pairs["system"].to_dict() == {"a.wav": "natural", "b.wav": "mine"}
    assert pairs["split"].to_dict() == {"a.wav": "train", "b.wav": "test"}
    assert pairs["mean_rating"].to_dict() == {"a.wav": 5.5, "b.wav": 2.0}
    assert len(found.what_cannot_be_broken_down) == 1 and "no anchors" in found.what_cannot_be_broken_down[0]


def test_one_line_a_pair_without_listeners_is_a_mean(tmp_path):
    found = load_rated_set(plain(tmp_path, rows=("a.wav,A dog barks,7.25", "b.wav,Rain,2")))
    assert found.ratings is None and found.pairs["mean_rating"].tolist() == [7.25, 2.0]
    assert set(found.pairs["split"]) == {"test"} and found.pairs["system"].isna().all()
    said = " ".join(found.what_cannot_be_broken_down)
    for part in ("no system known", "no anchors", "no ceiling", "no training pairs"):
        assert part in said


def test_several_lines_a_pair_without_listeners_are_ratings_of_people_unknown(tmp_path):
    rows = ("a.wav,A dog barks,7", "a.wav,A dog barks,7", "b.wav,Rain,2")
    found = load_rated_set(plain(tmp_path, rows=rows))
    assert found.pairs["n_ratings"].tolist() == [2, 1] and len(found.ratings) == 3
    assert any("no listeners named" in sentence for sentence in found.what_cannot_be_broken_down)


def test_another_scale_is_mapped_linearly_and_said(tmp_path):
    path = plain(tmp_path, rows=("a.wav,A dog barks,4", "b.wav,Rain,1"))
    found = load_rated_set(path, scale=(1, 5))
    assert found.pairs["mean_rating"].tolist() == [7.5, 0.0] and found.pairs["target"].tolist() == [0.75, 0.0]
    assert any("from 1 to 5 were mapped onto 0 to 10" in note for note in found.notes)
    assert any("no rating is above 4 (the lowest is 1)" in note for note in load_rated_set(path).notes)


def test_case_and_spaces_of_a_column_do_not_matter_and_one_that_is_not_read_is_named(tmp_path):
    rows = ("a.wav,A dog barks,7,good", "b.wav,Rain,2,bad")
    found = load_rated_set(plain(tmp_path, "Audio, Text ,RATING,mood", rows))
    assert found.pairs["mean_rating"].tolist() == [7, 2]
    assert "columns not read: mood" in found.notes


def test_clips_that_are_not_there_are_counted(tmp_path):
    path = plain(tmp_path, clips=("a",))
    with pytest.raises(RatedSetError, match=r"1 of 2 clips are not in .*first is b.wav.*audio_root"):
        load_rated_set(path)
    touch(tmp_path / "elsewhere" / "a.wav")
    touch(tmp_path / "elsewhere" / "b.wav")
    assert load_rated_set(path, audio_root=tmp_path / "elsewhere").audio_root == tmp_path / "elsewhere"


BAD = {
    "no text": ("audio,rating", ("a.wav,7",), r"line 1: no column for text: text\. It has 'audio', 'rating'"),
    "no audio": ("clip,text,rating", ("a.wav,A dog,7",), "no column for the clips. It has 'clip', 'text', .*needed"),
    "two kinds of rating": ("wav_file_name,text,score,average_score", ("a,b,1,1",), "both hold ratings; keep the"),
    "xacle, no listener": ("wav_file_name,text,score", ("a.wav,b,1",), "no column for listener: listener_id"),
    "above the scale": (FULL, ("a.wav,A dog,11,ann,x,test",), r"line 2, column 'rating': '11'.*from 0 to 10.*scale="),
    "no number": (FULL, ("a.wav,A dog,good,ann,x,test",), "'good' is not allowed; a rating is a number"),
    "overflow": (FULL, ("a.wav,A dog,1e999,ann,x,test",), "'1e999' is not allowed"),
    "no rating there": (FULL, ("a.wav,A dog,,ann,x,test",), "'' is not allowed; a rating is a number"),
    "empty path": (FULL, (",A dog,7,ann,x,test",), "column 'audio'.*a file name must not be empty"),
    "backslashes": (FULL, (r"clips\a.wav,A dog,7,ann,x,test",), "must be relative"),
    "a path that escapes": (FULL, ("x/../../a.wav,A dog,7,ann,x,test",), "stay below"),
    "a listener missing": (FULL, ("a.wav,A dog,7,,x,test",), "column 'listener'.*name the listener in every line"),
    "two systems": (FULL, (FULL_ROWS[0], "a.wav,A dog,7,ann,mine,train"), "of 'mine' here and of 'natural' before"),
    "two splits": (FULL, (FULL_ROWS[0], "a.wav,A dog,7,ann,natural,test"), "a clip has one split"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_the_place_and_what_is_allowed(tmp_path, case):
    header, rows, message = BAD[case]
    path = plain(tmp_path, header, rows)
    with pytest.raises(RatedSetError, match=message) as error:
        load_rated_set(path)
    assert str(path) in str(error.value)


def test_a_mean_twice_and_duplicates_counted(tmp_path):
    header = ("wav_file_name", "text", "average_score")
    write(tmp_path / "meta_data" / "train_average.csv", header, [("a.wav", "b", 1)] * 3)
    with pytest.raises(RatedSetError, match="line 3: there is a mean for a.wav.* already on line 2.*2 duplicated"):
        load_rated_set(tmp_path)


# --- what the evaluation makes of them ------------------------------------------------------------------


def with_scores(pairs, seed=0):
    rng = np.random.default_rng(seed)
    models = {"good": pairs["target"] + rng.normal(0, 0.1, len(pairs)), "noise": rng.uniform(size=len(pairs))}
    return pd.concat([pairs.assign(model=name, clap_score=score) for name, score in models.items()], ignore_index=True)


@pytest.mark.parametrize("means", [False, True], ids=["single ratings", "means"])
def test_every_analysis_runs_or_says_what_it_lacks(tmp_path, means):
    both = ("train", "validation")
    xacle(tmp_path, n_clips=12, average=both if means else (), single=() if means else both)
    found = load_rated_set(tmp_path)
    train, test = (found.pairs[found.pairs["split"] == split].reset_index(drop=True) for split in ("train", "test"))
    scores, settings = with_scores(test), {"n_resamples": 100, "seed": 0}
    for by in evaluate.inputs.BREAKDOWNS:
        table = evaluate.breakdown(scores, by=by, **settings)
        assert (table["value"].notna() | (table["note"] != "")).all(), by  # no cell is empty without a word
    for by in ("overall", "system", "score_range"):
        table = evaluate.paper_table(scores, by, "noise", correct=False, **settings)
        assert (table["value"].notna() | (table["note"] != "")).all(), by
    swapped = with_scores(evaluate.swap_captions(test), seed=1)
    listening = evaluate.listening_table(scores, swapped, **settings)
    assert "no system known: given the caption only" in set(listening["note"])
    assert len(evaluate.calibrate(with_scores(train), scores, **settings)) == 6  # two models, three maps
    for analysis in (evaluate.system_means, evaluate.preferences):
        with pytest.raises(ValueError, match="names no system"):
            analysis(scores, **settings)
    if means:
        for analysis in (evaluate.cell_ceilings, evaluate.human_ceiling, evaluate.ceiling_table):
            with pytest.raises(TypeError, match="these are no ratings: a set that holds only means"):
                analysis(found.ratings)
    else:
        ceilings = evaluate.cell_ceilings(found.ratings, by="system", n_resamples=0)
        assert (ceilings["ceiling"].notna() | (ceilings["note"] != "")).all()


def test_floor_ceiling_and_split_run_on_them(tmp_path):
    xacle(tmp_path, n_clips=12)
    found = load_rated_set(tmp_path)
    train, test = (found.pairs[found.pairs["split"] == split] for split in ("train", "test"))
    floors = evaluate.blind_baselines(train, test)
    assert set(floors["predictor"]) == {"constant", "words", "words+temporal", "ridge on caption"} and set(
        floors["subset"]
    ) == {"all"}
    ceiling = evaluate.human_ceiling(found.ratings[found.ratings["split"] == "test"], n_resamples=50)
    assert ceiling.n_pairs == 12 and ceiling.n_ratings == 36 and 0 <= ceiling.reliability <= 1
    assert evaluate.ceiling_table(found.ratings, n_resamples=0)["subset"].tolist() == ["all"]
    some, others = relate.split_train_validation(found.pairs, n_train=0.5)
    assert len(some) + len(others) == 12 and not set(some["text"]) & set(others["text"])
    with pytest.raises(ValueError, match="have no anchor ratings, so they cannot be screened"):
        relate.screen_listeners(found.ratings)


def test_single_ratings_have_no_ceiling_and_the_set_says_so(tmp_path):
    rows = ("a.wav,A dog barks,7,ann", "b.wav,Rain,2,ann")
    found = load_rated_set(plain(tmp_path, "audio,text,rating,listener", rows))
    assert any("every pair has a single rating" in sentence for sentence in found.what_cannot_be_broken_down)
    with pytest.raises(ValueError, match="none of the 2 pairs has 2 ratings"):
        evaluate.human_ceiling(found.ratings)


def test_the_real_ratings_through_a_plain_csv_are_the_same_pairs(tmp_path, real_ratings):
    """RELATE's own non-anchor ratings, written as a plain CSV and read again, average to the same pairs."""
    own = real_ratings[~real_ratings["is_anchor"]]
    own = own[own["audio"].isin(own["audio"].unique()[::50])]
    for audio in own["audio"].unique():
        (tmp_path / audio).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / audio).touch()
    own[["audio", "text", "rating", "listener", "system", "split"]].to_csv(tmp_path / "relate.csv", index=False)
    found = load_rated_set(tmp_path / "relate.csv")
    pd.testing.assert_frame_equal(found.pairs, relate.aggregate_pairs(own))
    assert len(found.ratings) == len(own) > 300 and len(found.what_cannot_be_broken_down) == 1
