"""The command line: tables in, tables out, exit statuses, at most three lines for a mistake."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import click
import numpy as np
import pandas as pd
import pytest
from clap_folders import CAPTIONS, save_clap, save_clips

from humanclap import cli, load_clap, score_pairs
from humanclap.tables import read_table


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


def _table_of(content: str, folder):
    """A table of pairs by its content."""
    (folder / "own.csv").write_text(content, newline="")
    return folder / "own.csv"


def _one_line(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err and not captured.out
    return captured.err.strip()


# --- score: what comes out ------------------------------------------------------------------------------


def test_a_score_table_is_the_pairs_and_what_score_pairs_says(
    score, pairs, folder, clips, tmp_path, capsys, monkeypatch
):
    assert score() == 0
    table, given = pd.read_csv(tmp_path / "scores.csv"), pd.read_csv(pairs)
    pd.testing.assert_frame_equal(table[given.columns], given)
    paths = [str(clips[0] / audio) for audio in given["audio"]]
    expected = score_pairs(load_clap(folder, device="cpu"), paths, given["text"].tolist(), progress=False).iloc[:, 2:]
    pd.testing.assert_frame_equal(table[expected.columns], expected, atol=1e-6, check_dtype=False)
    out = capsys.readouterr().out
    assert "24 of 24 pairs scored" in out and f"mean CLAPScore {expected['clap_score'].mean():.4f}" in out
    low, high = map(float, re.search(r"95 % interval (-?[\d.]+) to (-?[\d.]+) .*5 captions", out).groups())
    assert low < expected["clap_score"].mean() < high
    first = (tmp_path / "scores.csv").read_bytes()
    monkeypatch.setattr("humanclap.files.ArrayCache.put", lambda *_: pytest.fail("something was embedded"))
    assert score() == 0 and (tmp_path / "scores.csv").read_bytes() == first


def test_each_row_keeps_its_columns_letter_for_letter_and_its_own_score(score, folder, clips, tmp_path):
    """Shuffled, with captions and columns that pandas would take for something else."""
    order = np.random.default_rng(0).permutation(24)
    texts = ["None", "NA", "007", "nan", " rain ", "rain", "half", "1e5"]
    rows = [[clips[1][i], texts[i % 8], f"{i:03d}", ["NA", "", "null", "1.0"][i % 4], "lone\rreturn"] for i in order]
    table = pd.DataFrame(rows, columns=["audio", "text", "take", "remark", "odd"])
    content = "audio,text,take,remark,odd\n" + "".join(f'{a},{b},{c},{d},"{e}"\n' for a, b, c, d, e in rows)
    assert score(table=_table_of(content, tmp_path)) == 0
    found = read_table(tmp_path / "scores.csv").frame()
    captions = [text.strip() for text in table["text"]]
    for column in ("audio", "take", "remark", "odd"):
        assert found[column].tolist() == table[column].tolist()
    assert found["text"].tolist() == captions
    clap = load_clap(folder, device="cpu")
    audio = clap.embed_audio([str(clips[0] / name) for name in table["audio"]])
    expected = (audio * clap.embed_text(captions)).sum(axis=1)
    np.testing.assert_allclose(found["cosine"].astype(float), expected, atol=1e-6)


def test_one_clip_and_one_caption_in_several_spellings_count_once(score, clips, tmp_path, capsys):
    name = clips[1][0]
    spellings = [name, f"./{name}", f" {name}", name.replace("/", "//")]
    content = "audio,text\n" + "".join(f'"{a}"," rain"\n"{a}",rain \n' for a in spellings)
    assert score(table=_table_of(content, tmp_path)) == 0
    found = pd.read_csv(tmp_path / "scores.csv")
    assert set(found["audio"]) == {name} and set(found["text"]) == {"rain"} and found["cosine"].nunique() == 1
    assert "no interval: 1 prompt, an interval needs 4" in capsys.readouterr().out


@pytest.mark.parametrize(("n", "interval"), [(3, False), (4, True)])
def test_the_mean_has_an_interval_from_4_captions_on(score, clips, tmp_path, capsys, n, interval):
    content = "audio,text\n" + "".join(f"{clips[1][i]},{CAPTIONS[i]}\n" for i in range(n))
    assert score(table=_table_of(content, tmp_path)) == 0
    assert ("95 % interval" in capsys.readouterr().out) == interval


def test_an_unnamed_empty_column_is_left_out_and_the_user_is_told(score, clips, tmp_path, capsys):
    content = f"audio,text\n{clips[1][0]},A tone,\n{clips[1][1]},Noise,\n"
    assert score(table=_table_of(content, tmp_path)) == 0
    assert read_table(tmp_path / "scores.csv").header[:3] == ["audio", "text", "cosine"]
    assert "note: " in (err := capsys.readouterr().err) and "an unnamed column that is empty throughout" in err


def test_files_without_a_score_are_named_and_the_exit_status_says_so(score, pairs, clips, tmp_path, capsys):
    table = pd.read_csv(pairs)
    (clips[0] / "spoilt.wav").write_text("no audio")
    table.loc[[3, 9, 10], "audio"] = ["none.wav", "spoilt.wav", "none.wav"]
    table.to_csv(pairs, index=False)
    assert score() == 1
    out = capsys.readouterr().out
    assert "21 of 24 pairs scored" in out and "2 file(s) have no score" in out
    assert "  none.wav: file not found" in out and "  spoilt.wav: not readable as audio" in out
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert len(scores) == 24 and scores.index[scores["cosine"].isna()].tolist() == [3, 9, 10]


def test_a_tilde_is_the_home_folder_everywhere(folder, clips, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(clips[0], home / "clips")
    shutil.copytree(folder, home / "tiny")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    given = ["--clap", "~/tiny", "--device", "cpu", "--quiet", "--cache", "~/cache"]
    (home / "pairs.csv").write_text(f"audio,text\n~/clips/{clips[1][0]},rain\n")
    assert cli.main(["score", "~/pairs.csv", "--out", "~/scores.csv", *given]) == 0
    (home / "below.csv").write_text(f"audio,text\n{clips[1][0]},rain\n")
    assert cli.main(["score", "~/below.csv", "--out", "~/below.csv.gz", "--audio-root", "~/clips", *given]) == 0
    cosines = [float(read_table(home / name).columns["cosine"][0]) for name in ("scores.csv", "below.csv.gz")]
    assert cosines[0] == cosines[1] and os.listdir(tmp_path) == ["home"]


# --- score: what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--clap", "no-such-clap"], "unknown CLAP 'no-such-clap'. Known: laion"),
        (["--precision", "fp8"], "precision must be one of fp32"),
        (["--batch-size", "many"], "'many' is not a valid integer"),
        (["--audio-root", "no-such-folder"], "--audio-root no-such-folder is no folder"),
        (["--out", "no-such-folder/scores.csv"], "there is no folder no-such-folder"),
        (["--out", "."], "--out . is a folder; give the name of a file"),
        (["--cache", "pyproject.toml/cache"], "the cache folder pyproject.toml/cache can't be written"),
        (["--shard", "1/2"], "No such option"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(score, more, message, capsys):
    assert score(*more) == 2
    line = _one_line(capsys)
    assert line.startswith("humanclap score: error: ") and message in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("audio,text\n", "has a header and no pairs"),
        ("audio,text\n\n,rain\n", "line 3, column 'audio'"),
        ("audio,text\n/a.wav,rain\n", "'/a.wav' is absolute"),
        ("audio,text\n~/a.wav,rain\n", "'~/a.wav' is absolute"),
        ("status,audio,text\nx,a.wav,rain\n", "line 1: status is what the score table itself has"),
        ('"audio","text"\n"1","tone.wav","A tone"\n', "line 2: 3 fields where the header has 2"),
        (",audio,text\n0,a.wav,rain\n", "line 2: column 1 has no name in the header and holds '0'"),
    ],
)
def test_a_wrong_table_is_one_line_and_status_2(score, content, message, tmp_path, capsys):
    assert score(table=_table_of(content, tmp_path)) == 2
    assert message in _one_line(capsys)
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize("arguments", [[], ["merge"], ["score", "a.csv", "--clap", "x"], ["--quiet"]])
def test_a_mistake_in_the_arguments_is_one_line_and_status_2(arguments, capsys):
    assert cli.main(arguments) == 2
    line = _one_line(capsys)
    assert line.startswith("humanclap") and ": error: " in line and "--help explains" in line


# --- where the table goes -------------------------------------------------------------------------------


def _command(*arguments, **how) -> subprocess.Popen:
    """`python -m humanclap`, with its output in pipes."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
    return subprocess.Popen([sys.executable, "-m", "humanclap", *map(str, arguments)], **how)


@pytest.fixture
def command_line(folder, clips, tmp_path, pairs):
    own = ["score", pairs, "--clap", folder, "--audio-root", clips[0], "--device", "cpu", "--quiet"]
    return [*own, "--cache", tmp_path / "cache", "--out"]


def test_a_table_in_a_pipe_has_nothing_else_in_it(command_line):
    out, err = (process := _command(*command_line, "/dev/stdout")).communicate(timeout=120)
    assert process.returncode == 0
    assert out.startswith("audio,text,rating,cosine") and out.count("\n") == 25
    assert "24 of 24 pairs scored -> /dev/stdout" in err


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_reader_that_goes_away_changes_neither_table_nor_status(command_line, tmp_path, closed):
    """As with `| head`: the table is written, so all is well."""
    read, write = os.pipe()
    os.close(read)
    process = _command(*command_line, tmp_path / "scores.csv", **{closed: write})
    os.close(write)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "Broken pipe" not in f"{out}{err}"
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 24


def test_a_console_that_cannot_print_a_name_changes_neither_table_nor_status(command_line, clips, pairs, tmp_path):
    pairs.write_text(f"audio,text\nhöhle-☂.wav,rain\n{clips[1][0]},Vögel\n", encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    out, err = (process := _command(*command_line, tmp_path / "scores.csv", env=environment)).communicate(timeout=120)
    assert process.returncode == 1 and r"h\xf6hle-\u2602.wav: file not found" in out and "Traceback" not in err
    assert read_table(tmp_path / "scores.csv").columns["audio"][0] == "höhle-☂.wav"


def test_a_table_that_cannot_be_written_in_the_end_is_kept_elsewhere(score, tmp_path, monkeypatch, capsys):
    if not os.path.exists("/dev/full"):
        pytest.skip("no device that is always full")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert score(out="/dev/full") == 2
    err = capsys.readouterr().err
    rescue = re.search(r"could not be written: No space left.*; the table is whole in (\S+)\n", err)[1]
    assert len(read_table(rescue).lines) == 24


def test_without_a_home_folder_the_message_names_the_options(command_line, tmp_path):
    """`docker run -u 54321`: no HOME, and an id without a name."""
    lines = "import pwd, sys\ndef nobody(uid): raise KeyError(uid)\npwd.getpwuid = nobody\n"
    lines += "from humanclap.cli import main\nsys.exit(main(sys.argv[1:]))"
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}

    def run(*arguments):
        command = [sys.executable, "-c", lines, *map(str, arguments), tmp_path / "scores.csv"]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)

    done = run(*(a for a in command_line if a not in ("--cache", tmp_path / "cache")))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no home folder here (HOME is not set); write the path out, with --cache DIR, or" in done.stderr
    done = run(*command_line)
    assert done.returncode == 0 and len(pd.read_csv(tmp_path / "scores.csv")) == 24
    assert not (tmp_path / "~").exists()


# --- help, and stopping ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [None, "score", "screen", "finetune", "convert", "fetch"])
def test_help_teaches_with_examples_that_parse(command, capsys):
    assert cli.main([command, "--help"] if command else ["--help"]) == 0
    text = capsys.readouterr().out
    examples = [line.partition("#")[0].split() for line in text.splitlines() if line.startswith("    humanclap ")]
    assert len(examples) >= (5 if command is None else 2)
    for _, name, *words in examples:
        with click.Context(cli.cli) as context:
            assert cli.cli.commands[name].make_context(name, words, parent=context).params


def test_help_needs_neither_torch_nor_pandas():
    code = (
        "import sys; from humanclap.cli import main; status = main(['--help']) or main(['score', '--help'])\n"
        "sys.exit(status or str({'torch', 'pandas', 'scipy', 'transformers'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() in ("", "0"), done.stderr
    shown = subprocess.run([sys.executable, "-m", "humanclap", "--version"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and re.fullmatch(r"humanclap \d+\.\d+\.\d+\n", shown.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_where_it_was(folder, tmp_path, how):
    root = tmp_path / "many"
    names = [str(p.relative_to(root)) for seed in range(30) for p in save_clips(root / str(seed), seed=100 + seed)]
    many = pd.DataFrame({"audio": names, "text": [CAPTIONS[i % 5] for i in range(len(names))]})
    many.to_csv(tmp_path / "many.csv", index=False)
    command = ["score", tmp_path / "many.csv", "--clap", folder, "--audio-root", root, "--device", "cpu", "--quiet"]
    command += ["--batch-size", "1", "--out", tmp_path / "scores.csv"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def kept():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "humanclap").rglob("*.npy")}

    process = _command(*command, env=environment)
    deadline = time.monotonic() + 60
    while len(kept()) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert how == signal.SIGKILL or err.endswith("humanclap score: stopped\n")
    before = kept()
    assert 20 <= len(before) < 180 and not (tmp_path / "scores.csv").exists()
    assert _command(*command, env=environment).wait(timeout=120) == 0
    assert {path: kept()[path] for path in before} == before  # read, not made again
    whole = score_pairs(load_clap(folder, device="cpu"), [root / name for name in names], many["text"], progress=False)
    scores = pd.read_csv(tmp_path / "scores.csv")
    np.testing.assert_allclose(scores["cosine"], whole["cosine"], atol=1e-6)


def test_several_processes_cannot_go_without_a_cache(score, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert score("--no-cache") == 2
    assert "leave --no-cache out" in _one_line(capsys)


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


def test_screen_refuses_what_is_no_ratings(pairs, tmp_path, capsys):
    for wrong in (pairs, tmp_path / "none.csv"):
        assert cli.main(["screen", str(wrong), "--out", str(tmp_path / "out.csv")]) == 2
        assert "humanclap screen: error: " in _one_line(capsys)


@pytest.mark.extra("laion")
def test_convert_there_and_back(folder, tmp_path, capsys):
    from laion_small import save_laion, small_laion

    checkpoint = save_laion(small_laion(False), tmp_path / "small.pt")
    there, back = tmp_path / "clapmodel", tmp_path / "back.pt"
    to = ["convert", str(checkpoint), str(there), "--to", "clapmodel", "--tokenizer", str(folder)]
    assert cli.main(to) == 0 and (there / "preprocessor_config.json").is_file()
    assert cli.main(["convert", str(there), str(back), "--to", "laion", "--base", str(checkpoint)]) == 0
    assert back.is_file() and "load_ckpt reads" in capsys.readouterr().out
    new = [*to[:2], str(tmp_path / "new"), *to[3:]]
    for mistake in (["convert", "a", "b", "--to", "laion"], [*new, "--base", str(checkpoint)]):
        assert cli.main(mistake) == 2 and "--to laion needs --base" in _one_line(capsys)
    assert cli.main(to) == 2 and "is there already" in _one_line(capsys)
