"""How much the crop of a long clip matters: fixed windows against the random crops of the upstream packages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from humanclap.evaluate import correlations
from humanclap.losses import clap_score

from .data import Corpus
from .models import ModelSource
from .run import Study, runs_folder

FIXED = ("first", "center", "mean")


@dataclass(frozen=True)
class LongClips:
    """Clips longer than a model's window: `paths` and `texts` [N], `target` [N] (0 to 1), None where nobody rated them."""

    paths: list
    texts: list[str]
    target: np.ndarray | None
    note: str


def long_clips(run: Study, corpus: Corpus, pairs: pd.DataFrame, n_pairs: int = 0, seed: int = 0) -> LongClips:
    """Pairs to measure the effect of a window on.

    RELATE's clips of some 10 s are longer than MS CLAP's windows of 5 and 7 s, so all `pairs` are given, or `n_pairs`
    of them, drawn with `seed` (0: all). The synthetic corpus has no long clips: there, three natural clips in a row
    make one long clip (eight in all, with the caption of the first, not rated), kept in <runs>/<profile>/long-clips.
    """
    if corpus.faults is None:
        if 0 < n_pairs < len(pairs):
            pairs = pairs.sample(n_pairs, random_state=seed)
        paths = [corpus.audio_root / audio for audio in pairs["audio"]]
        return LongClips(paths, pairs["text"].tolist(), pairs["target"].to_numpy(), f"{len(paths)} rated clips")
    import soundfile

    natural = pairs[pairs["system"] == "natural"].head(3 * 8)
    read = [soundfile.read(corpus.audio_root / audio) for audio in natural["audio"]]
    folder, paths = runs_folder() / run.profile / "long-clips", []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(0, len(read) - 2, 3):
        paths.append(folder / f"{i // 3}.wav")
        soundfile.write(paths[-1], np.concatenate([wave for wave, _ in read[i : i + 3]]), read[i][1])
    texts = natural["text"].iloc[::3].tolist()[: len(paths)]
    return LongClips(paths, texts, None, f"{len(paths)} clips of three natural ones in a row, not rated")


def window_scores(source: ModelSource, clips: LongClips, n_crops: int = 10) -> pd.DataFrame:
    """CLAPScore of each clip under each fixed window, and under `n_crops` draws of the package's random crop.

    One row per clip, in the order of `clips`; columns: first, center, mean, then "crop 1" ... (window="upstream" with
    seeds 0, 1, ...).
    """
    settings = {name: {"window": name} for name in FIXED}
    settings |= {f"crop {draw + 1}": {"window": "upstream", "seed": draw} for draw in range(n_crops)}
    columns, text_emb = {}, None
    for name, setting in settings.items():
        clap = source.load(**setting)
        text_emb = clap.embed_text(clips.texts) if text_emb is None else text_emb  # a window changes no caption
        columns[name] = clap_score(clap.embed_audio(clips.paths), text_emb)
    return pd.DataFrame(columns)


def window_effect(scores: pd.DataFrame, clips: LongClips) -> pd.DataFrame:
    """How far a window moves a score, and the SRCC: one row per policy, the random crop's with a range over its draws.

    Columns: policy, srcc, srcc_low, srcc_high (lowest and highest of the draws; NaN where the clips are not rated),
    moved (mean distance of a clip's score from that under "first"; for the crop, mean of highest - lowest), draws, n.
    """
    crops = [name for name in scores if name.startswith("crop ")]
    rows = []
    for name in FIXED:
        value = _srcc(scores[name], clips)
        moved = (scores[name] - scores["first"]).abs().mean()
        rows.append((name, value, np.nan, np.nan, moved, 1, len(scores)))
    each = np.array([_srcc(scores[name], clips) for name in crops])
    spread = (scores[crops].max(axis=1) - scores[crops].min(axis=1)).mean()
    rows.append(("random crop", each.mean(), each.min(), each.max(), spread, len(crops), len(scores)))
    return pd.DataFrame(rows, columns=["policy", "srcc", "srcc_low", "srcc_high", "moved", "draws", "n"])


def _srcc(score: pd.Series, clips: LongClips) -> float:
    return np.nan if clips.target is None else correlations(score, clips.target).srcc
