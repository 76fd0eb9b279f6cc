"""The study: parameters, where data is found, folders of results, the models, pre-flight, windows and the runner."""

from __future__ import annotations

import importlib
import json

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
from clap_folders import save_clap, save_clips

from humanclap import study
from humanclap.losses import KINDS
from humanclap.study import __main__ as runner

preflight_module = importlib.import_module("humanclap.study.preflight")  # the package has a function of that name


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders for runs, data and the hub's cache, and neither ratings nor checkpoints named."""
    for name, folder in (("RUNS", "runs"), ("DATA", "data")):
        monkeypatch.setenv(f"HUMANCLAP_{name}", str(tmp_path / folder))
    for name in ("HUMANCLAP_RELATE", "HUMANCLAP_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


# --- parameters ---


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("max_anchor_mean", 11, "allowed is a number from 0 to 10"),
        ("max_anchor_mean", float("nan"), "allowed is a number"),
        ("n_resamples", 1000.0, "allowed is a whole number"),
        ("seed", 2**32, "from 0 to 4294967295"),
        ("seed", True, "allowed is a whole number"),
        ("rated_set", 3, 'allowed is text, a folder or a table of rated pairs, or "" for none'),
        ("scale", [5, 1], "allowed is the lowest and the highest rating, two numbers"),
        ("n_train", 0, "allowed is a whole number of pairs, or a share between 0 and 1"),
        ("learning_rate", 0, "allowed is a number above 0"),
        ("seeds", [], r"allowed is a list of different whole numbers of at least 0, as \[0, 1\]"),
        ("seeds", [0, 0], "list of different whole numbers"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(places, name, value, message):
    with pytest.raises(study.ParameterError, match=message) as error:
        study.open_study("demo", "02_relate_screening", **{name: value})
    assert f"{name}={value!r}" in str(error.value) and f"{'-y' if name in ('seeds', 'scale') else '-p'} " in str(
        error.value
    )
    assert error.value._render_traceback_() == [f"ParameterError: {error.value}"]


def test_unknown_names_list_the_known_ones(places):
    with pytest.raises(study.ParameterError, match="Available: demo, paper"):
        study.open_study("test", "02_relate_screening")
    with pytest.raises(study.ParameterError, match="no parameter 'threshold'. Available: profile, max_anchor_mean"):
        study.open_study("demo", "02_relate_screening", threshold=2)


@pytest.mark.parametrize("notebook, least", [("01", 10_000), ("02", 100), ("03", 10_000), ("04", 10_000), ("05", 100)])
def test_too_few_resamples_are_refused_at_once_where_holm_needs_more(places, notebook, least):
    assert study.open_study("demo", f"{notebook}_x", n_resamples=least)
    with pytest.raises(study.ParameterError, match=f"of at least {least}"):
        study.open_study("demo", f"{notebook}_x", n_resamples=least - 1)


# --- folders ---


def saved(run, value):
    run.save_table(pd.DataFrame({"value": [value]}), f"{run.notebook[:2]}_test", "synthetic")
    return run.folder


def test_a_run_by_hand_never_overwrites_the_profiles_results_nor_another_ones(places):
    demo, name = places / "runs" / "demo", "05_score_your_own_audio"
    (places / "mine").mkdir()
    usual = {"audio_folder": "", "n_resamples": 10_000}
    assert saved(study.open_study("demo", name, **usual), 1) == demo
    by_hand = [
        saved(study.open_study("demo", name, **{**usual, **changed}), value)
        for value, changed in enumerate(({"n_resamples": 500}, {"audio_folder": str(places / "mine")}), start=2)
    ]
    assert by_hand[0].parent == by_hand[1].parent == demo / "by-hand" and by_hand[1].name.startswith(
        "audio_folder=mine-"
    )
    folders = [demo, *by_hand]
    assert [pd.read_csv(folder / "tables/05_test.csv")["value"][0] for folder in folders] == [1, 2, 3]
    assert study.open_study("demo", name, **{**usual, "n_resamples": 500}).folder == by_hand[0]  # the same run again
    saved(study.open_study("demo", "01_x", n_crops=3), 4)  # another notebook's results are in nobody's way
    assert (demo / "tables" / "01_test.csv").is_file()
    assert study.open_study("demo", name, n_resamples=500).find("tables/01_test.csv") == demo / "tables" / "01_test.csv"


def test_results_by_hand_make_way_for_the_profiles_and_stay(places):
    demo, name = places / "runs" / "demo", "01_x"
    assert saved(study.open_study("demo", name, n_crops=3), 1) == demo  # nothing was there
    assert saved(study.open_study("demo", name, n_crops=10), 2) == demo
    assert pd.read_csv(demo / "tables" / "01_test.csv")["value"][0] == 2
    (kept,) = demo.glob("by-hand/n_crops=3-*/tables/01_test.csv")
    assert pd.read_csv(kept)["value"][0] == 1 and json.loads(kept.with_name("01_parameters.json").read_text())


def test_two_rated_sets_of_one_name_have_folders_of_their_own(places):
    folders = set()
    for place in ("a", "b"):
        (places / place).mkdir()
        (places / place / "ratings.csv").touch()
        for notebook in ("01_x", "04_x"):
            folders.add(study.open_study("demo", notebook, rated_set=str(places / place / "ratings.csv")).folder)
    assert len(folders) == 2 and all(folder.parent == places / "runs/demo/sets" for folder in folders)
    other = study.open_study("demo", "01_x", rated_set=str(places / "a" / "ratings.csv"), scale=[1, 5])
    assert other.folder not in folders and other.folder.name.startswith("ratings-scale=")


# --- results ---


def test_tables_and_figures_are_kept_by_name_and_labelled(places):
    from matplotlib.figure import Figure

    run = study.open_study("demo", "02_relate_screening")
    path = run.save_table(pd.DataFrame({"x": [1 / 3], "y": ["a"]}), "02_test", study.SYNTHETIC)
    assert path.read_bytes() == b"x,y,data\n0.333333,a,synthetic\n"
    assert {p.name for p in path.parent.iterdir()} == {"02_test.csv", "02_parameters.json"}
    figure = Figure()
    figure.subplots()
    picture = run.save_figure(figure, "test", study.SYNTHETIC)
    assert picture == places / "runs/demo/figures/02_test.png" and picture.read_bytes()[:4] == b"\x89PNG"
    assert [text.get_text() for text in figure.texts] == ["data: synthetic"]


def test_an_analysis_that_cannot_be_done_is_one_sentence_in_the_place_of_its_figure(places, capsys):
    nothing = pd.DataFrame(columns=["value"])
    nothing.attrs["note"] = "no system is known"
    run = study.open_study("demo", "04_breakdowns")
    assert run.figure("systems", "synthetic", lambda table: 1 / 0, nothing) is None
    assert capsys.readouterr().out == "no system is known\n" and not run.path("figures").exists()


def test_the_summary_shows_the_headlines_and_says_when_there_are_none(places):
    with pytest.raises(study.StudyError, match="run: make demo"):
        runner.summary("demo")
    run = study.open_study("demo", "02_relate_screening")
    run.save_table(pd.DataFrame({"what": ["pairs"], "here": [7]}), "02_relate_screening_headline", study.REAL)
    assert "pairs" in runner.summary("demo") and "02_relate_screening" in runner.summary("demo")


# --- where ratings are found ---


def test_named_ratings_are_used(places, monkeypatch, whole_relate_root):
    relate_root = whole_relate_root
    monkeypatch.setenv("HUMANCLAP_RELATE", str(relate_root))
    source = study.find_ratings()
    assert source.csv == relate_root / "scores" / "REL.csv" and source.label == "RELATE ratings"
    assert source.listeners_csv.is_file()


def test_ratings_are_labelled_by_what_they_are_not_by_where_they_lie(places, monkeypatch, relate_root):
    folder = places / "mine" / "scores"
    folder.mkdir(parents=True)
    published = (relate_root / "scores" / "REL.csv").read_bytes()
    (folder / "REL.csv").write_bytes(published)
    monkeypatch.setenv("HUMANCLAP_RELATE", str(folder.parent))
    assert study.find_ratings().label == "RELATE ratings"
    (folder / "REL.csv").write_bytes(published[:-200])
    assert study.find_ratings().label == "ratings of mine"
    (folder.parent / "synthetic.json").write_text("{}")
    assert study.find_ratings().label == "synthetic"


def test_the_readmes_figure_of_the_real_ratings_is_not_taken_from_another_run(places):
    run = study.open_study("demo", "02_relate_screening")
    run.save_table(pd.DataFrame({"value": [1]}), "02_floor_and_ceiling", study.SYNTHETIC)
    with pytest.raises(study.StudyError, match="on RELATE's real ratings"):
        runner.copy_figures("demo")


def test_a_folder_without_ratings_is_refused_rather_than_replaced(places, monkeypatch):
    monkeypatch.setenv("HUMANCLAP_RELATE", str(places))
    with pytest.raises(study.StudyError, match="scores/REL.csv is not in it"):
        study.find_ratings()


def test_a_fetched_copy_is_used_when_it_is_the_published_file(places, relate_root):
    copy = places / "data" / "relate" / "scores" / "REL.csv"
    copy.parent.mkdir(parents=True)
    copy.write_bytes((relate_root / "scores" / "REL.csv").read_bytes())
    source = study.find_ratings()
    assert (source.csv, source.listeners_csv, source.label) == (copy, None, "RELATE ratings")


def test_without_a_network_the_paper_profile_stops_with_the_way_by_hand(places):
    with pytest.raises(study.StudyError, match="set HUMANCLAP_RELATE to the folder above scores/"):
        study.find_ratings("paper")
    with pytest.raises(study.StudyError, match="set HUMANCLAP_RELATE to the folder above scores/"):
        study.prepare("paper")


def test_without_the_clips_the_paper_profile_counts_them_and_names_the_command(places, monkeypatch, relate_root):
    monkeypatch.setenv("HUMANCLAP_RELATE", str(relate_root))
    with pytest.raises(study.StudyError, match=r"[\d,]+ of [\d,]+ clips are not in .*humanclap fetch relate-audio"):
        study.prepare("paper")


# --- the models of a study ---


def test_the_paper_profile_names_the_published_models_and_opens_none(places, monkeypatch):
    monkeypatch.delenv("HUMANCLAP_CHECKPOINTS", raising=False)
    lineup = study.lineup("paper")
    assert lineup.names == ["laion-clapmodel", "laion-clap", "msclap-2022", "msclap-2023", "human-clap-released"]
    assert lineup.base == "laion-clapmodel" and lineup.released == ("human-clap-released",)
    assert "may belong to the earlier one" in lineup.note
    assert lineup["laion-clap"].clap == "laion-fusion" and lineup["laion-clap"].checkpoint is None
    with pytest.raises(study.StudyError, match="no model 'laion' in this study. Available: laion-clapmodel"):
        lineup["laion"]


def test_own_checkpoints_take_the_place_of_published_ones_and_the_note_says_so(places, monkeypatch):
    monkeypatch.setenv("HUMANCLAP_CHECKPOINTS", str(places))
    with pytest.raises(study.StudyError, match="none of laion-clapmodel, laion-clap.pt"):
        study.lineup("paper")
    (places / "laion-clapmodel").mkdir()
    (places / "msclap-2023.pth").touch()
    lineup = study.lineup("paper")
    assert lineup.note.startswith("NOT the published weights for laion-clapmodel, msclap-2023")
    assert lineup["laion-clapmodel"].clap == str(places / "laion-clapmodel")
    assert (lineup["msclap-2023"].clap, lineup["msclap-2023"].checkpoint) == ("msclap-2023", places / "msclap-2023.pth")
    assert lineup["msclap-2022"].checkpoint is None


def test_an_override_that_no_notebook_has_is_refused_before_anything_runs(places):
    with pytest.raises(study.StudyError, match="no notebook has the parameter epoch. Available: .*epochs"):
        runner.run_notebooks("demo", ["03"], {"epoch": 3})
    assert not (places / "runs").exists()


def test_without_a_network_the_demo_takes_the_corpus_and_says_so(places, monkeypatch):
    from humanclap import demo

    def small(root, seed):  # the real corpus takes longer; what counts here is what is said of it
        return make(root, seed=seed, n_train_captions=12, n_test_captions=12)

    make = demo.make_corpus
    monkeypatch.setattr(demo, "make_corpus", small)
    source = study.find_ratings("demo")
    assert source.label == "synthetic" and source.csv.is_file()
    assert "could not be fetched" in source.note and "says nothing about real audio" in source.note


@pytest.fixture
def plain_set(tmp_path):
    """A plain CSV of 12 single-rated pairs with clips beside it, no systems and no anchors."""
    folder = tmp_path / "mine"
    (folder / "clips").mkdir(parents=True)
    rows = []
    for i in range(12):
        soundfile.write(folder / f"clips/{i}.wav", np.random.default_rng(i).normal(0, 0.1, 16_000), 16_000)
        rows.append((f"clips/{i}.wav", f"sound number {i}", i % 11))
    pd.DataFrame(rows, columns=["audio", "text", "rating"]).to_csv(folder / "rated.csv", index=False)
    return folder / "rated.csv"


def test_a_rated_set_takes_the_place_of_the_corpus_and_says_what_it_lacks(places, plain_set):
    corpus = study.prepare("demo", rated_set=str(plain_set))
    data = corpus.rated(2.0)
    assert (len(data.train), len(data.test), data.screening, data.blind()) == (0, 12, None, None)
    assert data.anchors.empty and "no system known" in str(data) and "no anchors" in str(data)
    assert corpus.label == "ratings of rated" and (corpus.audio_root / data.test["audio"][0]).is_file()


def test_relate_itself_is_screened_and_split(places, monkeypatch, relate_root, real_ratings):
    source = study.Corpus(relate_root / "scores" / "REL.csv", None, study.REAL, "", relate_root / "RELATE_wave")
    data = source.rated(2.0)
    assert (len(data.train), len(data.test)) == (2_892, 2_892) and data.limits == ()
    assert len(data.test_ratings) == 9_903 and len(data.anchors) == real_ratings["is_anchor"].sum()
    assert data.blind().corr(data.test["target"], method="spearman") == pytest.approx(0.475, abs=2e-3)
    assert data.blind().name == "ridge on caption and system"


def test_pairs_known_by_their_means_alone_are_the_same_pairs():
    pairs = pd.DataFrame({"audio": ["a", "b"], "text": ["x", "y"], "n_ratings": [float("nan")] * 2})
    study.same_pairs(pairs.assign(model="m"), pairs)
    with pytest.raises(study.StudyError, match="1 missing"):
        study.same_pairs(pairs.head(1).assign(model="m"), pairs)


def test_what_is_missing_comes_with_the_command_that_fetches_it(places, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(places / "hub"))
    check = study.preflight("paper", study.lineup("paper"))
    assert set(check.missing["command"]) - {""} == {
        f"humanclap fetch {name}" for name in ("relate", "relate-audio", "laion", "msclap", "human-clap")
    }
    with pytest.raises(study.StudyError, match="this run can't start:") as error:
        check.require()
    for name in ("scores/REL.csv", "CLAP_weights_2022.pth", "630k-audioset-fusion-best.pt", "humanclap fetch msclap"):
        assert name in str(error.value)


def test_files_of_ones_own_are_taken_as_they_are(places, monkeypatch):
    folder = places / "mine"
    (folder / "scores").mkdir(parents=True)
    (folder / "scores" / "REL.csv").touch()
    for name in ("laion-clapmodel", "human-clap-released"):
        (places / "own" / name).mkdir(parents=True)
    for name in ("laion-clap.pt", "msclap-2022.pth", "msclap-2023.pth"):
        (places / "own" / name).touch()
    monkeypatch.setenv("HUMANCLAP_RELATE", str(folder))
    monkeypatch.setenv("HUMANCLAP_CHECKPOINTS", str(places / "own"))
    check = study.preflight("paper", study.lineup("paper"))
    assert check.missing["need"].tolist() == ["RELATE_wave"]
    assert check.missing["command"].tolist() == ["humanclap fetch relate-audio"]


def test_a_small_disk_stops_the_run_and_says_how_to_go_on(places, monkeypatch):
    usage = type("Usage", (), {"free": 10**9})
    monkeypatch.setattr(preflight_module.shutil, "disk_usage", lambda folder: usage)
    lineup = study.Lineup({}, "none", "")
    check = study.preflight("paper", lineup)
    row = check.table.set_index("need").loc["disk"]
    assert row["state"] == "too small" and "HUMANCLAP_RUNS" in row["command"]
    demo = study.preflight("demo", lineup)
    assert demo.missing.empty and "estimate" not in str(demo) and "estimate" in str(check)


def test_the_estimate_grows_with_the_work_and_falls_with_the_speed(places, monkeypatch):
    lineup, hours = study.Lineup({}, "none", ""), []
    for rate, epochs, seeds in ((1e12, 50, 1), (1e12, 100, 1), (1e12, 50, 3), (2e12, 50, 1)):
        monkeypatch.setattr(preflight_module, "_matrix_rate", lambda device, rate=rate: rate)
        hours.append(study.preflight("paper", lineup, epochs=epochs, seeds=seeds).hours)
    assert hours[0] < hours[1] < hours[2] and hours[3] == pytest.approx(hours[0] / 2)
    # by hand: 5 losses x 50 epochs x 1,925 pairs x 0.05 TFLOP, and ten models that score 5,784 pairs twice
    flop = 5 * 50 * 1925 * 0.05e12 + 10 * 2 * 5784 * 15.2e9
    assert hours[0] == pytest.approx(flop / (0.35 * 1e12) / 3600)


def test_the_effect_of_a_window_by_hand():
    clips = study.LongClips(["a", "b", "c"], ["x", "y", "z"], np.array([0.1, 0.5, 0.9]), "3 clips")
    scores = pd.DataFrame({"first": [0.1, 0.2, 0.3], "center": [0.2, 0.3, 0.4], "mean": [0.3, 0.2, 0.1]})
    scores = scores.assign(**{"crop 1": [0.1, 0.2, 0.3], "crop 2": [0.3, 0.2, 0.1]})
    effect = study.window_effect(scores, clips).set_index("policy")
    assert effect["srcc"].tolist() == [1, 1, -1, 0]
    assert effect.loc["random crop", ["srcc_low", "srcc_high", "draws", "n"]].tolist() == [-1, 1, 2, 3]
    assert effect["moved"].tolist() == pytest.approx([0, 0.1, 0.4 / 3, 0.4 / 3])
    unrated = study.LongClips(clips.paths, clips.texts, None, "")
    assert study.window_effect(scores, unrated)["srcc"].isna().all()


def test_checkpoints_are_found_by_loss_and_seed_in_their_order(places):
    run = study.open_study("demo", "04_breakdowns")
    with pytest.raises(study.StudyError, match="no checkpoint of wsce.mse, .*03_human_clap_finetuning"):
        study.checkpoints(run)
    for kind in KINDS:
        for seed in (0, 2, 10):
            run.path(f"human-clap/{kind}/seed{seed}/model").mkdir(parents=True)
    found = study.checkpoints(run)
    assert list(found) == [(kind, seed) for kind in KINDS for seed in (0, 2, 10)]
    other = study.open_study("demo", "04_breakdowns", rated_set="ratings.csv")
    assert study.checkpoints(other) == found  # those of the profile, wherever the tables go


@pytest.mark.parametrize("limit_bytes, reads", [(10**9, 6), (0, 12)])
def test_shared_features_are_made_once_and_change_no_score(tmp_path, monkeypatch, limit_bytes, reads):
    from humanclap import load_clap, score_pairs
    from humanclap.clap.huggingface import HuggingFaceClap
    from humanclap.study.models import with_shared_features

    tiny_clap_folder, clips = save_clap(tmp_path / "tiny"), save_clips(tmp_path / "clips")
    texts = [f"sound number {i}" for i in range(len(clips))]
    alone = score_pairs(load_clap(tiny_clap_folder), clips, texts, progress=False)
    calls, own = [], HuggingFaceClap.audio_features
    monkeypatch.setattr(HuggingFaceClap, "audio_features", lambda clap, paths: calls.append(paths) or own(clap, paths))
    shared: dict = {}
    for _ in range(2):  # two checkpoints with one front end
        scores = score_pairs(
            with_shared_features(load_clap(tiny_clap_folder), shared, limit_bytes), clips, texts, progress=False
        )
        assert (scores["status"] == "ok").all()
        np.testing.assert_allclose(scores["cosine"], alone["cosine"], atol=1e-6)
    assert len(calls) == reads


def test_the_blind_guess_becomes_a_model_with_one_row_a_pair():
    scores = pd.DataFrame({"model": ["m", "m", "b"], "training_seed": [0, 1, np.nan], "audio": "a", "text": "t"})
    scores = scores.assign(clap_score=[0.1, 0.2, 0.3], cosine=[0.1, 0.2, 0.3], blind=0.7)
    guess = study.with_blind(scores).query("model == 'blind'")
    assert guess["clap_score"].tolist() == [0.7] and guess[["training_seed", "cosine"]].isna().all(axis=None)
    assert study.with_blind(scores.drop(columns="blind")).equals(scores.drop(columns="blind"))


@pytest.fixture
def small_notebooks(tmp_path, monkeypatch):
    """Two notebooks in the place of the project's: 01 writes a table, 02 fails with a StudyError."""
    folder = tmp_path / "notebooks"
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "demo.yaml").write_text("profile: demo\nseed: 3\n", encoding="utf-8")
    begin = "from humanclap import study\nimport pandas as pd"
    save = (
        "run = study.open_study(profile, '01_writes', seed=seed, n_crops=n_crops)\n"
        "run.save_table(pd.DataFrame({'value': [seed, float(n_crops), None]}), '01_headline', 'synthetic')"
    )
    fail = "raise study.StudyError('no clips: bring them')"
    contents = {
        "01_writes": ("profile = 'demo'\nseed = 0\nn_crops = 10", begin, save),
        "02_fails": ("profile = 'demo'", begin, fail),
    }
    for name, sources in contents.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        notebook.cells[0].metadata["tags"] = ["parameters"]
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    monkeypatch.setattr(runner, "NOTEBOOKS", folder)
    monkeypatch.setattr("humanclap.study.run.NOTEBOOKS", folder)
    return folder


def test_the_runner_hands_each_notebook_what_it_has_and_logs_its_time(places, small_notebooks, capsys):
    log = runner.run_notebooks("demo", ["01"], {"n_crops": 20})
    assert log["notebook"].tolist() == ["01"] and (log["seconds"] >= 0).all()
    table = pd.read_csv(places / "runs/demo/tables/01_headline.csv")
    assert table["value"].tolist()[:2] == [3, 20]  # the profile's seed, and the override
    assert (places / "runs/demo/01_writes.ipynb").is_file() and "== 01_writes" in capsys.readouterr().out


def test_a_failing_notebook_ends_in_its_message_and_loses_nothing_before_it(places, small_notebooks, capsys):
    assert runner._main(["run", "demo"]) == 1
    said = capsys.readouterr()
    assert "StudyError: no clips: bring them" in said.err and "Traceback" not in said.err
    assert (places / "runs/demo/log.csv").is_file() and (places / "runs/demo/tables/01_headline.csv").is_file()
