"""The command line: tables in, tables out, exit statuses, one line for a mistake, shards that merge."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from clap_folders import CAPTIONS, save_clap, save_clips
from laion_small import save_laion, small_laion

from humanclap import cli, load_clap, score_pairs
from humanclap.clap import lazy
from humanclap.shards import BOOKKEEPING, Shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clap(tmp_path_factory.mktemp("claps") / "tiny")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    return root, [str(p.relative_to(root)) for seed in range(4) for p in save_clips(root / str(seed), seed=seed)]


@pytest.fixture
def pairs(clips, tmp_path):
    """A CSV of 24 pairs with a column of its own."""
    table = pd.DataFrame({"audio": clips[1], "text": [CAPTIONS[i % 5] for i in range(24)], "rating": range(24)})
    table.to_csv(tmp_path / "pairs.csv", index=False)
    return tmp_path / "pairs.csv"


@pytest.fixture
def score(folder, clips, tmp_path, pairs):
    """`humanclap score` on that CSV, with further arguments."""

    def run(*more, table=pairs, out=tmp_path / "scores.csv"):
        own = ["score", table, "--clap", folder, "--audio-root", clips[0], "--out", out, "--device", "cpu", "--quiet"]
        return cli.main([str(argument) for argument in (*own, "--cache", tmp_path / "cache", *more)])

    return run


def _one_line(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err and not captured.out
    return captured.err.strip()


# --- score ----------------------------------------------------------------------------------------------


def test_a_score_table_is_the_pairs_and_what_score_pairs_says(score, pairs, folder, clips, tmp_path, capsys):
    assert score() == 0
    table, given = pd.read_csv(tmp_path / "scores.csv"), pd.read_csv(pairs)
    pd.testing.assert_frame_equal(table[given.columns], given)
    paths = [str(clips[0] / audio) for audio in given["audio"]]
    expected = score_pairs(load_clap(folder, device="cpu"), paths, given["text"].tolist(), progress=False)
    pd.testing.assert_frame_equal(table[expected.columns[2:]], expected[expected.columns[2:]], atol=1e-6)
    out = capsys.readouterr().out
    assert "24 of 24 pairs scored" in out and f"mean CLAPScore {expected['clap_score'].mean():.4f}" in out
    low, high = map(float, re.search(r"95 % interval ([\d.]+) to ([\d.]+) .*5 captions", out).groups())
    assert low < expected["clap_score"].mean() < high
    # The interval of a mean of five caption means is about 2 standard errors to each side.
    error = expected.groupby("text")["clap_score"].mean().std() / 5**0.5
    assert 2 * error < high - low < 5 * error


def test_the_second_run_reads_no_weights_and_writes_the_same_bytes(score, tmp_path, monkeypatch):
    assert score() == 0
    first = (tmp_path / "scores.csv").read_bytes()
    (tmp_path / "scores.csv").unlink()
    monkeypatch.setattr(lazy, "load_clap", lambda **_: pytest.fail("the model was opened"))
    assert score() == 0
    assert (tmp_path / "scores.csv").read_bytes() == first


def test_files_without_a_score_are_named_and_the_exit_status_says_so(score, pairs, clips, tmp_path, capsys):
    table = pd.read_csv(pairs)
    (clips[0] / "spoilt.wav").write_text("no audio")
    table.loc[[3, 9, 10], "audio"] = ["none.wav", "spoilt.wav", "none.wav"]
    table.to_csv(pairs, index=False)
    assert score() == 1
    out = capsys.readouterr().out
    assert "21 of 24 pairs scored" in out and "2 file(s) have no score" in out
    assert "  none.wav: file not found\n" in out and "  spoilt.wav: not readable as audio" in out
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert len(scores) == 24 and scores.index[scores["cosine"].isna()].tolist() == [3, 9, 10]


def test_captions_that_look_like_missing_values_are_captions(score, clips, tmp_path):
    table = tmp_path / "odd.csv"
    table.write_text(f'audio,text\n{clips[1][0]},NA\n{clips[1][1]},"null, really"\n')
    assert score(table=table) == 0
    scores = pd.read_csv(tmp_path / "scores.csv", keep_default_na=False)
    assert scores["text"].tolist() == ["NA", "null, really"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--clap", "no-such-clap"], "unknown CLAP 'no-such-clap'. Known: laion"),
        (["--window", "middle"], "unknown window 'middle'; known for"),
        (["--precision", "fp8"], "unknown precision 'fp8'; allowed: fp32"),
        (["--device", "toaster"], "unknown device 'toaster'"),
        (["--shard", "3/2"], "shard '3/2': it must be i/n"),
        (["--shard", "0/2"], "shard '0/2': it must be i/n"),
        (["--shard", "25/25"], None),
        (["--shard", "1/100"], "shard 1/100 of 24 rows is empty"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--audio-root", "no-such-folder"], "--audio-root no-such-folder is no folder"),
        (["--out", "no-such-folder/scores.csv"], "there is no folder no-such-folder"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(score, more, message, capsys):
    if message is None:
        more, message = ["--shard", "half"], "shard 'half'"
    assert score(*more) == 2
    line = _one_line(capsys)
    assert line.startswith("humanclap score: error: ") and message in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        ("", "is no CSV"),
        ("audio,text\n", "holds no pairs"),
        ("audio,caption\na.wav,rain\n", "has no column text; it has: audio, caption"),
        ("audio,text\na.wav,rain\nb.wav,  \n", "data row 2: text is empty"),
        ("audio,text\n,rain\n", "data row 1: audio is empty"),
        ("audio,text\n/a.wav,rain\n", "'/a.wav' is absolute"),
        ("audio,text,cosine\na.wav,rain,0.1\n", "holds scores already (cosine)"),
        ('audio,text\na.wav,"rain\n', "is no CSV"),
    ],
)
def test_a_wrong_table_is_one_line_and_status_2(score, content, message, tmp_path, capsys):
    table = tmp_path / "wrong.csv"
    if content is not None:
        table.write_text(content)
    assert score(table=table) == 2
    assert message in _one_line(capsys)
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize("arguments", [[], ["fetches"], ["score"], ["score", "a.csv", "--clap", "x"], ["merge"]])
def test_a_mistake_in_the_arguments_is_one_line_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "--help explains" in _one_line(capsys)


@pytest.mark.parametrize("command", [None, "score", "merge", "screen", "convert", "fetch"])
def test_help_teaches_with_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"] if command else ["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    examples = [line.partition("#")[0].split() for line in text.splitlines() if line.startswith("  humanclap ")]
    assert len(examples) >= (4 if command is None else 1)
    for _, *words in examples:
        assert cli._parser().parse_args(words).command == words[0]


def test_python_m_humanclap_is_quick_and_needs_no_torch():
    code = "import sys; from humanclap import cli; cli._parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    shown = subprocess.run([sys.executable, "-m", "humanclap", "--version"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and re.fullmatch(r"humanclap \d+\.\d+\.\d+\n", shown.stdout)


# --- shards ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_rows", "count"), [(24, 5), (7, 7), (5784, 8), (3, 1), (10, 3)])
def test_shards_hold_each_row_once(n_rows, count):
    rows = [row for number in range(1, count + 1) for row in Shard(number, count).rows(n_rows)]
    assert rows == list(range(n_rows))
    sizes = [len(Shard(number, count).rows(n_rows)) for number in range(1, count + 1)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
def test_two_processes_one_killed_and_run_again_give_the_whole_table(folder, tmp_path, capsys):
    """Shard 1 is killed in the middle; its second run keeps what it had, and nothing is lost or there twice."""
    root = tmp_path / "many"
    names = [str(p.relative_to(root)) for seed in range(30) for p in save_clips(root / str(seed), seed=100 + seed)]
    many = pd.DataFrame({"audio": names, "text": [CAPTIONS[i % 5] for i in range(len(names))]})
    many.to_csv(tmp_path / "many.csv", index=False)
    common = ["--clap", str(folder), "--audio-root", str(root), "--device", "cpu", "--quiet", "--batch-size", "1"]

    def start(number):
        own = ["--shard", f"{number}/2", "--out", str(tmp_path / f"part-{number}.csv")]
        command = [sys.executable, "-m", "humanclap", "score", str(tmp_path / "many.csv"), *own, *common]
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kept():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "humanclap").rglob("*.npy")}

    first = start(1)
    deadline = time.monotonic() + 60
    while len(kept()) < 20 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    before = kept()
    assert 20 <= len(before) < 90 and not (tmp_path / "part-1.csv").exists()

    both = [start(1), start(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert {path: kept()[path] for path in before} == before  # read, not made again
    parts = [str(tmp_path / f"part-{number}.csv") for number in (2, 1)]
    assert cli.main(["merge", *parts, "--out", str(tmp_path / "merged.csv")]) == 0
    assert "180 of 180 pairs scored" in capsys.readouterr().out
    merged = pd.read_csv(tmp_path / "merged.csv")
    pd.testing.assert_frame_equal(merged[["audio", "text"]], many)
    paths = [str(root / name) for name in names]
    whole = score_pairs(load_clap(folder, device="cpu"), paths, many["text"].tolist(), progress=False)
    np.testing.assert_allclose(merged["cosine"], whole["cosine"], atol=1e-6)
    assert list(merged.columns) == list(whole.columns)


def test_shards_that_do_not_make_a_whole_are_refused(score, tmp_path, pairs, capsys):
    parts = {}
    for number in (1, 2, 3):
        parts[number] = tmp_path / f"{number}.csv"
        assert score("--shard", f"{number}/3", out=parts[number]) == 0
    assert score(out=tmp_path / "unsharded.csv") == 0
    assert score("--shard", "2/3", "--window", "center", out=tmp_path / "center.csv") == 0
    table = pd.read_csv(parts[2])
    assert set(BOOKKEEPING) <= set(table.columns)
    table.iloc[:-1].to_csv(tmp_path / "short.csv", index=False)
    pd.concat([table, pd.read_csv(parts[3])]).to_csv(tmp_path / "two.csv", index=False)
    changed = pd.read_csv(pairs)
    changed.loc[0, "rating"] = 99
    changed.to_csv(tmp_path / "changed.csv", index=False)
    assert score("--shard", "2/3", table=tmp_path / "changed.csv", out=tmp_path / "other.csv") == 0
    capsys.readouterr()

    def refused(*names):
        assert cli.main(["merge", *map(str, names), "--out", str(tmp_path / "merged.csv")]) == 2
        assert not (tmp_path / "merged.csv").exists()
        return _one_line(capsys)

    assert "1 of 3 shards are missing: 2/3" in refused(parts[1], parts[3])
    assert "shard 1/3 is given twice" in refused(parts[1], parts[2], parts[1], parts[3])
    assert "short.csv is not whole: 7 rows of 8" in refused(parts[1], tmp_path / "short.csv", parts[3])
    assert "center.csv does not go with" in refused(parts[1], tmp_path / "center.csv", parts[3])
    assert "other.csv does not go with" in refused(parts[1], tmp_path / "other.csv", parts[3])
    assert "two.csv is not one shard: shard 2/3, 3/3" in refused(parts[1], tmp_path / "two.csv")
    assert "unsharded.csv is no shard" in refused(tmp_path / "unsharded.csv")
    assert "has no column cosine" in refused(pairs)

    assert cli.main(["merge", *map(str, parts.values()), "--out", str(tmp_path / "merged.csv")]) == 0
    assert (tmp_path / "merged.csv").read_bytes() == (tmp_path / "unsharded.csv").read_bytes()


# --- screen and convert ---------------------------------------------------------------------------------


def test_screen_gives_the_papers_pairs(relate_root, tmp_path, capsys):
    ratings, out = str(relate_root / "scores" / "REL.csv"), str(tmp_path / "pairs.csv")
    assert cli.main(["screen", ratings, "--max-anchor-mean", "2", "--out", out]) == 0
    table = pd.read_csv(out)
    assert table.groupby("split").size().to_dict() == {"test": 2892, "train": 2892}
    assert table["n_ratings"].sum() == 10_203 + 9_903
    np.testing.assert_allclose(table["target"], table["mean_rating"] / 10)
    shown = capsys.readouterr().out
    assert "1117 listeners kept" in shown and "5,784 pairs, 20,106 ratings" in shown
    assert cli.main(["screen", ratings, "--split", "test", "--out", out]) == 0
    assert set(pd.read_csv(out)["split"]) == {"test"} and len(pd.read_csv(out)) == 2892


def test_screen_refuses_what_is_no_ratings(relate_root, pairs, tmp_path, capsys):
    ratings, out = str(relate_root / "scores" / "REL.csv"), str(tmp_path / "out.csv")
    assert cli.main(["screen", ratings, "--max-anchor-mean", "11", "--out", out]) == 2
    assert "max_anchor_mean is 11.0; allowed" in _one_line(capsys)
    for wrong in (pairs, tmp_path / "none.csv"):
        assert cli.main(["screen", str(wrong), "--out", out]) == 2
        assert "humanclap screen: error: " in _one_line(capsys)


def test_convert_there_and_back(folder, tmp_path, capsys):
    checkpoint = save_laion(small_laion(False), tmp_path / "small.pt")
    there, back = tmp_path / "clapmodel", tmp_path / "back.pt"
    to = ["convert", str(checkpoint), str(there), "--to", "clapmodel", "--tokenizer", str(folder)]
    assert cli.main(to) == 0 and (there / "preprocessor_config.json").is_file()
    assert cli.main(["convert", str(there), str(back), "--to", "laion", "--base", str(checkpoint)]) == 0
    assert back.is_file() and "load_ckpt reads" in capsys.readouterr().out
    assert cli.main(to) == 2
    assert "is there already" in _one_line(capsys)
    assert cli.main(["convert", str(there), str(tmp_path / "x.pt"), "--to", "laion"]) == 2
    assert "--to laion needs --base" in _one_line(capsys)
    assert cli.main([*to[:2], str(tmp_path / "new"), *to[3:], "--base", str(checkpoint)]) == 2
    assert "--base goes with --to laion" in _one_line(capsys)
    assert cli.main(["convert", str(tmp_path / "none.pt"), *to[2:]]) == 2
