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
from humanclap.score import COLUMNS

RATINGS, SETS, AUDIO, CAPTIONS = "Ratings", "Other rated sets", "Audio", "Captions and lists of pairs"
CHECKPOINTS, TRAINING, SCORES, STUDY = "Checkpoints", "Training", "Score tables", "Notebooks and their parameters"


@dataclass(frozen=True)
class Case:
    """One kind of broken input: `act` breaks it in an empty folder and uses it; `holds` must stand in the message."""

    id: str
    about: str
    broken: str
    does: str
    holds: tuple[str, ...]
    act: Callable[[Path], object]


CASES: list[Case] = []


def case(about: str, broken: str, does: str, *holds: str):
    """Enter a function of a folder into CASES; it raises, or returns what the user is told (a status, a log)."""

    def enter(act):
        CASES.append(Case(act.__name__, about, broken, does, holds, act))
        return act

    return enter


def told(one: Case, folder: Path) -> str:
    """What the user sees, with "…" for the folder. AssertionError where the input was taken as if it were whole."""
    try:
        said = one.act(folder)
    except (ValueError, TypeError, OSError, study.StudyError) as error:
        said = str(error)
    assert isinstance(said, str) and said, f"{one.id}: nothing was said of {one.broken}"
    for place in {str(folder), str(folder.resolve())}:
        said = said.replace(f"{place}/", "…/").replace(place, "…")
    return " ".join(said.split())


# --- ratings --------------------------------------------------------------------------------------------

HEADER = "wavname,text,score,listener_id,audio type,anchor label,in RELATE dataset"
LINE = "/tango/test/1.wav,A dog barks,8,0007,tango,False,test"
LOAD = "relate.load_ratings('REL.csv')"


def load(folder, *lines, header=HEADER):
    path = folder / "REL.csv"
    path.write_bytes(lines[0] if isinstance(lines[0], bytes) else "\n".join([header, *lines]).encode())
    return relate.load_ratings(path)


def table(**columns):
    """Two ratings past the loader, with columns changed."""
    base = {"audio": ["tango/test/1.wav", "tango/test/2.wav"], "text": ["A dog", "Rain"], "rating": [8, 3]}
    base |= {"listener": ["0007", "0007"], "system": "tango", "split": "test", "is_anchor": False}
    return pd.DataFrame(base | columns)


@case(RATINGS, "no such file", "relate.load_ratings('ratings.csv')", "ratings.csv is not there", "scores/REL.csv")
def ratings_missing(folder):
    relate.load_ratings(folder / "ratings.csv")


@case(RATINGS, "an empty file", LOAD, "REL.csv is empty", "a header with wavname, text, score")
def ratings_empty(folder):
    load(folder, b"")


@case(
    RATINGS,
    "a header and nothing below it",
    LOAD,
    "REL.csv has a header and no ratings",
    "one line per rating is needed",
)
def ratings_header_only(folder):
    load(folder, (HEADER + "\n").encode())


@case(RATINGS, "a column is missing", LOAD, "REL.csv, line 1: no column 'score'", "it has: 'wavname'")
def ratings_column(folder):
    load(folder, LINE, header=HEADER.replace("score", "rating"))


@case(RATINGS, "a rating of 11", LOAD, "line 3, column 'score': '11' is not allowed", "whole number from 0 to 10")
def ratings_eleven(folder):
    load(folder, LINE, LINE.replace(",8,", ",11,").replace("1.wav", "2.wav"))


@case(RATINGS, "a rating in words", LOAD, "line 2, column 'score': 'good' is not allowed", "from 0 to 10")
def ratings_good(folder):
    load(folder, LINE.replace(",8,", ",good,"))


@case(RATINGS, "a rating without its listener", LOAD, "line 2, column 'listener_id'", "a listener id must not be empty")
def ratings_listener(folder):
    load(folder, LINE.replace("0007", ""))


@case(
    RATINGS,
    "a line twice",
    LOAD,
    "line 3: listener 0007 has rated tango/test/1.wav",
    "line 2",
    "remove one of the lines",
)
def ratings_twice(folder):
    load(folder, LINE, LINE)


@case(RATINGS, "an unknown folder of clips", LOAD, "'/stable/test/1.wav' is not allowed", "audiocaps, audioldm")
def ratings_folder(folder):
    load(folder, LINE.replace("/tango/", "/stable/"))


@case(RATINGS, "a path that leaves the clips' folder", LOAD, "line 2, column 'wavname'", "must stay below RELATE_wave")
def ratings_escape(folder):
    load(folder, LINE.replace("/tango/test", "/tango/../.."))


@case(RATINGS, "a line cut short", LOAD, "REL.csv, line 3: 3 fields where the header has 7", "write the line whole")
def ratings_cut(folder):
    load(folder, LINE, "/tango/test/2.wav,A dog barks,8")


@case(RATINGS, "another file, not text", LOAD, "REL.csv is not a table of", "a spreadsheet", "export it as CSV UTF-8")
def ratings_binary(folder):
    load(folder, b"PK\x03\x04" + bytes(range(128, 256)))


@case(RATINGS, "saved as Latin-1", LOAD, "line 3 holds the byte 0xe9", "Save it again as UTF-8")
def ratings_latin(folder):
    load(folder, f"{HEADER}\n{LINE}\n{LINE.replace('A dog', 'Un café')}".encode("latin-1"))


@case(
    RATINGS,
    "a quote that is never closed",
    LOAD,
    "REL.csv is not a table of",
    "after line 2: a quote",
    "never closed",
)
def ratings_quote(folder):
    load(folder, LINE, LINE.replace("A dog", '"A dog'))


@case(RATINGS, "an anchor label that is neither", LOAD, "column 'anchor label': 'perhaps'", "it is True or False")
def ratings_anchor_label(folder):
    load(folder, LINE.replace("False", "perhaps"))


@case(
    RATINGS, "a pair in two splits", LOAD, "line 3, column 'in RELATE dataset'", "belongs to one of train, validation"
)
def ratings_two_splits(folder):
    load(folder, LINE, LINE.replace("0007", "0008").replace("False,test", "False,validation"))


@case(
    RATINGS,
    "a threshold off the scale",
    "relate.screen_listeners(ratings, 11)",
    "max_anchor_mean must be a number from 0 to 10, not 11",
    "0 to 10",
)
def ratings_threshold(folder):
    relate.screen_listeners(table(), 11)


@case(
    RATINGS, "listeners who rated no anchor", "relate.screen_listeners(ratings)", "1 of 1 listeners have no anchor",
    "first: 0007", "leave these listeners out",
)  # fmt: skip
def ratings_no_anchor(folder):
    relate.screen_listeners(table())


@case(
    RATINGS,
    "anchors among the ratings",
    "relate.aggregate_pairs(ratings)",
    "1 of 2 ratings are anchors",
    "pass screen_",
)
def ratings_with_anchors(folder):
    relate.aggregate_pairs(table(is_anchor=[True, False]))


@case(RATINGS, "True and False as text", "relate.aggregate_pairs(ratings)", "is_anchor holds 'False'", "True and False")
def ratings_anchor_text(folder):
    relate.aggregate_pairs(table(is_anchor=["False", "False"]))


@case(
    RATINGS, "more training pairs than there are", "relate.split_train_validation(pairs, 1925)",
    "n_train=1925 of 2 training pairs", "allowed is 1 to 1",
)  # fmt: skip
def ratings_too_few(folder):
    relate.split_train_validation(relate.aggregate_pairs(table(split="train")), 1925)


# --- other rated sets -----------------------------------------------------------------------------------

SET = "rated_sets.load_rated_set('mine.csv')"


def rated(folder, *lines, header="audio,text,rating", **settings):
    (folder / "mine.csv").write_text("\n".join([header, *lines]), encoding="utf-8")
    return rated_sets.load_rated_set(folder / "mine.csv", **settings)


@case(SETS, "no column with ratings", SET, "mine.csv, line 1: no column for rating", "It has 'audio', 'text', 'mark'")
def set_column(folder):
    rated(folder, "a.wav,A dog,7", header="audio,text,mark")


@case(SETS, "a column in both of XACLE's spellings", SET, "'wave_file_name', 'wav_file_name'", "keep one of them")
def set_spellings(folder):
    rated(folder, "a,a,b,1,c", header="wave_file_name,wav_file_name,text,score,listener_id")


@case(SETS, "RELATE's own file", SET, "mine.csv is in RELATE's own format", "relate.load_ratings")
def set_of_relate(folder):
    rated(folder, LINE, header=HEADER)


@case(
    SETS, "another scale than 0 to 10", SET, "line 2, column 'rating': '87'", "run from 0 to 10 here", "scale=(lowest"
)
def set_scale(folder):
    rated(folder, "a.wav,A dog,87")


@case(SETS, "the scale the wrong way round", "load_rated_set('mine.csv', scale=(5, 1))", "scale=(5, 1)", "(1, 5)")
def set_scale_reversed(folder):
    rated(folder, "a.wav,A dog,4", scale=(5, 1))


@case(SETS, "decimals with a comma", SET, "line 2, column 'rating': '7,5' is not allowed", "decimals with a point")
def set_decimal_comma(folder):
    rated(folder, "a.wav;A dog;7,5", header="audio;text;rating")


@case(SETS, "an empty caption", SET, "mine.csv, line 2, column 'text'", "a caption must not be empty")
def set_caption(folder):
    rated(folder, "a.wav,,7")


@case(SETS, "an absolute path", SET, "'/data/a.wav' is not allowed", "relative to the audio's root")
def set_absolute(folder):
    rated(folder, "/data/a.wav,A dog,7")


@case(SETS, "clips that are not there", SET, "2 of 2 clips are not in …", "the first is a.wav", "audio_root")
def set_no_clips(folder):
    rated(folder, "a.wav,A dog,7", "b.wav,Rain,3")


@case(SETS, "a system in some lines only", SET, "line 3, column 'system'", "name the system in every line, or in none")
def set_system(folder):
    rated(folder, "a.wav,A dog,7,mine", "b.wav,Rain,3,", header="audio,text,rating,system")


@case(SETS, "one listener twice on a pair", SET, "line 3: listener ann has rated a.wav", "on line 2", "remove one of")
def set_twice(folder):
    rated(folder, "a.wav,A dog,7,ann", "a.wav,A dog,6,ann", header="audio,text,rating,listener")


@case(SETS, "a folder without XACLE's files", "load_rated_set('xacle')", "holds no rated set", "meta_data/train.csv")
def set_folder(folder):
    rated_sets.load_rated_set(folder)


# --- audio ----------------------------------------------------------------------------------------------

SCORE = "score_pairs(clap, ['bad.wav'], ['rain'])"


@functools.cache
def clap_folder() -> Path:
    """A tiny random ClapModel, made once."""
    return save_clap(Path(tempfile.mkdtemp(prefix="humanclap-broken-")) / "tiny")


@functools.cache
def clap():
    return load_clap(clap_folder(), device="cpu")


def status(folder, write) -> str:
    """The status of one bad clip, beside a good one that is scored all the same."""
    soundfile.write(folder / "good.wav", 0.1 * np.sin(np.arange(16_000)), 16_000)
    write(folder / "bad.wav")
    scores = score_pairs(clap(), [folder / "bad.wav", folder / "good.wav"], ["rain", "rain"], progress=False)
    assert scores["status"][1] == "ok" and scores["clap_score"].notna().tolist() == [False, True]
    return f"status: {scores['status'][0]}"


@case(AUDIO, "no such clip", SCORE, "file not found")
def audio_missing(folder):
    return status(folder, lambda path: None)


@case(AUDIO, "no such clip, embedded by itself", "clap.embed_audio(['bad.wav'])", "…/bad.wav: file not found")
def audio_missing_alone(folder):
    clap().embed_audio([folder / "bad.wav"])


@case(AUDIO, "a folder in the place of a clip", SCORE, "not a file")
def audio_folder(folder):
    return status(folder, lambda path: path.mkdir())


@case(AUDIO, "a named pipe in the place of a clip", SCORE, "not a file but a named pipe")
def audio_pipe(folder):
    return status(folder, os.mkfifo)


@case(
    AUDIO, "a sample rate of 1 Hz", SCORE, "a broken header: its sample rate is 1 Hz", "must be 1,000 to 1,000,000 Hz"
)
def audio_one_hz(folder):
    return status(folder, lambda path: soundfile.write(path, np.ones(32_000) / 2, 1))


@case(AUDIO, "a file of 0 bytes", SCORE, "the file is empty (0 bytes)")
def audio_empty(folder):
    return status(folder, lambda path: path.touch())


@case(AUDIO, "text under the name of a clip", SCORE, "not readable as audio", "make it a WAV, FLAC")
def audio_text(folder):
    return status(folder, lambda path: path.write_text("this is a caption"))


@case(AUDIO, "a header without sound", SCORE, "the file holds no samples")
def audio_no_samples(folder):
    return status(folder, lambda path: soundfile.write(path, np.zeros(0), 16_000))


@case(AUDIO, "a clip of 10 ms", SCORE, "too short: 0.010 s, at least 0.05 s is needed")
def audio_short(folder):
    return status(folder, lambda path: soundfile.write(path, np.ones(160), 16_000))


@case(AUDIO, "samples that are NaN", SCORE, "the samples hold NaN or infinity")
def audio_nan(folder):
    return status(folder, lambda path: soundfile.write(path, np.full(16_000, np.nan), 16_000, subtype="FLOAT"))


@case(
    AUDIO, "a WAV cut short in copying", SCORE, "cut short: its header says 32,036 bytes, 15,992 are there", "copy it"
)
def audio_cut(folder):
    def write(path):
        soundfile.write(path, np.ones(16_000) / 2, 16_000)
        path.write_bytes(path.read_bytes()[:16_000])

    return status(folder, write)


@case(AUDIO, "a FLAC cut short", "clap.embed_audio(['bad.flac'])", "bad.flac: cut short or damaged", "copy it again")
def audio_cut_flac(folder):
    path = folder / "bad.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clap().embed_audio([path])


@case(AUDIO, "a sample rate of 0 in the header", SCORE, "not readable as audio", "make it a WAV, FLAC")
def audio_rate(folder):
    def write(path):
        soundfile.write(path, np.ones(16_000) / 2, 16_000)
        content = path.read_bytes()
        path.write_bytes(content[:24] + bytes(4) + content[28:])

    return status(folder, write)


@case(
    AUDIO,
    "samples without a header",
    "clap.embed_audio(['clip.raw'])",
    "clip.raw: not readable as audio",
    "make it a WAV",
)
def audio_raw(folder):
    (folder / "clip.raw").write_bytes(bytes(32_000))
    clap().embed_audio([folder / "clip.raw"])


# --- captions and lists of pairs ------------------------------------------------------------------------


@case(CAPTIONS, "an empty caption", "score_pairs(clap, paths, ['rain', ' '])", "row 1: the caption is ' '", "not empty")
def caption_empty(folder):
    score_pairs(clap(), ["a.wav", "b.wav"], ["rain", " "])


@case(CAPTIONS, "a caption that is missing", "score_pairs(clap, paths, [None])", "row 0: the caption is None", "a text")
def caption_none(folder):
    score_pairs(clap(), ["a.wav"], [None])


@case(CAPTIONS, "a number for a caption", "clap.embed_text([7])", "caption 0 is 7", "it must be a text")
def caption_number(folder):
    clap().embed_text([7])


@case(
    CAPTIONS,
    "half an emoji in a caption",
    "score_pairs(clap, paths, ['\\ud83d'])",
    "holds half a character",
    "write it again",
)
def caption_half(folder):
    soundfile.write(folder / "a.wav", 0.1 * np.sin(np.arange(16_000)), 16_000)
    return f"status: {score_pairs(clap(), [folder / 'a.wav'], ['rain ' + chr(0xD83D)], progress=False)['status'][0]}"


@case(
    CAPTIONS, "one caption in place of a list", "score_pairs(clap, paths, 'rain')", "texts is one str, 'rain'", "a list"
)
def caption_alone(folder):
    score_pairs(clap(), ["a.wav"], "rain")


@case(
    CAPTIONS, "more clips than captions", "score_pairs(clap, two, one)", "2 audio_paths and 1 texts", "as many of each"
)
def caption_count(folder):
    score_pairs(clap(), ["a.wav", "b.wav"], ["rain"])


@case(
    CAPTIONS,
    "a caption longer than the model reads",
    "clap.embed_text([long])",
    "reads only the first 48 tokens",
    "shorten it",
)
def caption_long(folder):
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("humanclap")
    logger.addHandler(handler)
    try:
        clap().embed_text(["a dog and " * 60])
    finally:
        logger.removeHandler(handler)
    return f"logged: {said[0]}"


@case(
    CAPTIONS,
    "a CSV without captions",
    "humanclap score pairs.csv",
    "pairs.csv, line 1: no column 'text'",
    "it has: 'audio'",
)
def pairs_column(folder):
    (folder / "pairs.csv").write_text("audio,caption\na.wav,rain\n")
    read_pairs(folder / "pairs.csv", COLUMNS[2:])


@case(
    CAPTIONS,
    "a caption missing in a CSV",
    "humanclap score pairs.csv",
    "pairs.csv, line 3, column 'text'",
    "a caption must not be empty",
)
def pairs_caption(folder):
    (folder / "pairs.csv").write_text("audio,text\na.wav,rain\nb.wav, \n")
    read_pairs(folder / "pairs.csv", COLUMNS[2:])


@case(
    CAPTIONS, "a table that holds scores already", "humanclap score scores.csv", "holds scores already", "without these"
)
def pairs_scored(folder):
    (folder / "scores.csv").write_text("audio,text,clap_score\na.wav,rain,0.3\n")
    read_pairs(folder / "scores.csv", COLUMNS[2:])


# --- checkpoints ----------------------------------------------------------------------------------------

OPEN, OPEN_PT = "load_clap('my-clap')", "load_clap('clap.pt')"


def spoilt(folder) -> Path:
    """A copy of a good ClapModel's folder, to be spoilt."""
    return Path(shutil.copytree(clap_folder(), folder / "my-clap"))


def with_weights(folder, change):
    """Open a ClapModel's folder after a change of its weights, a function from dict to dict."""
    place = spoilt(folder)
    save_file(change(load_file(place / "model.safetensors")), place / "model.safetensors", metadata={"format": "pt"})
    load_clap(place, device="cpu")


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@case(CHECKPOINTS, "a name that is none", "load_clap('laoin')", "unknown CLAP 'laoin'", "Known: laion, laion-fusion")
def clap_unknown(folder):
    load_clap("laoin")


@case(CHECKPOINTS, "no such file", OPEN_PT, "clap.pt is not there", "give the path of a checkpoint")
def clap_no_file(folder):
    load_clap(folder / "clap.pt")


@case(
    CHECKPOINTS,
    "a folder without config.json",
    OPEN,
    "my-clap has no config.json",
    "of a saved ClapModel (save_pretrained)",
)
def clap_no_config(folder):
    (spoilt(folder) / "config.json").unlink()
    load_clap(folder / "my-clap")


@case(CHECKPOINTS, "another kind of model", OPEN, "config.json says model_type 'roberta'", "allowed: 'clap'")
def clap_other_model(folder):
    edited(spoilt(folder) / "config.json", model_type="roberta")
    load_clap(folder / "my-clap")


@case(
    CHECKPOINTS,
    "a folder without weights",
    OPEN,
    "my-clap has no weights",
    "model.safetensors or pytorch_model.bin; save or copy",
)
def clap_no_weights(folder):
    (spoilt(folder) / "model.safetensors").unlink()
    load_clap(folder / "my-clap")


@case(
    CHECKPOINTS,
    "weights that are missing",
    OPEN,
    "does not fit the model: 1 missing weight",
    "logit_scale_a",
    "Save model and",
)
def clap_weights_missing(folder):
    with_weights(folder, lambda weights: {k: v for k, v in weights.items() if k != "logit_scale_a"})


@case(
    CHECKPOINTS,
    "weights left over",
    OPEN,
    "1 unexpected weight(s): a_third_tower.weight",
    "Save model and configuration together",
)
def clap_weights_more(folder):
    with_weights(folder, lambda weights: weights | {"a_third_tower.weight": torch.zeros(2)})


@case(
    CHECKPOINTS,
    "weights of another shape",
    OPEN,
    "1 mismatched weight(s): text_projection.linear1.weight",
    "Save model and",
)
def clap_weights_shape(folder):
    with_weights(folder, lambda weights: weights | {"text_projection.linear1.weight": torch.zeros(3, 3)})


@case(
    CHECKPOINTS, "weights cut short", OPEN, "model.safetensors could not be loaded: it is cut short", "fetch it again"
)
def clap_weights_cut(folder):
    path = spoilt(folder) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    load_clap(folder / "my-clap")


@case(CHECKPOINTS, "weights of 0 bytes", OPEN, "model.safetensors could not be loaded: it is empty", "fetch it again")
def clap_weights_empty(folder):
    (spoilt(folder) / "model.safetensors").write_bytes(b"")
    load_clap(folder / "my-clap")


@case(
    CHECKPOINTS,
    "a web page saved as weights",
    OPEN,
    "model.safetensors could not be loaded: it is no safetensors file, or damaged",
    "fetch it again",
)
def clap_weights_page(folder):
    (spoilt(folder) / "model.safetensors").write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    load_clap(folder / "my-clap")


class Code:
    """Unpickled, this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@case(
    CHECKPOINTS,
    "a folder's pickle that would run code",
    OPEN,
    "pytorch_model.bin could not be",
    "nothing in it has run",
    "Allowed:",
)
def clap_pickle_code(folder):
    place = spoilt(folder)
    (place / "model.safetensors").unlink()
    torch.save({"logit_scale_a": Code(str(folder / "ran"))}, place / "pytorch_model.bin")
    try:
        load_clap(place)
    finally:
        assert not (folder / "ran").exists()


@case(
    CHECKPOINTS,
    "a .pt that would run code",
    OPEN_PT,
    "clap.pt could not be loaded",
    "nothing in it has run",
    "Allowed:",
)
def clap_pt_code(folder):
    (folder / "clap.pt").write_bytes(pickle.dumps({"state_dict": Code(str(folder / "ran"))}))
    try:
        load_clap(folder / "clap.pt")
    finally:
        assert not (folder / "ran").exists()


@case(CHECKPOINTS, "a .pt cut short", OPEN_PT, "clap.pt could not be loaded: it is cut short at", "fetch it again")
def clap_pt_cut(folder):
    torch.save({"state_dict": {"audio_branch.x": torch.zeros(1000)}}, folder / "clap.pt")
    (folder / "clap.pt").write_bytes((folder / "clap.pt").read_bytes()[:-500])
    load_clap(folder / "clap.pt")


@case(
    CHECKPOINTS,
    "text under the name of a .pt",
    OPEN_PT,
    "clap.pt could not be loaded: it is no PyTorch checkpoint",
    "fetch it",
)
def clap_pt_text(folder):
    (folder / "clap.pt").write_text("version https://git-lfs.github.com/spec/v1")
    load_clap(folder / "clap.pt")


@case(CHECKPOINTS, "a .pt of another model", OPEN_PT, "clap.pt holds no LAION CLAP", "audio_branch.", "its names are")
def clap_pt_other(folder):
    torch.save({"state_dict": {"encoder.weight": torch.zeros(2)}}, folder / "clap.pt")
    load_clap(folder / "clap.pt")


@case(
    CHECKPOINTS,
    "no tokenizer beside the model",
    OPEN,
    "my-clap has no tokenizer",
    "expected tokenizer.json or vocab.json",
)
def clap_no_tokenizer(folder):
    for path in spoilt(folder).iterdir():
        if path.name in ("tokenizer.json", "vocab.json", "merges.txt"):
            path.unlink()
    load_clap(folder / "my-clap")


@case(CHECKPOINTS, "no preprocessor beside the model", OPEN, "has no preprocessor_config.json", "save_pretrained")
def clap_no_preprocessor(folder):
    (spoilt(folder) / "preprocessor_config.json").unlink()
    load_clap(folder / "my-clap")


@case(
    CHECKPOINTS, "the preprocessor of a fused model", OPEN, "preprocessor_config.json has truncation 'fusion'", "needs"
)
def clap_other_preprocessor(folder):
    edited(spoilt(folder) / "preprocessor_config.json", truncation="fusion")
    load_clap(folder / "my-clap")


@case(CHECKPOINTS, "damaged JSON", OPEN, "config.json is damaged", "fetch it again")
def clap_json(folder):
    (spoilt(folder) / "config.json").write_text('{"model_type": "cl')
    load_clap(folder / "my-clap")


@case(CHECKPOINTS, "a window that is none", "load_clap('my-clap', window='middle')", "'middle'", "first, center, mean")
def clap_window(folder):
    load_clap(clap_folder(), window="middle")


@case(CHECKPOINTS, "a device that is none", "load_clap('my-clap', device='gpu')", "unknown device 'gpu'", "cuda:N, mps")
def clap_device(folder):
    load_clap(clap_folder(), device="gpu")


# --- training -------------------------------------------------------------------------------------------

PREPARE = "finetune.prepare(clap, pairs, audio_root)"


def training_pairs(folder, **columns):
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, 0.1 * np.sin(np.arange(16_000)), 16_000)
    base = {"audio": ["a.wav", "b.wav"], "text": ["A dog", "Rain"], "target": [0.8, 0.3]}
    return finetune.prepare(clap(), pd.DataFrame(base | columns), folder, progress=False)


@case(TRAINING, "ratings of 0 to 10 as targets", PREPARE, "1 of 2 targets are not within 0-1", "row 0", "divided by 10")
def training_target(folder):
    training_pairs(folder, target=[8, 0.3])


@case(
    TRAINING, "a pair twice", PREPARE, "1 pairs are there more than once, such as a.wav", "average their ratings first"
)
def training_twice(folder):
    training_pairs(folder, audio="a.wav", text="A dog")


@case(
    TRAINING, "clips that are not there", PREPARE, "1 of 2 audio files are not there", "gone.wav", "audio_root must be"
)
def training_clips(folder):
    training_pairs(folder, audio=["a.wav", "gone.wav"])


@case(TRAINING, "an empty caption", PREPARE, "row 1 of the pairs: text is ''", "text that is not empty")
def training_caption(folder):
    training_pairs(folder, text=["A dog", ""])


@case(
    TRAINING,
    "an unknown loss",
    "FinetuneConfig(kind='mae+wsce')",
    "kind must be one of wsce+mse, wsce+mae",
    "not 'mae+wsce'",
)
def training_kind(folder):
    finetune.FinetuneConfig(kind="mae+wsce")


@case(TRAINING, "a learning rate of 0", "FinetuneConfig(learning_rate=0)", "learning_rate is 0", "the paper's is 1e-5")
def training_rate(folder):
    finetune.FinetuneConfig(learning_rate=0)


@case(TRAINING, "a cache folder that is a file", "ArrayCache('cache')", "…/cache is a file; give a folder")
def training_cache(folder):
    (folder / "cache").touch()
    ArrayCache(folder / "cache")


# --- score tables ---------------------------------------------------------------------------------------

BREAKDOWN = "evaluate.breakdown(scores)"


def scores(**columns):
    base = {"model": ["x"] * 3 + ["y"] * 3, "audio": list("abcabc"), "text": list("pqrpqr"), "target": [0, 0.5, 1] * 2}
    return pd.DataFrame(base | {"clap_score": [0.1, 0.2, 0.4, 0.3, 0.1, 0.2]} | columns)


@case(
    SCORES, "scores that are missing", BREAKDOWN, "1 of 6 values of clap_score are not finite ({'x': 1})", "drop these"
)
def scores_nan(folder):
    evaluate.breakdown(scores(clap_score=[np.nan, 0.2, 0.4, 0.3, 0.1, 0.2]))


@case(SCORES, "models that scored other pairs", BREAKDOWN, "'y' lacks 1 pairs of", "must cover the same pairs")
def scores_unequal(folder):
    evaluate.breakdown(scores(audio=list("abcabd")))


@case(SCORES, "a pair twice for one model", BREAKDOWN, "model 'x' has 1 pairs twice", "('a', 'p')")
def scores_twice(folder):
    evaluate.breakdown(scores(audio=list("aacabc"), text=list("pprpqr")))


@case(SCORES, "one pair with two targets", BREAKDOWN, "target differs between 'x' and 'y'", "give all models the same")
def scores_targets(folder):
    evaluate.breakdown(scores(target=[0, 0.5, 1, 0, 0.6, 1]))


@case(SCORES, "no column of that name", "evaluate.breakdown(scores)", "has no column clap_score", "it has: model")
def scores_column(folder):
    evaluate.breakdown(scores().rename(columns={"clap_score": "clap"}))


@case(
    SCORES, "score and rating of other lengths", "evaluate.correlations(score, target)", "3 values and target 2", "same"
)
def scores_lengths(folder):
    evaluate.correlations([0.1, 0.2, 0.3], [0.5, 0.6])


@case(
    SCORES,
    "an unknown breakdown",
    "evaluate.breakdown(scores, by='speaker')",
    "by must be one of overall, system, score_range",
    "not 'speaker'",
)
def scores_by(folder):
    evaluate.breakdown(scores(), by="speaker")


@case(SCORES, "single ratings only", "evaluate.human_ceiling(ratings)", "none of the 2 pairs has 2 ratings")
def scores_ceiling(folder):
    evaluate.human_ceiling(table())


@case(
    SCORES, "no clip with a score", "report.system_means(scores)", "none of the 1 clips has a score; the first: a.wav"
)
def scores_none(folder):
    row = {"audio": "a.wav", "text": "rain", "system": "mine", "clap_score": np.nan, "status": "file not found"}
    report.system_means(pd.DataFrame([row]))


# --- notebooks and their parameters ---------------------------------------------------------------------

RUN = "papermill 05_score_your_own_audio.ipynb …"


def open_05(**parameters):
    return study.open_study(parameters.pop("profile", "demo"), "05_score_your_own_audio", **parameters)


@case(
    STUDY, "a profile that is none", f"{RUN} -p profile dmeo", "profile='dmeo' is not known", "Available: demo, paper"
)
def study_profile(folder):
    open_05(profile="dmeo")


@case(STUDY, "a seed below 0", f"{RUN} -p seed -1", "seed=-1: allowed is a whole number from 0", "papermill -p seed")
def study_seed(folder):
    open_05(seed=-1)


@case(
    STUDY, "too few resamples", f"{RUN} -p n_resamples 10", "n_resamples=10: allowed is a whole number", "papermill -p"
)
def study_resamples(folder):
    open_05(n_resamples=10)


@case(
    STUDY, "a folder of clips that is not there", f"{RUN} -p audio_folder mine", "is not there", "give the folder that"
)
def study_audio_folder(folder):
    study.own_clips(open_05(), audio_folder=str(folder / "mine"))


@case(
    STUDY, "clips without prompts", f"{RUN} -p audio_folder mine", "holds 1 clips and no prompts", "a .txt of the same"
)
def study_no_prompts(folder):
    (folder / "a.wav").touch()
    study.own_clips(open_05(), audio_folder=str(folder))


@case(STUDY, "an empty prompt", f"{RUN} -p audio_folder mine", "a.txt is empty; write the clip's prompt into it")
def study_empty_prompt(folder):
    (folder / "a.wav").touch()
    (folder / "a.txt").touch()
    study.own_clips(open_05(), audio_folder=str(folder))


@case(
    STUDY,
    "prompts of another folder",
    f"{RUN} -p prompts list.csv",
    "list.csv, line 2, column 'audio': '../a.wav'",
    "below",
)
def study_prompts(folder):
    (folder / "list.csv").write_text("audio,text\n../a.wav,rain\n")
    study.own_clips(open_05(), audio_folder=str(folder), prompts=str(folder / "list.csv"))


@case(
    STUDY,
    "a prompt twice",
    f"{RUN} -p prompts list.csv",
    "list.csv, line 3: a.wav with this prompt is there twice",
    "keep one line",
)
def study_prompt_twice(folder):
    (folder / "list.csv").write_text("audio,text\na.wav,rain\na.wav,rain\n")
    study.own_clips(open_05(), audio_folder=str(folder), prompts=str(folder / "list.csv"))


@case(STUDY, "notebook 04 before 03", "papermill 04_breakdowns.ipynb …", "03_scores.csv is not there", "run that first")
def study_order(folder):
    run = study.Study("demo", "04_breakdowns", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUMANCLAP_RUNS", str(folder))
        study.read_scores(run, "03_human_clap_finetuning")


# --- the tests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.id)
def test_the_message_names_what_is_wrong_where_and_what_mends_it(one, tmp_path):
    message = told(one, tmp_path.resolve())
    for part in one.holds:
        assert part in message, message
    assert "Traceback" not in message and len(message) < 700


def test_the_document_shows_what_is_said_today():
    written, today = (set(text.splitlines()) for text in (DOC.read_text(encoding="utf-8"), current()))
    assert not written ^ today, "run: python tests/broken_input_doc.py"
