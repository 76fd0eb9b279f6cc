"""What the rehearsal of the paper profile runs on: real rows of RELATE's ratings, synthetic clips, random weights.

Everything else is real: the files' formats and places, the clips' rate and length, the checkpoints' formats and sizes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import full_size
import numpy as np
import pandas as pd
import soundfile
import torch
from safetensors.torch import load_file, save_file

from humanclap import evaluate, load_clap, relate

SAMPLE_RATE = 16_000
SECONDS = (10.0, 10.24)  # RELATE's clips: about 10.06 s, many slightly longer than LAION's window
TRAIN_CAPTIONS = 10  # of three clips each
MIN_PAIRS = 8  # in each of the 13 cells of Tables I to III
CELLS = ("overall", "system", "score_range")


def make_tree(root: Path, relate_root: Path, n_batches: int = 11, seed: int = 0) -> Path:
    """A RELATE folder at `root` with the rows of some whole batches of listeners (18 pairs, 3 anchors each).

    Batches are drawn until each cell of Tables I to III holds at least MIN_PAIRS test pairs under the paper's rule.
    The rows are copied as they stand in REL.csv; the clips are noise and tones, in RELATE's format and folders.
    """
    source = relate_root / "scores" / "REL.csv"
    rows = pd.read_csv(source, dtype=str, keep_default_na=False)
    clips_of = rows.groupby("listener_id")["wavname"].apply(lambda names: tuple(sorted(names)))
    batches = sorted(set(clips_of))
    rng = np.random.default_rng(seed)
    for _ in range(100):
        chosen = [batches[place] for place in rng.choice(len(batches), n_batches, replace=False)]
        part = _few_train_captions(rows[rows["listener_id"].isin(clips_of.index[clips_of.isin(chosen)])], rng)
        if smallest_cell(part, root) >= MIN_PAIRS:
            break
    else:
        raise RuntimeError(f"100 draws of {n_batches} batches left a cell with fewer than {MIN_PAIRS} pairs")
    note = {"ratings": "real rows of RELATE's REL.csv", "clips": "synthetic", "batches of listeners": n_batches}
    (root / "synthetic.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
    for name in sorted(set(part["wavname"])):
        _save_clip(root / "RELATE_wave" / name.lstrip("/"), rng)
    return root


def _few_train_captions(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """`rows` with TRAIN_CAPTIONS of their train captions: enough for some steps, and quick to validate on."""
    train = rows["wavname"].str.contains("/train/") & (rows["anchor label"] == "False")
    captions = sorted(set(rows.loc[train, "text"]))
    kept = set(rng.choice(captions, TRAIN_CAPTIONS, replace=False))
    return rows[~train | rows["text"].isin(kept)]


def smallest_cell(rows: pd.DataFrame, root: Path) -> int:
    """Write `rows` to root/scores/REL.csv; the number of test pairs in the smallest of the 13 cells."""
    csv = root / "scores" / "REL.csv"
    csv.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(csv, index=False)
    pairs = relate.aggregate_pairs(relate.screen_listeners(relate.load_ratings(csv), 2.0).ratings)
    test = pairs[pairs["split"] == "test"].assign(model="none", clap_score=lambda frame: np.arange(len(frame)) / 1e3)
    sizes = []
    for by in CELLS:
        table = evaluate.breakdown(test, by=by, metrics=("srcc",), n_resamples=2)
        sizes += table.loc[table["cell"] != "within systems", "n"].tolist()
    return min(sizes)


def make_checkpoints(folder: Path, session: Path, tree: Path) -> Path:
    """Random checkpoints of full size, under the names that HUMANCLAP_CHECKPOINTS takes. Needs `hub`.

    Random embeddings of clips all point one way, and those of captions another. Where the two are more than 90 degrees
    apart every CLAPScore would be 0 and every correlation undefined, so there the audio is turned round.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = {
        "laion-clapmodel": (full_size.clapmodel_folder(session, fused=True), None),
        "human-clap-released": (full_size.clapmodel_folder(session, fused=True, seed=1), None),
        "laion-clap.pt": (full_size.laion_checkpoint(session, fused=True), "laion-fusion"),
        "msclap-2022.pth": (full_size.msclap_checkpoint(session, "2022"), "msclap-2022"),
        "msclap-2023.pth": (full_size.msclap_checkpoint(session, "2023"), "msclap-2023"),
    }
    clips, captions = sorted(tree.rglob("*.wav"))[:3], ["A dog barks", "Rain falls on a roof", "People talk"]
    for name, (place, known) in places.items():
        target = folder / name
        shutil.copytree(place, target) if place.is_dir() else shutil.copyfile(place, target)
        clap = load_clap(known, checkpoint=target) if known else load_clap(target)
        if (clap.embed_audio(clips) @ clap.embed_text(captions).T).mean() < 0:
            _turn_round(target)
    return folder


def _turn_round(checkpoint: Path) -> None:
    """Give the last layer of the audio projection the other sign: every cosine becomes its negative."""
    if checkpoint.is_dir():
        file = checkpoint / "model.safetensors"
        state = load_file(file)
        _negate(state, "audio_projection.linear2")
        save_file(state, file, metadata={"format": "pt"})
        return
    content = torch.load(checkpoint, weights_only=False)  # made above, in this very test
    if "model" in content:
        _negate(content["model"], "audio_encoder.projection.layer_norm")
    else:
        _negate(content["state_dict"], "module.audio_projection.2")
    torch.save(content, checkpoint)


def _negate(state: dict, layer: str) -> None:
    for part in ("weight", "bias"):
        state[f"{layer}.{part}"] = -state[f"{layer}.{part}"]


def _save_clip(path: Path, rng: np.random.Generator) -> None:
    """Tones that glide over noise that swells: 16 kHz, 16 bit, mono, 10.0 to 10.24 s."""
    seconds = rng.uniform(*SECONDS)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    low, glide, swell = rng.uniform(100, 1500), rng.uniform(-40, 200), rng.uniform(0.2, 4)
    noise = rng.standard_normal(len(time)) * (0.5 + 0.5 * np.sin(2 * np.pi * swell * time))
    wave = 0.3 * np.sin(2 * np.pi * (low + glide * time) * time) + rng.uniform(0.02, 0.3) * noise
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
