"""Parameters, where data is found, how results are kept, and the one download."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pandas as pd
import pytest

from humanclap import download, study


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders for runs and data, and no ratings named."""
    monkeypatch.setenv("HUMANCLAP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HUMANCLAP_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("HUMANCLAP_RELATE", raising=False)
    return tmp_path


# --- parameters ---


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("max_anchor_mean", 11, "allowed is a number from 0 to 10"),
        ("max_anchor_mean", "two", "allowed is a number from 0 to 10"),
        ("max_anchor_mean", float("nan"), "allowed is a number"),
        ("n_resamples", 0, "allowed is a whole number of at least 100"),
        ("n_resamples", 1000.5, "allowed is a whole number"),
        ("seed", -1, "allowed is a whole number of at least 0"),
        ("seed", True, "allowed is a whole number"),
        ("epochs", None, "allowed is a whole number of at least 1"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(places, name, value, message):
    with pytest.raises(study.ParameterError, match=message) as error:
        study.open_study("demo", "02_relate_screening", **{name: value})
    assert f"{name}={value!r}" in str(error.value) and f"-p {name}" in str(error.value)
    assert error.value._render_traceback_() == [f"ParameterError: {error.value}"]


def test_right_parameters_pass_and_an_unknown_profile_does_not(places):
    run = study.open_study("demo", "02_relate_screening", max_anchor_mean=0, n_resamples=100, seed=0)
    assert run.folder == places / "runs" / "demo"
    with pytest.raises(study.ParameterError, match="Available: demo, paper"):
        study.open_study("test", "02_relate_screening")


# --- results ---


def test_tables_and_figures_are_kept_by_name_and_labelled(places):
    from matplotlib.figure import Figure

    run = study.open_study("demo", "02_relate_screening")
    path = run.save_table(pd.DataFrame({"x": [1 / 3], "y": ["a"]}), "02_test")
    assert path.read_bytes() == b"x,y\n0.333333,a\n"
    assert [p.name for p in path.parent.iterdir()] == ["02_test.csv"]
    figure = Figure()
    figure.subplots()
    picture = run.save_figure(figure, "test", study.SYNTHETIC)
    assert picture == places / "runs/demo/figures/02_test.png" and picture.read_bytes()[:4] == b"\x89PNG"
    assert [text.get_text() for text in figure.texts] == ["data: synthetic"]


def test_the_summary_shows_the_headlines_and_says_when_there_are_none(places):
    with pytest.raises(study.StudyError, match="run: make demo"):
        study.summary("demo")
    run = study.open_study("demo", "02_relate_screening")
    run.save_table(pd.DataFrame({"what": ["pairs"], "here": [7]}), "02_relate_screening_headline")
    assert "pairs" in study.summary("demo") and "02_relate_screening" in study.summary("demo")


def test_missing_scores_name_the_notebook_that_makes_them(places):
    run = study.open_study("demo", "04_breakdowns")
    with pytest.raises(study.StudyError, match="notebooks/03_human_clap_finetuning.ipynb: run that first"):
        study.read_scores(run, "03_human_clap_finetuning")


# --- where ratings are found ---


def test_named_ratings_are_used(places, monkeypatch, relate_root):
    monkeypatch.setenv("HUMANCLAP_RELATE", str(relate_root))
    source = study.find_ratings()
    assert source.csv == relate_root / "scores" / "REL.csv" and source.label == "RELATE ratings"
    assert source.listeners_csv.is_file()


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
    with pytest.raises(download.DownloadError, match="set HUMANCLAP_RELATE to the folder above scores/"):
        study.find_ratings("paper")
    with pytest.raises(study.StudyError, match="later release"):
        study.prepare("paper")
    with pytest.raises(study.StudyError, match="later release"):
        study.baselines("paper")


def test_without_a_network_the_demo_takes_the_corpus_and_says_so(places, monkeypatch):
    from humanclap import synthetic

    def small(root, seed):  # the real corpus takes longer; what counts here is what is said of it
        return make(root, seed=seed, n_train_captions=12, n_test_captions=12)

    make = synthetic.make_corpus
    monkeypatch.setattr(synthetic, "make_corpus", small)
    source = study.find_ratings("demo")
    assert source.label == "synthetic" and source.csv.is_file()
    assert "could not be fetched" in source.note and "says nothing about real audio" in source.note


# --- the download ---

CONTENT = b"wavname,text\n" * 1000


@pytest.fixture
def server():
    """A local server: /good sends the file, /cut breaks off half-way, anything else is not there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in ("/good", "/cut"):
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if self.path == "/good" else CONTENT[: len(CONTENT) // 2])

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_checked(tmp_path, server):
    right = hashlib.sha256(CONTENT).hexdigest()
    path = download.fetch_ratings(tmp_path, f"{server}/good", right)
    assert path == tmp_path / "scores" / "REL.csv" and path.read_bytes() == CONTENT
    assert download.fetch_ratings(tmp_path, f"{server}/gone", right) == path  # not asked for again
    path.write_bytes(b"edited")
    with pytest.raises(download.DownloadError, match="is not the file that was published"):
        download.fetch_ratings(tmp_path, f"{server}/good", right)


@pytest.mark.parametrize(
    "page, message", [("good", "has sha256"), ("cut", "sha256|could not be fetched"), ("gone", "404")]
)
def test_a_broken_download_leaves_nothing_behind(tmp_path, server, page, message):
    with pytest.raises(download.DownloadError, match=message) as error:
        download.fetch_ratings(tmp_path, f"{server}/{page}", "0" * 64)
    assert "HUMANCLAP_RELATE" in str(error.value)
    assert list((tmp_path / "scores").iterdir()) == []


def test_the_pinned_checksum_is_that_of_the_real_file(relate_root):
    assert download.sha256_of(relate_root / "scores" / "REL.csv") == download.RELATE_SHA256
