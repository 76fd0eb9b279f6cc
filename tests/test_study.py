"""Parameters, where data is found, how results are kept, and the one download."""

from __future__ import annotations

import hashlib
import socket
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

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
        ("n_resamples", 1000.0, "allowed is a whole number"),
        ("seed", 2**32, "from 0 to 4294967295"),
        ("seed", -1, "allowed is a whole number from 0"),
        ("seed", True, "allowed is a whole number"),
        ("epochs", None, "allowed is a whole number of at least 1"),
        ("rated_set", 3, 'allowed is text, a folder or a CSV of rated pairs, or "" for none'),
        ("seeds", [], r"allowed is a list of different whole numbers of at least 0, as \[0, 1\]"),
        ("seeds", [0, 0], "list of different whole numbers"),
        ("seeds", 0, "list of different whole numbers"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(places, name, value, message):
    with pytest.raises(study.ParameterError, match=message) as error:
        study.open_study("demo", "02_relate_screening", **{name: value})
    assert f"{name}={value!r}" in str(error.value) and f"{'-y' if name == 'seeds' else '-p'} " in str(error.value)
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
    path = run.save_table(pd.DataFrame({"x": [1 / 3], "y": ["a"]}), "02_test", study.SYNTHETIC)
    assert path.read_bytes() == b"x,y,data\n0.333333,a,synthetic\n"
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
    run.save_table(pd.DataFrame({"what": ["pairs"], "here": [7]}), "02_relate_screening_headline", study.REAL)
    assert "pairs" in study.summary("demo") and "02_relate_screening" in study.summary("demo")


def test_missing_scores_name_the_notebook_that_makes_them(places):
    run = study.open_study("demo", "04_breakdowns")
    with pytest.raises(study.StudyError, match="notebooks/03_human_clap_finetuning.ipynb: run that first"):
        study.read_scores(run, "03_human_clap_finetuning")


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


def test_a_folder_may_be_named_from_the_home_folder(places, monkeypatch, relate_root):
    monkeypatch.setenv("HOME", str(relate_root.parent))
    monkeypatch.setenv("HUMANCLAP_RELATE", f"~/{relate_root.name}/")
    assert study.find_ratings().csv == relate_root / "scores" / "REL.csv"


def test_an_unknown_parameter_lists_the_known_ones(places):
    with pytest.raises(study.ParameterError, match="no parameter 'threshold'. Available: profile, max_anchor_mean"):
        study.open_study("demo", "02_relate_screening", threshold=2)


def test_the_readmes_figure_of_the_real_ratings_is_not_taken_from_another_run(places):
    run = study.open_study("demo", "02_relate_screening")
    run.save_table(pd.DataFrame({"value": [1]}), "02_floor_and_ceiling", study.SYNTHETIC)
    with pytest.raises(study.StudyError, match="on RELATE's real ratings"):
        study.copy_figures("demo")


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


# --- running the notebooks ---


def test_notebooks_are_chosen_by_how_they_begin():
    assert [path.name[:2] for path in study.notebooks(["02", "04"])] == ["02", "04"]
    with pytest.raises(study.StudyError, match="no notebook begins with 99 .* Available: 01_baseline"):
        study.notebooks(["99"])


def test_an_override_that_no_notebook_has_is_refused_before_anything_runs(places):
    with pytest.raises(study.StudyError, match="no notebook has the parameter epoch. Available: .*epochs"):
        study.run_notebooks("demo", ["03"], {"epoch": 3})
    assert not (places / "runs").exists()


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


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path, server):
    (tmp_path / "scores").write_text("a file in the way")
    with pytest.raises(download.DownloadError, match="could not be fetched into"):
        download.fetch_ratings(tmp_path, f"{server}/good", "0" * 64)


def test_an_answer_that_is_no_http_and_one_that_never_ends(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer(first, rest):
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(first)
                for _ in range(20):
                    time.sleep(0.05)
                    try:
                        connection.sendall(rest)
                    except OSError:
                        return

        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        for first, rest in ((b"what?\r\n\r\n", b""), (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100_000)):
            thread = Thread(target=answer, args=(first, rest), daemon=True)
            thread.start()
            with pytest.raises(download.DownloadError):
                download.fetch_ratings(tmp_path, url, "0" * 64, timeout_seconds=0.3)
            thread.join()


def test_the_pinned_checksum_is_that_of_the_real_file(relate_root):
    assert download.sha256_of(relate_root / "scores" / "REL.csv") == download.RELATE_SHA256


# --- rated pairs, RELATE's or another set's ---


@pytest.fixture
def plain_set(tmp_path):
    """A plain CSV of 12 single-rated pairs with clips beside it, no systems and no anchors."""
    import numpy as np
    import soundfile

    folder = tmp_path / "mine"
    (folder / "clips").mkdir(parents=True)
    rows = []
    for i in range(12):
        soundfile.write(folder / f"clips/{i}.wav", np.random.default_rng(i).normal(0, 0.1, 16_000), 16_000)
        rows.append((f"clips/{i}.wav", f"sound number {i}", i % 11))
    pd.DataFrame(rows, columns=["audio", "text", "rating"]).to_csv(folder / "rated.csv", index=False)
    return folder / "rated.csv"


def test_a_rated_set_takes_the_place_of_the_corpus_and_says_what_it_lacks(places, plain_set):
    run = study.open_study("demo", "01_baseline_clapscore", rated_set=str(plain_set))
    assert run.folder == places / "runs" / "demo" / "sets" / "rated"
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
    assert data.blind().corr(data.test["target"], method="spearman") == pytest.approx(0.463, abs=5e-4)


def test_pairs_known_by_their_means_alone_are_the_same_pairs():
    pairs = pd.DataFrame({"audio": ["a", "b"], "text": ["x", "y"], "n_ratings": [float("nan")] * 2})
    study.same_pairs(pairs.assign(model="m"), pairs)
    with pytest.raises(study.StudyError, match="1 missing"):
        study.same_pairs(pairs.head(1).assign(model="m"), pairs)
