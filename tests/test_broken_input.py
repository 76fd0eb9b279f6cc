"""Broken ratings, audio, captions, checkpoints, tables and settings: each is broken for real, and the message must name
what is wrong, where, and what mends it. CASES is the table; docs/broken-input.md shows it (broken_input_doc.py).
"""

from __future__ import annotations

import functools
import json
import logging
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from broken_input_doc import DOC, current
from clap_folders import save_clap
from safetensors.torch import load_file, save_file

from humanclap import evaluate, finetune, load_clap, rated_sets, relate, report, score_pairs, study
from humanclap.cli import read_pairs
from humanclap.files import ArrayCache
from humanclap.layouts import read_layout


@dataclass(frozen=True)
class Case:
    """One kind of broken input: `act` breaks it in an empty folder and uses it; `holds` must be in the message."""

    about: str
    broken: str
    does: str
    act: Callable[[Path], object]
    holds: tuple[str, ...]


CASES: list[Case] = []


def section(about: str, does: str = "") -> Callable:
    """A function that enters cases of one subject, in which the user does `does` unless a case says otherwise."""

    def enter(broken: str, act: Callable[[Path], object], *holds: str, does: str = does) -> None:
        CASES.append(Case(about, broken, does, act, holds))

    return enter


def told(one: Case, folder: Path) -> str:
    """What the user sees, with "…" for the folder. AssertionError where the input was taken as if it were whole."""
    try:
        said = one.act(folder)
    except (ValueError, TypeError, OSError, study.StudyError) as error:
        said = str(error)
    assert isinstance(said, str) and said, f"nothing was said of {one.broken}"
    for place in {str(folder), str(folder.resolve())}:
        said = said.replace(f"{place}/", "…/").replace(place, "…")
    return " ".join(said.split())


def write(path: Path, content: str | bytes = b"") -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- ratings --------------------------------------------------------------------------------------------

ratings = section("Ratings", "relate.load_ratings('REL.csv')")
HEADER = "wavname,text,score,listener_id,audio type,anchor label,in RELATE dataset"
LINE = "/tango/test/1.wav,A dog barks,8,0007,tango,False,test"


def lines(*lines: str, header: str = HEADER) -> Callable:
    return content("\n".join([header, *lines]))


def content(content: str | bytes) -> Callable:
    return lambda folder: relate.load_ratings(write(folder / "REL.csv", content))


def changed(*change: str) -> Callable:
    """A good line, and one in which `change` is replaced."""
    return lines(LINE, LINE.replace("1.wav", "2.wav").replace(*change))


def table(**columns) -> pd.DataFrame:
    """Two ratings past the loader, with columns changed."""
    base = {"audio": ["tango/test/1.wav", "tango/test/2.wav"], "text": ["A dog", "Rain"], "rating": [8, 3]}
    base |= {"listener": ["0007", "0007"], "system": "tango", "split": "test", "is_anchor": False}
    return pd.DataFrame(base | columns)


ratings(
    "no such file", lambda folder: relate.load_ratings(folder / "ratings.csv"),
    "ratings.csv is not there", "scores/REL.csv", does="relate.load_ratings('ratings.csv')",
)  # fmt: skip
ratings("an empty file", content(b""), "REL.csv is empty", "a header with wavname, text, score")
ratings("a header and nothing below it", content(HEADER + "\n"), "a header and no ratings", "one line per rating")
ratings(
    "a column is missing", lines(LINE, header=HEADER.replace("score", "rating")), "REL.csv, line 1: no column 'score'"
)
ratings("a rating of 11", changed(",8,", ",11,"), "line 3, column 'score': '11'", "whole number from 0 to 10")
ratings("a rating in words", changed(",8,", ",good,"), "line 3, column 'score': 'good' is not allowed", "from 0 to 10")
ratings("a rating without its listener", changed("0007", ""), "line 3, column 'listener_id'", "must not be empty")
ratings("a line twice", lines(LINE, LINE), "line 3: listener 0007 has rated", "line 2", "remove one of the lines")
ratings(
    "an unknown folder of clips", changed("/tango/", "/stable/"), "'/stable/test/2.wav' is not allowed", "audiocaps"
)
ratings("a path that leaves the clips' folder", changed("/tango/test", "/tango/../.."), "must stay below RELATE_wave")
ratings("a line cut short", lines(LINE, "/tango/test/2.wav,A dog barks,8"), "line 3: 3 fields where the header has 7")
ratings("another file, not text", content(b"PK\x03\x04" + bytes(range(128, 256))), "a spreadsheet", "as CSV UTF-8")
ratings(
    "saved as Latin-1", content(f"{HEADER}\n{LINE}\n{LINE.replace('A dog', 'Un café')}".encode("latin-1")),
    "line 3 holds the byte 0xe9", "Save it again as UTF-8",
)  # fmt: skip
ratings("a quote that is never closed", changed("A dog", '"A dog'), "after line 2: a quote", "never closed")
ratings("an anchor label that is neither", changed("False", "perhaps"), "column 'anchor label': 'perhaps'", "True or F")
ratings(
    "a pair in two splits", lines(LINE, LINE.replace("0007", "0008").replace("False,test", "False,validation")),
    "line 3, column 'in RELATE dataset'", "belongs to one of train, validation",
)  # fmt: skip
ratings(
    "a threshold off the scale", lambda folder: relate.screen_listeners(table(), 11),
    "max_anchor_mean must be a number from 0 to 10, not 11", does="relate.screen_listeners(ratings, 11)",
)  # fmt: skip
ratings(
    "listeners who rated no anchor", lambda folder: relate.screen_listeners(table()),
    "1 of 1 listeners have no anchor", "leave these listeners out", does="relate.screen_listeners(ratings)",
)  # fmt: skip
ratings(
    "anchors among the ratings", lambda folder: relate.aggregate_pairs(table(is_anchor=[True, False])),
    "1 of 2 ratings are anchors", "pass screen_", does="relate.aggregate_pairs(ratings)",
)  # fmt: skip
ratings(
    "True and False as text", lambda folder: relate.aggregate_pairs(table(is_anchor=["False", "False"])),
    "is_anchor holds 'False'", "True and False", does="relate.aggregate_pairs(ratings)",
)  # fmt: skip
ratings(
    "more training pairs than there are",
    lambda folder: relate.split_train_validation(relate.aggregate_pairs(table(split="train")), 1925),
    "n_train=1925 of 2 training pairs", "allowed is 1 to 1", does="relate.split_train_validation(pairs, 1925)",
)  # fmt: skip

# --- other rated sets -----------------------------------------------------------------------------------

rated_set = section("Other rated sets", "rated_sets.load_rated_set('mine.csv')")


def mine(*lines: str, header: str = "audio,text,rating", **settings) -> Callable:
    return lambda folder: rated_sets.load_rated_set(write(folder / "mine.csv", "\n".join([header, *lines])), **settings)


rated_set("no column with ratings", mine("a.wav,A dog,7", header="audio,text,mark"), "line 1: no column for rating")
rated_set(
    "a column in both of XACLE's spellings", mine("a,a,b,1,c", header="wave_file_name,wav_file_name,text,score,listener_id"),
    "'wave_file_name', 'wav_file_name'", "keep one of them",
)  # fmt: skip
rated_set("RELATE's own file", mine(LINE, header=HEADER), "mine.csv is in RELATE's own format", "relate.load_ratings")
rated_set("another scale than 0 to 10", mine("a.wav,A dog,87"), "'rating': '87'", "run from 0 to 10", "scale=(lowest")
rated_set(
    "the scale the wrong way round", mine("a.wav,A dog,4", scale=(5, 1)),
    "scale=(5, 1)", "(1, 5)", does="load_rated_set('mine.csv', scale=(5, 1))",
)  # fmt: skip
rated_set("decimals with a comma", mine("a.wav;A dog;7,5", header="audio;text;rating"), "'7,5'", "with a point")
rated_set("an empty caption", mine("a.wav,,7"), "mine.csv, line 2, column 'text'", "a caption must not be empty")
rated_set(
    "an absolute path", mine("/data/a.wav,A dog,7"), "'/data/a.wav' is not allowed", "relative to the audio's root"
)
rated_set("clips that are not there", mine("a.wav,A dog,7", "b.wav,Rain,3"), "2 of 2 clips are not in …", "audio_root")
rated_set(
    "a system in some lines only", mine("a.wav,A dog,7,mine", "b.wav,Rain,3,", header="audio,text,rating,system"),
    "line 3, column 'system'", "name the system in every line, or in none",
)  # fmt: skip
rated_set(
    "one listener twice on a pair", mine("a.wav,A dog,7,ann", "a.wav,A dog,6,ann", header="audio,text,rating,listener"),
    "line 3: listener ann has rated a.wav", "on line 2", "remove one of",
)  # fmt: skip
rated_set(
    "a folder without XACLE's files", rated_sets.load_rated_set,
    "holds no rated set", "meta_data/train.csv", does="load_rated_set('xacle')",
)  # fmt: skip

# --- audio ----------------------------------------------------------------------------------------------

audio = section("Audio", "score_pairs(clap, ['bad.wav'], ['rain'])")
SINE = 0.1 * np.sin(np.arange(16_000))


@functools.cache
def clap_folder() -> Path:
    """A tiny random ClapModel, made once."""
    return save_clap(Path(tempfile.mkdtemp(prefix="humanclap-broken-")) / "tiny")


@functools.cache
def clap():
    return load_clap(clap_folder(), device="cpu")


def status(make: Callable[[Path], object]) -> Callable:
    """The status of one bad clip, beside a good one that is scored all the same."""

    def act(folder: Path) -> str:
        soundfile.write(folder / "good.wav", SINE, 16_000)
        make(folder / "bad.wav")
        scores = score_pairs(clap(), [folder / "bad.wav", folder / "good.wav"], ["rain", "rain"], progress=False)
        assert scores["status"][1] == "ok" and scores["clap_score"].notna().tolist() == [False, True]
        return f"status: {scores['status'][0]}"

    return act


def samples(samples: np.ndarray, rate: int = 16_000, change: Callable[[bytes], bytes] = bytes, **form) -> Callable:
    """Make a WAV of them, then change its bytes."""

    def make(path: Path) -> None:
        soundfile.write(path, samples, rate, **form)
        path.write_bytes(change(path.read_bytes()))

    return make


def embedded(name: str, make: Callable[[Path], object]) -> Callable:
    return lambda folder: (make(folder / name), clap().embed_audio([folder / name]))


audio("no such clip", status(lambda path: None), "file not found")
audio(
    "no such clip, embedded by itself", embedded("bad.wav", lambda path: None),
    "…/bad.wav: file not found", does="clap.embed_audio(['bad.wav'])",
)  # fmt: skip
audio("a folder in the place of a clip", status(Path.mkdir), "not a file but a folder")
audio("a named pipe in the place of a clip", status(os.mkfifo), "not a file but a named pipe")
audio("a sample rate of 1 Hz", status(samples(np.ones(32_000) / 2, 1)), "a broken header: its sample rate is 1 Hz")
audio("a file of 0 bytes", status(write), "the file is empty (0 bytes)")
audio(
    "text under the name of a clip", status(lambda path: write(path, "this is a caption")),
    "not readable as audio", "make it a WAV, FLAC",
)  # fmt: skip
audio("a header without sound", status(samples(np.zeros(0))), "the file holds no samples")
audio("a clip of 10 ms", status(samples(np.ones(160))), "too short: 0.010 s, at least 0.05 s is needed")
audio("samples that are NaN", status(samples(np.full(16_000, np.nan), subtype="FLOAT")), "samples hold NaN or infinity")
audio(
    "a WAV cut short in copying", status(samples(SINE, change=lambda whole: whole[:16_000])),
    "cut short: its header says 32,036 bytes, 15,992 are there", "copy it",
)  # fmt: skip
audio(
    "a FLAC cut short",
    embedded("bad.flac", samples(SINE + np.random.default_rng(0).normal(0, 0.1, 16_000), change=lambda c: c[: len(c) // 2])),
    "bad.flac: cut short or damaged", "copy it again", does="clap.embed_audio(['bad.flac'])",
)  # fmt: skip
audio(
    "a sample rate of 0 in the header", status(samples(SINE, change=lambda c: c[:24] + bytes(4) + c[28:])),
    "not readable as audio", "make it a WAV, FLAC",
)  # fmt: skip
audio(
    "samples without a header", embedded("clip.raw", lambda path: write(path, bytes(32_000))),
    "clip.raw: not readable as audio", "make it a WAV", does="clap.embed_audio(['clip.raw'])",
)  # fmt: skip

# --- captions and lists of pairs ------------------------------------------------------------------------

caption, listed = (
    section("Captions and lists of pairs"),
    section("Captions and lists of pairs", "humanclap score pairs.csv"),
)


def scored(*arguments) -> Callable:
    return lambda folder: score_pairs(clap(), *arguments, progress=False)


def half(folder: Path) -> str:
    soundfile.write(folder / "a.wav", SINE, 16_000)
    return f"status: {score_pairs(clap(), [folder / 'a.wav'], ['rain ' + chr(0xD83D)], progress=False)['status'][0]}"


def long(folder: Path) -> str:
    said, logger = [], logging.getLogger("humanclap")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    clap().embed_text(["a dog and " * 60])
    logger.removeHandler(handler)
    return f"logged: {said[0]}"


caption(
    "an empty caption", scored(["a.wav", "b.wav"], ["rain", " "]),
    "row 1: the caption is ' '", "not empty", does="score_pairs(clap, paths, ['rain', ' '])",
)  # fmt: skip
caption(
    "a caption that is missing", scored(["a.wav"], [None]), "row 0: the caption is None", does="score_pairs(clap, paths, [None])"
)  # fmt: skip
caption("a number for a caption", lambda folder: clap().embed_text([7]), "caption 0 is 7", does="clap.embed_text([7])")
caption(
    "half an emoji in a caption", half,
    "holds half a character", "write it again", does="score_pairs(clap, paths, ['\\ud83d'])",
)  # fmt: skip
caption(
    "one caption in place of a list", scored(["a.wav"], "rain"),
    "texts is one str, 'rain'", "a list", does="score_pairs(clap, paths, 'rain')",
)  # fmt: skip
caption(
    "more clips than captions", scored(["a.wav", "b.wav"], ["rain"]),
    "2 audio_paths and 1 texts", "as many of each", does="score_pairs(clap, two, one)",
)  # fmt: skip
caption("a caption longer than the model reads", long, "first 48 tokens", "shorten it", does="clap.embed_text([long])")


def pairs(name: str, content: str) -> Callable:
    return lambda folder: read_pairs(write(folder / name, content))


listed(
    "a CSV without captions", pairs("pairs.csv", "audio,label\na.wav,rain\n"),
    "pairs.csv, line 1: no column of captions", "it has: audio, label",
)  # fmt: skip
listed(
    "a caption missing in a CSV", pairs("pairs.csv", "audio,text\na.wav,rain\nb.wav, \n"),
    "pairs.csv, line 3, column 'text'", "a caption must not be empty",
)  # fmt: skip
listed(
    "a table that holds scores already", pairs("scores.csv", "audio,text,clap_score\na.wav,rain,0.3\n"),
    "line 1: clap_score", "leave it out, or rename it", does="humanclap score scores.csv",
)  # fmt: skip
listed("a folder without captions", read_pairs, "holds 0 clips and no captions", "a .txt", does="humanclap score clips")
listed(
    "ids that two files fit", lambda folder: [write(folder / name) for name in ("a.wav", "a.flac")] and read_layout(
        write(folder / "pairs.csv", "id,caption\na,rain\n"), folder),
    "line 2: a fits a.flac and a.wav", "name the file with its ending",
)  # fmt: skip
listed(
    "a template over a column that is not there",
    lambda folder: read_layout(write(folder / "pairs.csv", "id,caption\n1,rain\n"), folder, audio="{ytid}.wav"),
    "names 'ytid'", "has: id, caption", does="humanclap score pairs.csv --audio '{ytid}.wav'",
)  # fmt: skip
listed(
    "captions without clips", pairs("list.txt", "rain\nwind\n"), "no column of clips", "output_{row}.wav",
    does="humanclap score list.txt",
)  # fmt: skip
listed(
    "a list with two bars in a line", pairs("list.lst", "a.wav|rain|wind\n"), "list.lst, line 1", "a line is clip|caption",
    does="humanclap score list.lst",
)  # fmt: skip
listed(
    "a command in wav.scp",
    lambda folder: read_layout(write(folder / "wav.scp", "a sox a.sph -t wav - |\n"), folder, write(folder / "text", "a rain\n")),
    "wav.scp, line 1: a command instead of a path", "write the clips to files", does="humanclap score wav.scp text",
)  # fmt: skip

# --- checkpoints ----------------------------------------------------------------------------------------

clap_file = section("Checkpoints", "load_clap('clap.pt')")
clap_in = section("Checkpoints", "load_clap('my-clap')")


def opened(change: Callable[[Path], object]) -> Callable:
    """Open a copy of a good ClapModel's folder after a change."""

    def act(folder: Path) -> None:
        place = Path(shutil.copytree(clap_folder(), folder / "my-clap"))
        change(place)
        load_clap(place, device="cpu")

    return act


def without(*names: str) -> Callable:
    return opened(lambda place: [(place / name).unlink() for name in names if (place / name).exists()])


def edited(name: str, **changes) -> Callable:
    return opened(lambda place: write(place / name, json.dumps(json.loads((place / name).read_text()) | changes)))


def with_weights(change: Callable[[dict], dict]) -> Callable:
    def save(place: Path) -> None:
        path = place / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return opened(save)


def with_bytes(name: str, change: Callable[[bytes], bytes | str]) -> Callable:
    return opened(lambda place: write(place / name, change((place / name).read_bytes())))


def saved(state: dict, drop: int = 0) -> Callable:
    def act(folder: Path) -> None:
        torch.save({"state_dict": state}, folder / "clap.pt")
        load_clap(write(folder / "clap.pt", (folder / "clap.pt").read_bytes()[: -drop or None]))

    return act


class Code:
    """Unpickled, this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def pickled(place: Path) -> None:
    (place / "model.safetensors").unlink()
    torch.save({"logit_scale_a": Code(str(place.parent / "ran"))}, place / "pytorch_model.bin")


def harmless(act: Callable) -> Callable:
    """`act` on a pickle that would make the file "ran", which must not happen."""

    def run(folder: Path) -> None:
        try:
            act(folder)
        finally:
            assert not (folder / "ran").exists()

    return run


clap_in(
    "a name that is none", lambda folder: load_clap("laoin"),
    "unknown CLAP 'laoin'", "Known: laion, laion-fusion", does="load_clap('laoin')",
)  # fmt: skip
clap_file("no such file", lambda folder: load_clap(folder / "clap.pt"), "clap.pt is not there", "path of a checkpoint")
clap_in("a folder without config.json", without("config.json"), "my-clap has no config.json", "(save_pretrained)")
clap_in("another kind of model", edited("config.json", model_type="roberta"), "model_type 'roberta'", "allowed: 'clap'")
clap_in("a folder without weights", without("model.safetensors"), "my-clap has no weights", "save or copy")
clap_in(
    "weights that are missing", with_weights(lambda own: {k: v for k, v in own.items() if k != "logit_scale_a"}),
    "does not fit the model: 1 missing weight", "logit_scale_a", "Save model and",
)  # fmt: skip
clap_in(
    "weights left over", with_weights(lambda own: own | {"a_third_tower.weight": torch.zeros(2)}),
    "1 unexpected weight(s): a_third_tower.weight", "Save model and configuration together",
)  # fmt: skip
clap_in(
    "weights of another shape", with_weights(lambda own: own | {"text_projection.linear1.weight": torch.zeros(3, 3)}),
    "1 mismatched weight(s): text_projection.linear1.weight", "Save model and",
)  # fmt: skip
clap_in("weights cut short", with_bytes("model.safetensors", lambda c: c[:-1000]), "it is cut short", "fetch it again")
clap_in("weights of 0 bytes", with_bytes("model.safetensors", lambda c: b""), "it is empty", "fetch it again")
clap_in(
    "a web page saved as weights", with_bytes("model.safetensors", lambda c: "<!DOCTYPE html><html>Not found</html>"),
    "it is no safetensors file, or damaged", "fetch it again",
)  # fmt: skip
clap_in(
    "a folder's pickle that would run code", harmless(opened(pickled)), "pytorch_model.bin", "nothing in it has run"
)
clap_file(
    "a .pt that would run code",
    harmless(lambda folder: load_clap(write(folder / "clap.pt", pickle.dumps({"state_dict": Code(str(folder / "ran"))})))),
    "clap.pt could not be loaded", "nothing in it has run",
)  # fmt: skip
clap_file(
    "a .pt cut short", saved({"audio_branch.x": torch.zeros(1000)}, drop=500),
    "clap.pt could not be loaded: it is cut short at", "fetch it again",
)  # fmt: skip
clap_file(
    "text under the name of a .pt", lambda folder: load_clap(write(folder / "clap.pt", "version https://git-lfs…")),
    "clap.pt could not be loaded: it is no PyTorch checkpoint", "fetch it",
)  # fmt: skip
clap_file(
    "a .pt of another model", saved({"encoder.weight": torch.zeros(2)}),
    "clap.pt holds no LAION CLAP", "audio_branch.", "its names are",
)  # fmt: skip
clap_in(
    "no tokenizer beside the model", without("tokenizer.json", "vocab.json", "merges.txt"),
    "my-clap has no tokenizer", "expected tokenizer.json or vocab.json",
)  # fmt: skip
clap_in("no preprocessor beside the model", without("preprocessor_config.json"), "has no preprocessor_config.json")
clap_in(
    "the preprocessor of a fused model", edited("preprocessor_config.json", truncation="fusion"),
    "preprocessor_config.json has truncation 'fusion'", "needs",
)  # fmt: skip
clap_in("damaged JSON", with_bytes("config.json", lambda c: '{"model_type": "cl'), "config.json is damaged", "again")
clap_in(
    "a window that is none", lambda folder: load_clap(clap_folder(), window="middle"),
    "'middle'", "first, center, mean", does="load_clap('my-clap', window='middle')",
)  # fmt: skip
clap_in(
    "a device that is none", lambda folder: load_clap(clap_folder(), device="gpu"),
    "unknown device 'gpu'", "cuda:N, mps", does="load_clap('my-clap', device='gpu')",
)  # fmt: skip

# --- training -------------------------------------------------------------------------------------------

training = section("Training", "finetune.prepare(clap, pairs, audio_root)")


def prepared(**columns) -> Callable:
    def act(folder: Path) -> None:
        for name in ("a.wav", "b.wav"):
            soundfile.write(folder / name, SINE, 16_000)
        base = {"audio": ["a.wav", "b.wav"], "text": ["A dog", "Rain"], "target": [0.8, 0.3]}
        finetune.prepare(clap(), pd.DataFrame(base | columns), folder, progress=False)

    return act


training("ratings of 0 to 10 as targets", prepared(target=[8, 0.3]), "1 of 2 targets", "row 0", "divided by 10")
training(
    "a pair twice", prepared(audio="a.wav", text="A dog"), "more than once, such as a.wav", "average their ratings"
)
training(
    "clips that are not there", prepared(audio=["a.wav", "gone.wav"]), "1 of 2 audio files", "gone.wav", "audio_root"
)
training("an empty caption", prepared(text=["A dog", ""]), "row 1 of the pairs: text is ''", "text that is not empty")
training(
    "an unknown loss", lambda folder: finetune.FinetuneConfig(kind="mae+wsce"),
    "kind must be one of wsce+mse, wsce+mae", "not 'mae+wsce'", does="FinetuneConfig(kind='mae+wsce')",
)  # fmt: skip
training(
    "a learning rate of 0", lambda folder: finetune.FinetuneConfig(learning_rate=0),
    "learning_rate is 0", "the paper's is 1e-5", does="FinetuneConfig(learning_rate=0)",
)  # fmt: skip
training(
    "a cache folder that is a file", lambda folder: ArrayCache(write(folder / "cache")),
    "…/cache is a file; give a folder", does="ArrayCache('cache')",
)  # fmt: skip

# --- score tables ---------------------------------------------------------------------------------------

breakdown = section("Score tables", "evaluate.breakdown(scores)")
SCORES = {"model": ["x"] * 3 + ["y"] * 3, "audio": list("abcabc"), "text": list("pqrpqr"), "target": [0, 0.5, 1] * 2}
SCORES["clap_score"] = [0.1, 0.2, 0.4, 0.3, 0.1, 0.2]


def scores(**columns) -> Callable:
    return lambda folder: evaluate.breakdown(pd.DataFrame(SCORES | columns))


breakdown(
    "scores that are missing", scores(clap_score=[np.nan] + [0.2] * 5), "1 of 6 values of clap_score", "drop these"
)
breakdown("models that scored other pairs", scores(audio=list("abcabd")), "'y' lacks 1 pairs of", "the same pairs")
breakdown("a pair twice for one model", scores(audio=list("aacabc"), text=list("pprpqr")), "'x' has 1 pairs twice")
breakdown("one pair with two targets", scores(target=[0, 0.5, 1, 0, 0.6, 1]), "target differs between 'x' and 'y'")
breakdown(
    "no column of that name", lambda folder: evaluate.breakdown(pd.DataFrame(SCORES).drop(columns="clap_score")),
    "has no column clap_score", "it has: model",
)  # fmt: skip
breakdown(
    "score and rating of other lengths", lambda folder: evaluate.correlations([0.1, 0.2, 0.3], [0.5, 0.6]),
    "3 values and target 2", "same", does="evaluate.correlations(score, target)",
)  # fmt: skip
breakdown(
    "an unknown breakdown", lambda folder: evaluate.breakdown(pd.DataFrame(SCORES), by="speaker"),
    "by must be one of overall, system", "not 'speaker'", does="evaluate.breakdown(scores, by='speaker')",
)  # fmt: skip
breakdown(
    "single ratings only", lambda folder: evaluate.human_ceiling(table()),
    "none of the 2 pairs has 2 ratings", does="evaluate.human_ceiling(ratings)",
)  # fmt: skip
NO_SCORE = {"audio": ["a.wav"], "text": "rain", "system": "mine", "clap_score": np.nan, "status": "file not found"}
breakdown(
    "no clip with a score", lambda folder: report.system_means(pd.DataFrame(NO_SCORE)),
    "none of the 1 clips has a score; the first: a.wav", does="report.system_means(scores)",
)  # fmt: skip

# --- notebooks and their parameters ---------------------------------------------------------------------


def notebook_05(parameter: str, value: str) -> Callable:
    return section(
        "Notebooks and their parameters", f"papermill 05_score_your_own_audio.ipynb … -p {parameter} {value}"
    )


def open_05(profile: str = "demo", **parameters) -> study.Study:
    return study.open_study(profile, "05_score_your_own_audio", **parameters)


def own_clips(prompts: str | None = None, **files: str) -> Callable:
    """Notebook 05 on a folder of these files (a_txt for a.txt), and a table of prompts."""

    def act(folder: Path) -> None:
        for name, content in files.items():
            write(folder / name.replace("_", "."), content)
        given = {} if prompts is None else {"prompts": str(write(folder / "list.csv", prompts))}
        study.own_clips(open_05(), audio_folder=str(folder), **given)

    return act


def notebook_04(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUMANCLAP_RUNS", str(folder))
        study.read_scores(study.Study("demo", "04_breakdowns", folder), "03_human_clap_finetuning")


notebook_05("profile", "dmeo")(
    "a profile that is none", lambda folder: open_05("dmeo"), "profile='dmeo' is not known", "Available: demo, paper"
)
notebook_05("seed", "-1")(
    "a seed below 0", lambda folder: open_05(seed=-1), "seed=-1: allowed is a", "papermill -p seed"
)
notebook_05("n_resamples", "10")(
    "too few resamples",
    lambda folder: open_05(n_resamples=10),
    "n_resamples=10: allowed is a whole number",
    "papermill",
)
folder_of, prompts_of = notebook_05("audio_folder", "mine"), notebook_05("prompts", "list.csv")
folder_of(
    "a folder of clips that is not there", lambda folder: study.own_clips(open_05(), audio_folder=str(folder / "mine")),
    "is not there", "give the folder that",
)  # fmt: skip
folder_of("clips without prompts", own_clips(a_wav=""), "holds 1 clips and no captions", "a .txt of the same")
folder_of("an empty prompt", own_clips(a_wav="", a_txt=""), "a.txt is empty; write the clip's caption into it")
prompts_of(
    "prompts of another folder",
    own_clips("audio,text\n../a.wav,rain\n"),
    "list.csv, line 2: ../a.wav must be relative",
    "below",
)
prompts_of(
    "a prompt twice",
    own_clips("audio,text\na.wav,rain\na.wav,rain\n"),
    "list.csv, line 3: a.wav with this prompt",
    "there twice; keep one",
)
folder_of("notebook 04 before 03", notebook_04, "is not there", "run that", does="papermill 04_breakdowns.ipynb …")


# --- the tests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", CASES, ids=lambda one: f"{one.about}: {one.broken}")
def test_the_message_names_what_is_wrong_where_and_what_mends_it(one, tmp_path):
    message = told(one, tmp_path.resolve())
    for part in one.holds:
        assert part in message, message
    assert "Traceback" not in message and len(message) < 700


def test_the_document_shows_what_is_said_today():
    written, today = (set(text.splitlines()) for text in (DOC.read_text(encoding="utf-8"), current()))
    assert not written ^ today, "run: python tests/broken_input_doc.py"
