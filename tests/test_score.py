"""Score tables: every pair accounted for, equal numbers in any batch and order, and a sound cache."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from angle_clap import AngleClap, angle_files
from clap_folders import CAPTIONS, save_clap, save_clips

from humanclap import load_clap, score, score_pairs
from humanclap.audio import load_audio


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clap(tmp_path_factory.mktemp("claps") / "tiny")


@pytest.fixture(scope="module")
def clap(folder):
    return load_clap(folder, device="cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Each of six clips with three captions, mixed up: 18 pairs."""
    clips = save_clips(tmp_path_factory.mktemp("clips"))
    rows = [(clips[i % 6], CAPTIONS[(i // 6 + i) % 5]) for i in range(18)]
    order = np.random.default_rng(3).permutation(18)
    return [rows[i][0] for i in order], [rows[i][1] for i in order]


def summary(capsys) -> str:
    """The last line that scoring has said."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("scored")][-1]


# --- the table ------------------------------------------------------------------------------------------


def test_scores_are_the_cosines_of_the_embeddings_row_by_row(clap, pairs):
    table = score_pairs(clap, *pairs, progress=False)
    assert tuple(table.columns) == score.COLUMNS
    assert table["audio"].tolist() == [str(path) for path in pairs[0]] and table["text"].tolist() == pairs[1]
    for row in table.itertuples():
        audio, text = clap.embed_audio([row.audio])[0], clap.embed_text([row.text])[0]
        assert row.cosine == pytest.approx(float(audio @ text), abs=1e-6)
        assert row.clap_score == max(row.cosine, 0.0)
    assert (table["status"] == "ok").all() and table["cosine"].std() > 0.01
    facts = table[["model", "checkpoint_sha256", "window", "precision", "device"]].drop_duplicates()
    assert facts.values.tolist() == [["tiny", clap.checkpoint_sha256, "first", "fp32", "cpu"]]


def test_a_negative_cosine_is_kept_beside_a_score_of_zero(tmp_path):
    table = score_pairs(AngleClap(), angle_files(tmp_path, 0, 60, 90, 180), ["east"] * 4, progress=False)
    np.testing.assert_allclose(table["cosine"], [1.0, 0.5, 0.0, -1.0], atol=1e-7)
    np.testing.assert_allclose(table["clap_score"], [1.0, 0.5, 0.0, 0.0], atol=1e-7)


def test_scores_do_not_depend_on_batch_or_order_and_a_repeated_run_is_equal_to_the_last_bit(clap, pairs):
    table = score_pairs(clap, *pairs, progress=False)
    for batch_size in (1, 5, 1000):
        other = score_pairs(clap, *pairs, batch_size=batch_size, progress=False)
        np.testing.assert_allclose(other["cosine"], table["cosine"], atol=1e-6)
    backwards = score_pairs(clap, pairs[0][::-1], pairs[1][::-1], batch_size=4, progress=False)
    np.testing.assert_allclose(backwards["cosine"][::-1], table["cosine"], atol=1e-6)
    pd.testing.assert_frame_equal(score_pairs(clap, *pairs, progress=False), table, check_exact=True)


def test_each_file_and_caption_is_embedded_once_however_it_is_written(tmp_path, monkeypatch):
    angle_files(tmp_path, 0, 60)
    monkeypatch.chdir(tmp_path)
    clap = AngleClap()
    table = score_pairs(clap, ["0", "./0", "1", "0"], ["rain", "rain ", " rain", "wind"], batch_size=4, progress=False)
    assert sorted(clap.files) == ["0", "1"] and sorted(clap.captions) == ["rain", "wind"]
    assert table["audio"].tolist() == ["0", "./0", "1", "0"] and table["text"].tolist()[1] == "rain "
    np.testing.assert_allclose(table["cosine"], [1, 1, 0.5, 1], atol=1e-7)


def test_real_recordings_at_any_rate_and_in_stereo_are_scored(clap, recordings, tmp_path):
    samples, rate = soundfile.read(recordings / "dog.wav")
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples, samples], axis=1), rate, subtype="DOUBLE")
    soundfile.write(tmp_path / "8khz.wav", load_audio(recordings / "dog.wav", 8_000), 8_000)
    paths = [recordings / "dog.wav", recordings / "train.wav", tmp_path / "stereo.wav", tmp_path / "8khz.wav"]
    table = score_pairs(clap, paths, ["A dog barks"] * 4, progress=False)
    assert (table["status"] == "ok").all() and table["cosine"].between(-1, 1).all()
    assert table["cosine"][2] == pytest.approx(table["cosine"][0], abs=1e-6)
    assert table["cosine"][1] != pytest.approx(table["cosine"][0], abs=1e-3)


def test_inputs_may_be_columns_of_a_filtered_table_and_results_go_by_position(tmp_path):
    table = pd.DataFrame({"audio": angle_files(tmp_path, 0, 60, 180), "text": "east"}, index=[2, 0, 2])
    scores = score_pairs(AngleClap(), table["audio"], table["text"], progress=False)
    assert scores.index.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores["cosine"], [1, 0.5, -1], atol=1e-7)


def test_no_pairs_give_an_empty_table(clap):
    table = score_pairs(clap, [], [], progress=False)
    assert tuple(table.columns) == score.COLUMNS and len(table) == 0
    assert table["cosine"].dtype == np.float64


# --- pairs without a score ------------------------------------------------------------------------------


def test_bad_files_have_a_reason_and_the_rest_is_scored(clap, pairs, tmp_path, capsys):
    """With the cache on: a pipe that is opened waits for ever, also for a checksum."""
    good = pairs[0][0]
    bad = {name: tmp_path / f"{name}.wav" for name in ("missing", "pipe", "text", "nan", "rate")}
    os.mkfifo(bad["pipe"])
    bad["text"].write_text("a caption by mistake")
    soundfile.write(bad["nan"], np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(bad["rate"], np.ones(32_000) / 2, 1)
    paths = [good, bad["missing"], *bad.values(), tmp_path, f"{tmp_path}/half \ud83d", f"{tmp_path}/a\0b", good]
    arguments = {"batch_size": 4, "cache_dir": tmp_path / "cache", "progress": False}
    table = score_pairs(clap, paths, ["rain"] * len(paths), **arguments)
    status = table["status"].tolist()
    expected = [
        "ok", "file not found", "file not found", "not a file but a named pipe", "not readable as audio",
        "the samples hold NaN", "a broken header: its sample rate is 1 Hz", "not a file but a folder",
        "no file can have this name", "no file can have this name", "ok",
    ]  # fmt: skip
    assert [found.startswith(start) for found, start in zip(status, expected, strict=True)] == [True] * len(paths)
    assert table[["cosine", "clap_score"]].isna().all(axis=1).tolist() == [found != "ok" for found in status]
    alone = score_pairs(clap, [good], ["rain"], progress=False)["cosine"][0]
    np.testing.assert_allclose(table["cosine"][[0, len(paths) - 1]], alone, atol=1e-6)
    assert (table["model"] == "tiny").all()
    assert table.attrs["counts"]["ok"] == 2 and table.attrs["counts"]["file not found"] == 2
    assert sum(table.attrs["counts"].values()) == len(paths)
    pd.testing.assert_frame_equal(score_pairs(clap, paths, ["rain"] * len(paths), **arguments), table)
    assert summary(capsys).startswith("scored 2 of 11 pairs with tiny; 9 not: 2 file not found, ")


def test_whatever_the_features_of_one_file_raise_is_its_status(tmp_path):
    class Fragile(AngleClap):
        def audio_features(self, paths):
            if paths[0].endswith("1"):
                raise RuntimeError("can't allocate\nmemory")
            return super().audio_features(paths)

    for device in ("cpu", "elsewhere"):
        table = score_pairs(Fragile(device), angle_files(tmp_path, 0, 10, 60), ["east"] * 3, progress=False)
        assert table["status"].tolist() == ["ok", "no features of it (RuntimeError: can't allocate memory)", "ok"]
        np.testing.assert_allclose(table["cosine"], [1, np.nan, 0.5], atol=1e-7)


def test_a_caption_with_half_a_character_is_its_rows_status(clap, pairs, tmp_path):
    texts = ["rain", "rain \ud83d", "rain"]
    for cache in (None, tmp_path):
        table = score_pairs(clap, [*pairs[0][:2], "none.wav"], texts, cache_dir=cache, progress=False)
        assert table["status"].tolist()[::2] == ["ok", "file not found"]
        assert table["status"][1].startswith("the caption holds half a character, '\\ud83d'")
        assert table["cosine"].isna().tolist() == [False, True, True]
    assert score_pairs(clap, pairs[0][:1], texts[1:2], progress=False)["status"][0] != "ok"


def test_an_embedding_without_direction_is_no_score(tmp_path):
    class Broken(AngleClap):
        def embed_features(self, features):
            vectors = super().embed_features(features)
            vectors[features["angle"] == 10] = np.nan
            vectors[features["angle"] == 20] = 0.0
            return vectors

        def embed_tokens(self, tokens):
            return super().embed_tokens(tokens) * (tokens["input_ids"][:, :1].numpy() != ord("0"))

    paths = angle_files(tmp_path, 10, 20, 60, 60)
    table = score_pairs(Broken(), paths, ["east", "east", "0 is no direction", "east"], progress=False)
    assert table["status"].tolist() == ["the embedding is zero or not finite"] * 3 + ["ok"]
    np.testing.assert_allclose(table["clap_score"], [np.nan] * 3 + [0.5], atol=1e-7)


def test_silence_is_scored_and_odd_clips_are_counted(clap, tmp_path, capsys):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    odd = {"silence.wav": samples * 0, "loud.wav": samples * 32_768, "antiphase.wav": np.c_[samples, -samples]}
    for name, content in odd.items():
        soundfile.write(tmp_path / name, content, 16_000, subtype="FLOAT")
    table = score_pairs(clap, [tmp_path / name for name in odd], ["rain"] * 3, progress=False)
    assert (table["status"] == "ok").all() and np.isfinite(table["cosine"]).all()
    assert set(table.attrs["notes"]) == {str(tmp_path / "loud.wav"), str(tmp_path / "antiphase.wav")}
    assert summary(capsys) == "scored 3 of 3 pairs with tiny; 2 clip(s) scored with a warning, see above"


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["", "  \n", None, float("nan"), 3])
def test_an_empty_caption_names_its_row(clap, pairs, bad):
    texts = [*pairs[1][:4], bad, *pairs[1][5:]]
    with pytest.raises(ValueError, match="row 4: the caption is"):
        score_pairs(clap, pairs[0], texts, progress=False)


def test_bad_arguments_are_refused(clap, pairs, tmp_path):
    with pytest.raises(ValueError, match="row 2: the audio path is empty"):
        score_pairs(clap, [*pairs[0][:2], "", *pairs[0][3:]], pairs[1], progress=False)
    with pytest.raises(ValueError, match="18 audio_paths and 17 texts"):
        score_pairs(clap, pairs[0], pairs[1][:-1])
    with pytest.raises(TypeError, match="audio_paths is one str"):
        score_pairs(clap, "dog.wav", ["A dog barks"])
    with pytest.raises(TypeError, match="texts is one str"):
        score_pairs(clap, ["dog.wav"], "A dog barks")
    with pytest.raises(TypeError, match="row 1: the audio path is nan"):
        score_pairs(clap, ["dog.wav", float("nan")], ["A dog barks"] * 2)
    for batch_size in (0, 2.5, True):
        with pytest.raises(ValueError, match="batch_size"):
            score_pairs(clap, *pairs, batch_size=batch_size)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        score_pairs(clap, *pairs, cache_dir=tmp_path / "file")


# --- the cache ------------------------------------------------------------------------------------------


def test_a_second_call_computes_nothing_and_gives_the_same_table(tmp_path):
    arguments = (angle_files(tmp_path / "clips", *range(0, 180, 10)), [f"east {i % 5}" for i in range(18)])
    first = score_pairs(AngleClap(), *arguments, cache_dir=tmp_path / "cache", progress=False)
    pd.testing.assert_frame_equal(first, score_pairs(AngleClap(), *arguments, progress=False))
    second = AngleClap()
    pd.testing.assert_frame_equal(
        score_pairs(second, *arguments, cache_dir=tmp_path / "cache", progress=False), first, check_exact=True
    )
    assert not second.files and not second.captions


def test_the_cache_goes_by_content_and_not_by_name(tmp_path):
    paths, clap = angle_files(tmp_path, 0, 60), AngleClap()
    arguments = {"cache_dir": tmp_path / "cache", "progress": False}
    score_pairs(clap, paths[:1], ["east"], **arguments)
    shutil.copy(paths[0], tmp_path / "renamed")
    assert score_pairs(clap, [tmp_path / "renamed"], ["east"], **arguments)["cosine"][0] == 1 and len(clap.files) == 1
    os.utime(paths[1], ns=(paths[0].stat().st_mtime_ns,) * 2)
    shutil.copy2(paths[1], paths[0])  # another content with the same name, size and time
    assert score_pairs(clap, paths[:1], ["east"], **arguments)["cosine"][0] == pytest.approx(0.5)


def test_no_clip_is_cached_under_a_checksum_that_its_decoded_bytes_do_not_have(tmp_path):
    class Racing(AngleClap):
        """Another program writes the clip between its checksum and its decoding."""

        def audio_features(self, paths):
            if self.angles:
                path.write_text(str(self.angles.pop()))
            return super().audio_features(paths)

    [path] = angle_files(tmp_path / "clips", 0)
    racing, arguments = Racing(), {"cache_dir": tmp_path / "cache", "progress": False}
    racing.angles = [60]
    assert score_pairs(racing, [path], ["east"], **arguments)["cosine"][0] == pytest.approx(0.5)
    path.write_text("0")
    assert score_pairs(AngleClap(), [path], ["east"], **arguments)["cosine"][0] == 1
    racing.angles = [30, 31, 32, 33, 34]
    path.write_text("180")
    assert "changes while it is read" in score_pairs(racing, [path], ["east"], **arguments)["status"][0]


def test_other_weights_windows_and_precisions_have_their_own_entries(folder, clap, pairs, tmp_path):
    claps = [
        clap,
        load_clap(save_clap(tmp_path / "retrained", seed=1), device="cpu"),
        load_clap(folder, device="cpu", window="center"),
        load_clap(folder, device="cpu", precision="bf16"),
        load_clap(save_clap(tmp_path / "other mels", frequency_min=0), device="cpu"),
    ]
    assert claps[4].checkpoint_sha256 == clap.checkpoint_sha256  # the preprocessor alone differs
    for one in claps:
        fresh = score_pairs(one, *pairs, progress=False)
        cached = score_pairs(one, *pairs, cache_dir=tmp_path / "cache", progress=False)
        pd.testing.assert_frame_equal(cached, fresh)


def test_bad_files_are_not_kept_and_are_scored_once_repaired(clap, pairs, tmp_path):
    path = tmp_path / "late.wav"
    arguments = {"cache_dir": tmp_path / "cache", "progress": False}
    assert score_pairs(clap, [path], ["rain"], **arguments)["status"][0] == "file not found"
    shutil.copy(pairs[0][0], path)
    assert score_pairs(clap, [path], ["rain"], **arguments)["status"][0] == "ok"
