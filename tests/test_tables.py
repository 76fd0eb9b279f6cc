"""The one reader and the one writer of tables: strict about rows, and text comes back letter for letter."""

from __future__ import annotations

import gzip
import io
import json
import os
import threading

import numpy as np
import pandas as pd
import pytest

from humanclap.tables import (
    TableError,
    clip_name,
    read_scores,
    read_table,
    require_table_place,
    stays_below,
    write_table,
)


@pytest.fixture
def read(tmp_path):
    """`read_table` of some content under a name."""

    def run(content, name="t.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(tmp_path / name)

    return run


PLAIN = {"audio": ["tone.wav", "noise.wav"], "text": ["A tone, twice", "Noise"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'audio,text\ntone.wav,"A tone, twice"\nnoise.wav,Noise\n'),
        ("no_line_end_at_the_end.csv", 'audio,text\ntone.wav,"A tone, twice"\nnoise.wav,Noise'),
        ("windows.csv", '\ufeffaudio,text\r\ntone.wav,"A tone, twice"\r\nnoise.wav,Noise\r\n'),
        ("old_mac.csv", 'audio,text\rtone.wav,"A tone, twice"\rnoise.wav,Noise\r'),
        ("quoted.csv", '"audio" , text\n"tone.wav","A tone, twice"\n"noise.wav","Noise"\n'.replace('" ,', '",')),
        ("semicolons.csv", "audio;text\ntone.wav;A tone, twice\nnoise.wav;Noise\n"),
        ("t.tsv", "audio\ttext\ntone.wav\tA tone, twice\nnoise.wav\tNoise\n"),
        ("no_ending", "audio\ttext\ntone.wav\tA tone, twice\nnoise.wav\tNoise\n"),
        ("blank_lines.csv", '\n\naudio,text\n\ntone.wav,"A tone, twice"\n , \nnoise.wav,Noise\n\n'),
        ("trailing_comma.csv", 'audio,text\ntone.wav,"A tone, twice",\nnoise.wav,Noise,\n'),
        ("trailing_commas.csv", 'audio,text,,\ntone.wav,"A tone, twice",,\nnoise.wav,Noise, ,\n'),
        ("unnamed_first.csv", ',audio,text\n,tone.wav,"A tone, twice"\n,noise.wav,Noise\n'),
        ("t.jsonl", '{"audio": "tone.wav", "text": "A tone, twice"}\n\n{"text": "Noise", "audio": "noise.wav"}\n'),
        ("t.json", '[{"audio": "tone.wav", "text": "A tone, twice"},\n {"audio": "noise.wav", "text": "Noise"}]'),
    ],
)
def test_one_table_in_many_forms(read, name, content):
    table = read(content, name)
    assert table.columns == PLAIN
    n_unnamed = {"trailing_comma.csv": 1, "trailing_commas.csv": 2, "unnamed_first.csv": 1}.get(name, 0)
    assert sum("an unnamed column that is empty throughout" in note for note in table.notes) == n_unnamed
    assert read(gzip.compress(content.encode()), f"{name}.gz").columns == PLAIN
    assert read(gzip.compress(content.encode()), name).columns == PLAIN  # renamed by somebody


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # R's write.table: the names of the rows come first and the header knows nothing of them
        ('"audio","text"\n"1","tone.wav","A tone"\n"0","noise.wav","Noise"\n', "line 2: 3 fields where the header has 2"),
        ("audio\ttext\n1\ttone.wav\tA tone\n", "line 2: 3 fields where the header has 2"),
        ("audio,text,note\n1,tone.wav,A tone,\n7,noise.wav,Noise,\n", "line 2: 4 fields .* number in every line: if these are row"),
        ("audio,text\na,b\nc,d,e\n", "line 3: 3 fields where the header has 2"),
        ("audio,text\na,b\n\nc\n", "line 4: 1 fields where the header has 2"),
        ('audio,text\na,"b\nb"\nc,rain, loud\n', "line 4: 3 fields where the header has 2"),
        (",audio,text\n0,a,b\n", "line 2: column 1 has no name in the header and holds '0'"),
        ("audio,text,\na,b,\nc,d,keep me\n", "line 3: column 3 has no name .* holds 'keep me'"),
        ("audio,text,text\na,b,c\n", "line 1: column 'text' is there more than once"),
        ("audio,text, text\na,b,c\n", "line 1: column 'text' is there more than once"),
        ('audio,text\na,b\nc,"d\n', "after line 2: a quote is opened there and never closed"),
        ('audio,text\na,"b"c\n', "after line 1: "),
        (b"audio,text\na,b\nc,d\0\n", "line 3 holds the byte 0x00"),
        ("audio,text\na,caf\xe9\n".encode("latin-1"), "line 2 holds the byte 0xe9. Save it again as UTF-8"),
        ("audio,text\na,b\n".encode("utf-16"), "it is UTF-16"),
        (b"PK\x03\x04" + bytes(50), "a spreadsheet or another zip; export it as CSV UTF-8"),
        (b"\x1f\x8b\x08broken", "can't be unpacked"),
        (gzip.compress(b"audio,text\na,b\n" * 99, mtime=0)[:-20], "can't be unpacked .* cut short"),
    ],
)  # fmt: skip
def test_what_would_move_a_value_to_another_row_or_column_is_refused_with_its_line(read, content, message):
    with pytest.raises(TableError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"audio": "a"}\n{"audio"\n', "line 2 is not JSON, one object per line"),
        ('{"audio": "a"}\n\n["b"]\n', "line 3: .* is not an object such as"),
        ('{"audio": "a", "audio": "b"}\n', "a name is there twice"),
        ('{"audio": "a", "tags": ["b"]}\n', "line 1, column 'tags': a list or an object"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_json_that_is_no_table_is_refused_with_its_line(read, content, message):
    with pytest.raises(TableError, match=message):
        read(content, "t.jsonl")


def test_messages_name_line_column_value_and_count(read):
    table = read('audio,text\n\na,"one\ntwo"\nb, \nc,\n')
    assert table.lines == [4, 5, 6]
    with pytest.raises(TableError, match=r"line 5, column 'text': ' ' is not allowed; fill it in \(2 such lines\)"):
        table.require("text", lambda value: bool(value.strip()), "fill it in")
    with pytest.raises(TableError, match="line 1: no column 'rating', 'x'; it has: 'audio', 'text'"):
        table.need(("text", "rating", "x"))
    with pytest.raises(TableError, match="has a header and no pairs; one line per pair is needed"):
        read("audio,text\n").need(("audio",), row="pair")
    for empty in ("", "\n\n", "\ufeff"):
        with pytest.raises(TableError, match="is empty; a header with audio"):
            read(empty).need(("audio",))


# --- letter for letter ----------------------------------------------------------------------------------

ODD = [
    "None", "NA", "nan", "null", "", "007", "0012", "1e5", "1.0", "-0", "True", "  spaces  ", "\ttab", 'a "quote"', "'",
    "a,b;c", "lone\rreturn", "line\nfeed", "both\r\nof them", "é", "e\u0301", "\u2028", "👍", "=1+1", "#", "\ufeff", "\\n",
]  # fmt: skip


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.csv.gz", "t.tsv.gz", "t.jsonl.gz", "t"])
def test_text_comes_back_letter_for_letter(tmp_path, name):
    content = {"audio": "a.wav", "text": ODD, "odd \r, name": ODD[::-1]}
    frame = pd.DataFrame(content, index=np.arange(len(ODD))[::-1], dtype=object)
    write_table(frame, tmp_path / name)
    table = read_table(tmp_path / name)
    assert table.columns == {column: frame[column].tolist() for column in frame}
    assert table.frame().equals(frame.reset_index(drop=True)) and not table.notes
    content = (tmp_path / name).read_bytes()
    assert (content[:2] == b"\x1f\x8b") == name.endswith(".gz")
    first = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    if "json" in name:
        assert json.loads(first.splitlines()[0] if "jsonl" in name else first)
    write_table(table.frame(), tmp_path / f"again-{name}")
    assert (tmp_path / f"again-{name}").read_bytes() == content


def test_numbers_of_json_are_written_as_they_were_read(read, tmp_path):
    line = '{"audio": "a.wav", "take": 7.50, "n": 1E5, "big": 12345678901234567890, "ok": true, "none": null, "id": "007"}\n'
    table = read(line, "t.jsonl")
    assert [table.columns[name][0] for name in ("take", "n", "ok", "none", "id")] == ["7.50", "1E5", "true", "", "007"]
    write_table(table.frame(), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == line.replace("null", '""')


def test_half_an_emoji_can_be_read_and_written(read, tmp_path):
    table = read('{"text": "half \\ud83d"}\n', "t.jsonl")
    assert table.columns["text"] == ["half \ud83d"]
    write_table(table.frame(), tmp_path / "out.jsonl")
    assert read_table(tmp_path / "out.jsonl").columns == table.columns
    write_table(table.frame(), tmp_path / "out.csv")
    assert read_table(tmp_path / "out.csv").columns["text"] == ["half \\ud83d"]


def test_an_ordinary_table_is_what_pandas_reads(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"audio": ["a", "b", "c"], "x": rng.standard_normal(3) * 10.0 ** rng.integers(-30, 30, 3)})
    frame = frame.assign(n=[1, 2, 3], missing=[0.1, None, np.inf], flag=[True, False, True], small=np.float32(0.1))
    write_table(frame, tmp_path / "t.csv")
    back = pd.read_csv(tmp_path / "t.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(back, frame.assign(small=frame["small"].astype(float)), check_exact=True)
    lines = pd.read_json(
        io.StringIO(write_table(frame, tmp_path / "t.jsonl").read_text().replace("inf", "1e999")), lines=True
    )
    np.testing.assert_allclose(lines["x"], frame["x"], rtol=1e-12)
    write_table(frame, tmp_path / "r.csv", float_format="%.2g")
    assert (tmp_path / "r.csv").read_text().splitlines()[1].split(",")[3] == "0.1"


def test_a_score_table_comes_back_with_its_numbers_and_its_captions(tmp_path):
    rng = np.random.default_rng(1)
    scores = pd.DataFrame(
        {
            "audio": ["1.wav", "2.wav", "3.wav"],
            "text": ["None", "NA", "1e5"],
            "system": [None, None, None],
            "split": "test",
            "n_ratings": [3, 4, 5],
            "target": rng.random(3),
            "cosine": [-0.1234567890123456, float("nan"), rng.random()],
            "status": ["ok", "too short", "ok"],
            "model": ["nan", "007", "x"],
            "checkpoint_sha256": ["1e10", "00", "123"],
            "training_seed": [0.0, float("nan"), 1.0],
        }
    )
    scores = scores.astype({name: object for name in scores if scores[name].dtype.kind not in "if"})
    back = read_scores(write_table(scores, tmp_path / "01_scores.csv"))
    pd.testing.assert_frame_equal(back, scores, check_exact=True)
    (tmp_path / "bad.csv").write_text("audio,target\na,0.5\nb,high\n")
    with pytest.raises(
        TableError, match="bad.csv, line 3, column 'target': 'high' is not allowed; it must be a number"
    ):
        read_scores(tmp_path / "bad.csv")


# --- where tables go ------------------------------------------------------------------------------------

SMALL = pd.DataFrame({"audio": ["a"], "text": ["b"]})


def test_a_pipe_is_written_into(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv.gz")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe.csv.gz").read_bytes()))
    reader.start()
    require_table_place(tmp_path / "pipe.csv.gz")
    write_table(SMALL, tmp_path / "pipe.csv.gz")
    reader.join(timeout=60)
    assert gzip.decompress(found[0]) == b"audio,text\na,b\n"
    assert not (tmp_path / "pipe.csv.gz").is_file()
    write_table(SMALL, "/dev/null")
    assert not os.path.isfile("/dev/null")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_write_that_fails_at_the_end_leaves_the_table_in_a_named_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(
        OSError, match="/dev/full could not be written: No space left.*; the table is whole in "
    ) as told:
        write_table(SMALL, "/dev/full")
    rescue = str(told.value).rpartition(" in ")[2]
    assert rescue.startswith(str(tmp_path)) and read_table(rescue).columns == {"audio": ["a"], "text": ["b"]}


def test_a_format_that_is_not_written_is_refused_before_the_work(tmp_path):
    for name in ("t.xlsx", "t.parquet", "t.csv.bz2", "t.zip"):
        with pytest.raises(ValueError, match="a table is written as .csv, .tsv, .jsonl, .json, each also with .gz"):
            require_table_place(tmp_path / name)
    with pytest.raises(OSError, match="--out .*there is no folder"):
        require_table_place(tmp_path / "none" / "t.csv", "--out")


def test_one_clip_has_one_name_and_a_path_stays_below_its_root():
    same = {clip_name(name) for name in ("a/dog.wav", "./a/dog.wav", " a/dog.wav ", "a//dog.wav", "a/./dog.wav")}
    assert same == {"a/dog.wav"} and clip_name("~/a.wav") == "~/a.wav" and clip_name("../a.wav") == "../a.wav"
    assert clip_name("/x/a b.wav") == "/x/a b.wav" and clip_name(" ") == ""
    assert all(map(stays_below, ("a.wav", "a/b.wav", "./a.wav", "a..b.wav")))
    assert not any(
        map(stays_below, ("/a.wav", "../a.wav", "a/../../b", "C:\\a.wav", "a\\b.wav", "~/a.wav", "a\nb.wav"))
    )
