"""Every layout of a table or folder gives the scores of the plain table, byte for byte."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from finetune_small import make_clap

from humanclap.cli import main
from humanclap.layouts import read_layout
from humanclap.tables import TableError, write_table

IDS = ("-a1_x", "007", "c 3")
CAPTIONS = ("rain", "a dog, then a cat", "None")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with three clips, a tiny CLAP, and the scores of the plain table."""
    root = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number, name in enumerate(IDS):
        soundfile.write(root / f"{name}.wav", rng.normal(0, 0.1, 8000), 8000)
        for copy in (f"output_{number}.wav", f"by_line_{number + 1}.wav"):
            soundfile.write(root / copy, soundfile.read(root / f"{name}.wav")[0], 8000)
    for system in ("one", "two"):
        (root / "generated" / system).mkdir(parents=True)
        for name in IDS:
            wave = soundfile.read(root / f"{name}.wav")[0] * (1 if system == "one" else 0.5)
            soundfile.write(root / "generated" / system / f"{name}.wav", wave, 8000)
    make_clap(root / "clap", CAPTIONS * 20)
    plain = pd.DataFrame({"audio": [f"{name}.wav" for name in IDS], "text": CAPTIONS})
    plain.to_csv(root / "plain.csv", index=False)
    return root, score(root, "plain.csv")


def score(root, source, *more, out="out.csv", status=0):
    """The bytes of the columns that scoring adds, in the order of the rows; and the whole table."""
    command = ["score", str(root / source), *more, "--clap", str(root / "clap"), "--out", str(root / out), "--quiet"]
    found = (
        ["--audio-root", str(root)] if (root / source).is_file() and not {"--systems", "--system"} & set(more) else []
    )
    assert main([*command, *found, "--cache", str(root / "cache"), "--device", "cpu"]) == status
    table = pd.read_csv(root / out, dtype=str, keep_default_na=False)
    return table[["cosine", "clap_score", "status"]].to_csv(index=False), table


def write(root, name, content):
    (root / name).write_text(content if isinstance(content, str) else "".join(json.dumps(r) + "\n" for r in content))
    return name


ROWS = list(zip(IDS, CAPTIONS, strict=True))
CSV = "".join(f'{name},"{text}"\n' for name, text in ROWS)


@pytest.mark.parametrize(
    ("name", "content", "more"),
    [
        ("audiocaps.csv", "audiocap_id,youtube_id,start_time,caption\n" + "".join(f'{i},y,0,"{t}"\n' for i, t in ROWS), ()),
        ("dotted.csv", "File.Name,the text[0]\n" + CSV, ("--audio", "{File.Name}.wav", "--text", "the text[0]")),
        ("lines_from_1.txt", "".join(f"{t}\n" for _, t in ROWS), ("--audio", "by_line_{line}.wav")),
        ("padded.txt", "".join(f"{t}\n" for _, t in ROWS), ("--audio", "output_{row:01d}.wav")),
        ("youtube.csv", "audiocap_id,youtube_id,start_time,caption\n" + "".join(f'9{n},output,{n},"{t}"\n' for n, (_, t) in enumerate(ROWS)), ()),
        ("musiccaps.csv", "ytid,start_s,caption\n" + "".join(f'{i},0,"{t}"\n' for i, t in ROWS), ()),
        ("names.csv", "name,caption\n" + CSV, ()),
        ("ids.tsv", "clip_id\tsaid\n" + "".join(f"{i}\t{t}\n" for i, t in ROWS), ("--audio", "{clip_id}.wav", "--text", "said")),
        ("tango.jsonl", [{"location": f"{i}.wav", "captions": t} for i, t in ROWS], ()),
        ("outputs.jsonl", [{"location": "elsewhere.flac", "captions": t} for _, t in ROWS], ("--audio", "output_{row}.wav")),
        ("audioldm.json", json.dumps({"data": [{"wav": f"{i}.wav", "caption": t} for i, t in ROWS]}), ()),
        ("records.json", json.dumps([{"file_name": f"{i}.wav", "text": t} for i, t in ROWS]), ()),
        ("metadata.jsonl", [{"file_name": f"{i}.wav", "text": t} for i, t in ROWS], ()),
        ("pairs.lst", "".join(f"{i}.wav|{t}\n" for i, t in ROWS), ()),
        ("lines.txt", "".join(f"{t}\n" for _, t in ROWS), ("--audio", "output_{row}.wav")),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and len(value) < 20 else "",
)  # fmt: skip
def test_a_layout_is_scored_as_the_plain_table(clips, name, content, more, capsys):
    root, (plain, _) = clips
    scores, table = score(root, write(root, name, content), *more)
    assert scores == plain
    said = capsys.readouterr().err
    assert "the first pair is" in said and CAPTIONS[0] in said  # a guess is not silent
    assert table["text"].tolist() == list(CAPTIONS)


def test_kaldi_is_joined_by_id(clips):
    root, (plain, _) = clips
    write(root, "wav.scp", "".join(f"u{n} {i}.wav\n" for n, (i, _) in enumerate(ROWS)))
    write(root, "text", "".join(f"u{n} {t}\n" for n, (_, t) in reversed(list(enumerate(ROWS)))))
    assert score(root, "wav.scp", str(root / "text"))[0] == plain


def test_kaldi_with_tabs_and_captions_with_odd_breaks(clips, tmp_path):
    root, _ = clips
    scp = tmp_path / "wav.scp"
    scp.write_text("u1\t-a1_x.wav\nu2   007.wav\n")
    (tmp_path / "text").write_text("u1\ta dog barks\nu2   rain\u2028and wind\n")
    found = read_layout(scp, root, tmp_path / "text")
    assert found.pairs[["audio", "text"]].values.tolist() == [
        ["-a1_x.wav", "a dog barks"],
        ["007.wav", "rain\u2028and wind"],
    ]


def test_what_would_be_replaced_is_refused_and_numbers_stay_numbers(clips, tmp_path):
    root, _ = clips
    (tmp_path / "two.csv").write_text("file,text,caption\n007.wav,mine,rain\n")
    with pytest.raises(TableError, match="line 1: column 'text' would be replaced; rename it"):
        read_layout(tmp_path / "two.csv", root, text="caption")
    assert read_layout(tmp_path / "two.csv", root).pairs["text"].tolist() == ["mine"]
    (tmp_path / "data.json").write_text('{"data": [{"wav": "007", "caption": "rain", "year": 2020, "share": 0.50}]}')
    found = read_layout(tmp_path / "data.json", root)
    write_table(found.pairs, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == (
        '{"audio": "007.wav", "text": "rain", "wav": "007", "caption": "rain", "year": 2020, "share": 0.50}\n'
    )
    assert "1 clips found by their names without the ending" in found.notes[-1]
    with pytest.raises(TableError, match="is a folder: its clips lie in it"):
        read_layout(root / "generated" / "one", root)


def test_a_folder_with_sidecars_is_scored_and_what_is_alone_is_counted(clips, tmp_path, capsys):
    root, (plain, _) = clips
    for name, text in ROWS:
        (tmp_path / f"{name}.wav").write_bytes((root / f"{name}.wav").read_bytes())
        (tmp_path / f"{name}.txt").write_text(text + "\n")
    (tmp_path / "README.txt").write_text("about these")
    (tmp_path / "._c 3.txt").write_bytes(b"\x00\xff")
    found = read_layout(tmp_path)
    assert set(found.pairs["text"]) == set(CAPTIONS) and ".txt files have no clip: README" in found.notes[0]
    out = ["--out", str(root / "s.csv"), "--quiet", "--device", "cpu"]
    assert main(["score", str(tmp_path), "--clap", str(root / "clap"), "--cache", str(root / "cache"), *out]) == 0
    table = pd.read_csv(root / "s.csv", dtype=str, keep_default_na=False).set_index("text")
    assert table.loc[list(CAPTIONS), ["cosine", "clap_score", "status"]].to_csv(index=False) == plain


def test_five_captions_make_five_rows_and_the_summary_their_mean_and_highest(clips):
    root, (_, plain) = clips
    rows = "file_name,caption_1,caption_2\n" + "".join(f'{i}.wav,"{t}",rain\n' for i, t in ROWS)
    _, table = score(root, write(root, "clotho.csv", rows), "--summary", str(root / "summary.json"))
    assert len(table) == 6 and table["caption_number"].tolist() == ["1"] * 3 + ["2"] * 3
    assert table["cosine"][:3].astype(float).to_numpy() == pytest.approx(
        plain["cosine"].astype(float).to_numpy(), abs=1e-12
    )
    by_clip = table.assign(value=table["clap_score"].astype(float)).groupby("audio")["value"]
    summary = json.loads((root / "summary.json").read_text())
    (row,) = summary["systems"]
    assert row["mean_of_highest"] == pytest.approx(by_clip.max().mean())
    assert row["mean_of_means"] == pytest.approx(by_clip.mean().mean()) and summary["checkpoint_sha256"]


def test_several_systems_in_one_command(clips, capsys):
    root, (plain, _) = clips
    prompts = write(root, "prompts.csv", "id,prompt\n" + CSV)
    more = ("--systems", str(root / "generated"), "--summary", str(root / "summary.json"))
    scores, table = score(root, prompts, *more)
    assert table["system"].tolist() == ["one"] * 3 + ["two"] * 3
    assert table.head(3)[["cosine", "clap_score", "status"]].to_csv(index=False) == plain
    said = capsys.readouterr().out
    assert "one: " in said and "3 clips, 0 without a score, on shared captions" in said
    summary = json.loads((root / "summary.json").read_text())
    assert {row["system"]: row["clips"] for row in summary["systems"]} == {"one": 3, "two": 3}
    named = [part for name in ("one", "two") for part in ("--system", f"{name}={root / 'generated' / name}")]
    assert score(root, prompts, *named)[0] == scores
    (root / "generated" / "two" / "007.wav").rename(root / "007.wav.gone")
    lost, table = score(root, prompts, *more, status=1)
    (root / "007.wav.gone").rename(root / "generated" / "two" / "007.wav")
    assert (table["status"] == "ok").sum() == 5 and json.loads((root / "summary.json").read_text())["failed"] == 1


def test_pam_names_a_clip_by_its_model_and_file(clips):
    root, (plain, _) = clips
    rows = "Model,File Name,OVL,REL,text\n" + "".join(f'generated/one,{i},3,4,"{t}"\n' for i, t in ROWS)
    assert score(root, write(root, "pam.csv", rows))[0] == plain
