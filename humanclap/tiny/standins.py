"""`make_standins`: both stand-ins as real `save_pretrained` folders, and how good a stand-in is."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from .. import synthetic
from .architectures import ARCHITECTURES, Architecture, new_front_end
from .settings import Pretraining

SETTINGS_FILE = "pretraining.json"
"""What a stand-in was made with; written last, so that a folder which holds it is complete."""

CURVE_FILE = "pretraining.csv"
"""The learning curve: one row an epoch."""

_FORMAT = 1  # raise it when the same settings give another model
_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", CURVE_FILE)


def make_standins(
    root: str | os.PathLike,
    seed: int = 0,
    progress: bool = True,
    settings: Pretraining | None = None,
    architectures: Mapping[str, Architecture] = ARCHITECTURES,
) -> dict[str, Path]:
    """Pretrain the stand-ins that `root` lacks; returns the folders by name: "laion-standin", "msclap-standin".

    Each is a folder for `load_clap` or `ClapModel.from_pretrained`: model, tokenizer, preprocessor, and beside
    them pretraining.csv (the curve) and pretraining.json (the settings). A complete folder with the same
    settings is left alone, one with others is replaced, whole or not at all. The same seed gives the same bytes
    on the same machine and number of threads. `settings` asks for another size; its seed gives way to `seed`.
    Raises what `Pretraining` raises, and FileExistsError for a folder of that name that is no stand-in.
    """
    settings = replace(settings or Pretraining(), seed=seed)
    folders = {name: Path(root) / name for name in architectures}
    missing = {
        name: architecture
        for name, architecture in architectures.items()
        if not _is_made(folders[name], architecture, settings)
    }
    if missing:
        Path(root).mkdir(parents=True, exist_ok=True)
        front_ends = {name: new_front_end(shape, settings.clip_seconds) for name, shape in missing.items()}
        mels, captions = _hear_clips(front_ends, settings, progress)
        for name, architecture in missing.items():
            _make(folders[name], architecture, settings, front_ends[name], mels[name], captions, progress)
    return folders


def naming_accuracy(audio_emb: np.ndarray, kind_emb: np.ndarray, kinds: Iterable[str]) -> float:
    """The share of single-event clips for which their own kind has the highest cosine, 0-1; chance is 1/K.

    `audio_emb` [N, D] of the clips and `kind_emb` [K, D] of `synthetic.kind_caption` for `event_kinds()`, in
    that order, are L2-normalised, as `embed_audio` and `embed_text` give them; `kinds` are the N true ones.
    Raises ValueError for shapes that do not go together.
    """
    names, kinds = synthetic.event_kinds(), list(kinds)
    if np.shape(audio_emb)[:1] != (len(kinds),) or np.shape(kind_emb)[:1] != (len(names),):
        raise ValueError(
            f"audio_emb {np.shape(audio_emb)} needs a row for each of the {len(kinds)} clips, and kind_emb "
            f"{np.shape(kind_emb)} one for each of the {len(names)} kinds"
        )
    best = (np.asarray(audio_emb) @ np.asarray(kind_emb).T).argmax(axis=1)
    return float(np.mean([names[i] == kind for i, kind in zip(best, kinds)]))


def final_improvement(loss: Iterable[float]) -> float:
    """How much a learning curve still fell at its end: 1 - mean(last fifth) / mean(the fifth before it).

    0 is flat, negative is a rise; `loss` has one positive value an epoch. Raises ValueError for fewer than ten.
    """
    values = np.asarray(list(loss), dtype=np.float64)
    if len(values) < 10:
        raise ValueError(f"the curve has {len(values)} epochs; comparing its last two fifths needs at least 10")
    fifth = len(values) // 5
    return float(1.0 - values[-fifth:].mean() / values[-2 * fifth : -fifth].mean())


def _recorded(architecture: Architecture, settings: Pretraining) -> dict:
    """What SETTINGS_FILE holds, as JSON gives it back."""
    record = {
        "data": "synthetic",
        "format": _FORMAT,
        "pretraining": asdict(settings),
        "architecture": asdict(architecture),
    }
    return json.loads(json.dumps(record))


def _is_made(folder: Path, architecture: Architecture, settings: Pretraining) -> bool:
    """Whether `folder` is complete and made with these settings; FileExistsError where it is something else."""
    if not folder.exists():
        return False
    try:
        recorded = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileExistsError(
            f"{folder} is there and is no stand-in CLAP (no readable {SETTINGS_FILE}): move it away, or name "
            "another root"
        ) from None
    complete = all((folder / name).is_file() for name in _FILES)
    return complete and recorded == _recorded(architecture, settings)


def _hear_clips(front_ends: dict, settings: Pretraining, progress: bool) -> tuple[dict[str, np.ndarray], list[str]]:
    """The log-mels float32 [n_clips, 1, frames, mel_bins] of each front end, and the captions.

    A waveform is dropped once it is heard: all of them together would take more memory than anything else.
    """
    from tqdm.auto import tqdm

    clips = synthetic.pretraining_clips(settings.seed, settings.n_clips, settings.clip_seconds)
    heard: dict[str, list[np.ndarray]] = {name: [] for name in front_ends}
    captions = []
    for waveform, caption in tqdm(clips, "pretraining clips", settings.n_clips, unit="clip", disable=not progress):
        for name, front_end in front_ends.items():
            mel = front_end(waveform, sampling_rate=synthetic.SAMPLE_RATE)["input_features"]
            heard[name].append(np.asarray(mel[0], dtype=np.float32))
        captions.append(caption)
    return {name: np.stack(mels) for name, mels in heard.items()}, captions


def _make(folder, architecture, settings, front_end, mels, captions, progress) -> None:
    """Pretrain one stand-in and write it beside `folder`, then rename: nobody ever meets half a model."""
    from .training import pretrain  # torch loads here, not with the package

    model, tokenizer, curve = pretrain(architecture, settings, mels, captions, folder.name if progress else "")
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        made = building / "new"
        for part in (model, tokenizer, front_end):
            part.save_pretrained(made)
        curve.to_csv(made / CURVE_FILE, index=False, lineterminator="\n")
        record = json.dumps(_recorded(architecture, settings), indent=2) + "\n"
        (made / SETTINGS_FILE).write_text(record, encoding="utf-8")
        if folder.exists():
            os.replace(folder, building / "old")
        os.replace(made, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def fused_twin(folder: str | os.PathLike, target: str | os.PathLike, seed: int = 0) -> Path:
    """Write a copy of a stand-in with feature fusion to `target`, and return that folder; left alone if it is there.

    A fused model hears a clip that is longer than its window as four spectrograms; a flag says which clips are. The
    fusion block is new and untrained: the twin shows what the flag does to a score, not how good a fused CLAP is.
    """
    import torch
    from transformers import AutoTokenizer, ClapConfig, ClapFeatureExtractor, ClapModel

    target = Path(target)
    if (target / "model.safetensors").is_file():
        return target
    config = ClapConfig.from_pretrained(folder)
    config.audio_config.enable_fusion = True
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ClapModel(config)
        model.load_state_dict(ClapModel.from_pretrained(folder).state_dict(), strict=False)
        model.save_pretrained(building)
        AutoTokenizer.from_pretrained(folder).save_pretrained(building)
        front_end = ClapFeatureExtractor.from_pretrained(folder)
        front_end.truncation = "fusion"
        front_end.save_pretrained(building)
        os.replace(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target
