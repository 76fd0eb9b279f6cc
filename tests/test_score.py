"""Score tables: every pair accounted for, equal numbers in any batch and order, and a sound cache."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
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


class CountingClap:
    """Counts what a model is asked to embed."""

    def __init__(self, clap):
        self._clap, self.files, self.captions, self.largest = clap, [], [], 0

    def __getattr__(self, name):
        return getattr(self._clap, name)

    def embed_audio(self, paths):
        self.files += paths
        self.largest = max(self.largest, len(paths))
        return self._clap.embed_audio(paths)

    def embed_text(self, texts):
        self.captions += texts
        self.largest = max(self.largest, len(texts))
        return self._clap.embed_text(texts)


class PlanarClap:
    """The protocol and no more: a "file" is an angle in degrees, and each caption points east."""

    name, checkpoint_sha256, sample_rate = "planar", "0" * 64, 1
    window, precision, device = "first", "fp32", "cpu"

    def embed_audio(self, paths):
        angles = np.radians([float(path) for path in paths])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def embed_text(self, texts):
        return np.tile(np.float32([1, 0]), (len(texts), 1))


# --- the table ------------------------------------------------------------------------------------------


def test_scores_are_the_cosines_of_the_embeddings_row_by_row(clap, pairs):
    table = score_pairs(clap, *pairs, progress=False)
    assert tuple(table.columns) == score.COLUMNS
    assert table["audio"].tolist() == [str(path) for path in pairs[0]] and table["text"].tolist() == pairs[1]
    for row in table.itertuples():
        audio, text = clap.embed_audio([row.audio])[0], clap.embed_text([row.text])[0]
        assert row.cosine == pytest.approx(float(audio @ text), abs=1e-6)
        assert row.clap_score == max(row.cosine, 0.0)
    assert (table["status"] == "ok").all()
    facts = table[["model", "checkpoint_sha256", "window", "precision", "device"]].drop_duplicates()
    assert facts.values.tolist() == [["tiny", clap.checkpoint_sha256, "first", "fp32", "cpu"]]


def test_a_negative_cosine_is_kept_beside_a_score_of_zero():
    table = score_pairs(PlanarClap(), ["0", "60", "90", "180"], ["east"] * 4, progress=False)
    np.testing.assert_allclose(table["cosine"], [1.0, 0.5, 0.0, -1.0], atol=1e-7)
    np.testing.assert_allclose(table["clap_score"], [1.0, 0.5, 0.0, 0.0], atol=1e-7)


def test_scores_do_not_depend_on_batch_or_order(clap, pairs):
    table = score_pairs(clap, *pairs, progress=False)
    for batch_size in (1, 4, 5, 1000):
        other = score_pairs(clap, *pairs, batch_size=batch_size, progress=False)
        np.testing.assert_allclose(other["cosine"], table["cosine"], atol=1e-6)
    backwards = score_pairs(clap, pairs[0][::-1], pairs[1][::-1], batch_size=4, progress=False)
    np.testing.assert_allclose(backwards["cosine"][::-1], table["cosine"], atol=1e-6)
    pd.testing.assert_frame_equal(score_pairs(clap, *pairs, progress=False), table)
    assert table["cosine"].std() > 0.01


def test_each_file_and_caption_is_embedded_once_in_batches(clap, pairs):
    counting = CountingClap(clap)
    score_pairs(counting, *pairs, batch_size=4, progress=False)
    assert sorted(counting.files) == sorted({str(path) for path in pairs[0]})
    assert sorted(counting.captions) == sorted(set(pairs[1]))
    assert counting.largest == 4


def test_real_recordings_at_any_rate_and_in_stereo_are_scored(clap, recordings, tmp_path):
    samples, rate = soundfile.read(recordings / "dog.wav")
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples, samples], axis=1), rate, subtype="DOUBLE")
    soundfile.write(tmp_path / "8khz.wav", load_audio(recordings / "dog.wav", 8_000), 8_000)
    paths = [recordings / "dog.wav", recordings / "train.wav", tmp_path / "stereo.wav", tmp_path / "8khz.wav"]
    table = score_pairs(clap, paths, ["A dog barks"] * 4, progress=False)
    assert (table["status"] == "ok").all() and table["cosine"].between(-1, 1).all()
    assert table["cosine"][2] == pytest.approx(table["cosine"][0], abs=1e-6)
    assert table["cosine"][1] != pytest.approx(table["cosine"][0], abs=1e-3)


def test_inputs_may_be_columns_of_a_filtered_table(clap, pairs):
    table = pd.DataFrame({"audio": pairs[0], "text": pairs[1]}).iloc[[11, 3, 7]]
    scores = score_pairs(clap, table["audio"], table["text"], progress=False)
    assert scores.index.tolist() == [0, 1, 2]
    expected = score_pairs(clap, *pairs, progress=False)["cosine"].iloc[[11, 3, 7]]
    np.testing.assert_allclose(scores["cosine"], expected, atol=1e-6)


def test_no_pairs_give_an_empty_table(clap):
    table = score_pairs(clap, [], [], progress=False)
    assert tuple(table.columns) == score.COLUMNS and len(table) == 0
    assert table["cosine"].dtype == np.float64


# --- files without a score ------------------------------------------------------------------------------


def test_bad_files_have_a_reason_and_the_rest_is_scored(clap, pairs, tmp_path, capsys):
    good = pairs[0][0]
    bad = {name: tmp_path / f"{name}.wav" for name in ("missing", "empty", "text", "short", "nan", "none")}
    bad["empty"].touch()
    bad["text"].write_text("a caption by mistake")
    soundfile.write(bad["short"], np.ones(160), 16_000)
    soundfile.write(bad["nan"], np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(bad["none"], np.zeros(0), 16_000)
    paths = [good, bad["missing"], bad["empty"], good, *bad.values(), tmp_path, good]
    table = score_pairs(clap, paths, ["rain"] * len(paths), batch_size=4, progress=False)

    scored = [0, 3, len(paths) - 1]
    assert table.index[table["status"] == "ok"].tolist() == scored
    expected = score_pairs(clap, [good], ["rain"], progress=False)["cosine"][0]
    np.testing.assert_allclose(table["cosine"][scored], expected, atol=1e-6)
    without = table.drop(index=scored)
    assert without["cosine"].isna().all() and without["clap_score"].isna().all()
    by_file = dict(zip(table["audio"], table["status"], strict=True))
    reasons = {"missing": "not found", "empty": "0 bytes", "text": "not readable as audio"}
    reasons |= {"short": "too short: 0.010 s", "nan": "NaN", "none": "no samples"}
    for name, reason in reasons.items():
        assert reason in by_file[str(bad[name])]
    assert by_file[str(tmp_path)] == "not a file"
    assert (table["model"] == "tiny").all()

    assert sum(table.attrs["counts"].values()) == len(paths) and table.attrs["counts"]["ok"] == 3
    assert table.attrs["counts"]["file not found"] == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("scored")]
    assert lines[0].startswith("scored 3 of 12 pairs with tiny; 9 not: ") and "2 file not found" in lines[0]
    assert lines[1] == "scored 1 of 1 pairs with tiny"


def test_only_bad_files_give_a_table_without_scores(clap, tmp_path):
    table = score_pairs(clap, [tmp_path / "a.wav", tmp_path / "b.wav"], ["rain", "wind"], progress=False)
    assert table["cosine"].isna().all() and (table["status"] == "file not found").all()


def test_silence_is_scored(clap, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    table = score_pairs(clap, [tmp_path / "silence.wav"], ["rain"], progress=False)
    assert table["status"][0] == "ok" and np.isfinite(table["cosine"][0])


def test_an_embedding_without_direction_is_no_score(clap, pairs):
    class Broken(CountingClap):
        def embed_audio(self, paths):
            vectors = super().embed_audio(paths).copy()
            vectors[0], vectors[1] = np.nan, 0.0
            return vectors

    table = score_pairs(Broken(clap), sorted(set(pairs[0])), ["rain"] * 6, progress=False)
    assert table["status"].tolist() == [score._NO_DIRECTION] * 2 + ["ok"] * 4
    assert table["clap_score"].isna().tolist() == [True] * 2 + [False] * 4


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["", "  \n", None, float("nan"), 3])
def test_an_empty_caption_names_its_row(clap, pairs, bad):
    texts = [*pairs[1][:4], bad, *pairs[1][5:]]
    with pytest.raises(ValueError, match="row 4: the caption is"):
        score_pairs(clap, pairs[0], texts, progress=False)


def test_bad_arguments_are_refused(clap, pairs, tmp_path):
    with pytest.raises(ValueError, match="18 audio_paths and 17 texts"):
        score_pairs(clap, pairs[0], pairs[1][:-1])
    with pytest.raises(TypeError, match="audio_paths is one str"):
        score_pairs(clap, "dog.wav", ["A dog barks"])
    with pytest.raises(TypeError, match="texts is one str"):
        score_pairs(clap, ["dog.wav"], "A dog barks")
    with pytest.raises(TypeError, match="row 1: the audio path is nan"):
        score_pairs(clap, ["dog.wav", float("nan")], ["A dog barks"] * 2)
    for batch_size in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="batch_size"):
            score_pairs(clap, *pairs, batch_size=batch_size)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        score_pairs(clap, *pairs, cache_dir=tmp_path / "file")


# --- the cache ------------------------------------------------------------------------------------------


def test_a_second_call_computes_nothing_and_gives_the_same_table(clap, pairs, tmp_path):
    first = score_pairs(clap, *pairs, cache_dir=tmp_path / "cache", progress=False)
    pd.testing.assert_frame_equal(first, score_pairs(clap, *pairs, progress=False))
    counting = CountingClap(clap)
    second = score_pairs(counting, *pairs, cache_dir=tmp_path / "cache", progress=False)
    pd.testing.assert_frame_equal(second, first)
    assert not counting.files and not counting.captions


def test_the_cache_goes_by_content_and_not_by_name(clap, pairs, tmp_path):
    one, other = sorted(set(pairs[0]))[:2]
    cache = tmp_path / "cache"
    path = tmp_path / "clip.wav"
    shutil.copy(one, path)
    before = score_pairs(clap, [path], ["rain"], cache_dir=cache, progress=False)["cosine"][0]
    counting = CountingClap(clap)
    shutil.copy(path, tmp_path / "renamed.wav")
    renamed = score_pairs(counting, [tmp_path / "renamed.wav"], ["rain"], cache_dir=cache, progress=False)
    assert renamed["cosine"][0] == before and not counting.files
    shutil.copy(other, path)
    after = score_pairs(counting, [path], ["rain"], cache_dir=cache, progress=False)["cosine"][0]
    assert counting.files == [str(path)] and after != pytest.approx(before, abs=1e-4)


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


def test_bad_files_are_not_kept_and_are_scored_once_mended(clap, pairs, tmp_path):
    path = tmp_path / "late.wav"
    arguments = {"cache_dir": tmp_path / "cache", "progress": False}
    assert score_pairs(clap, [path], ["rain"], **arguments)["status"][0] == "file not found"
    path.touch()
    assert "0 bytes" in score_pairs(clap, [path], ["rain"], **arguments)["status"][0]
    shutil.copy(pairs[0][0], path)
    assert score_pairs(clap, [path], ["rain"], **arguments)["status"][0] == "ok"
