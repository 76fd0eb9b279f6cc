"""Do the intervals cover, and does the test err as often as it says? Simulated studies with caption effects.

    python benchmarks/interval_coverage.py                # writes interval_coverage.md: some 4 minutes of two cores
    python benchmarks/interval_coverage.py --share 0.1    # the first tenth of the studies, printed only

Each study has 160 or 960 captions of 3 clips. Half of the variance of rating and score is the caption's own and is
shared by its clips, half is the clip's. Ratings are clipped to 0-10 and rounded to tenths, scores clipped at 0, so both
have ties. Two scores are made alike, so they are equally good in truth: each difference that is called significant is an
error. The true SRCC and LCC come from one very large simulated population. Resampling pairs is shown beside resampling
captions: it is wrong, as the clips of a caption are alike.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import numpy as np
import pandas as pd
from scipy import stats

from humanclap.evaluate import bootstrap_correlations, compare

CLIPS = 3
CAPTION_SHARE = 0.5  # of the variance that is the caption's
QUALITY = 0.5  # correlation of a score with the rating before clipping and rounding: SRCC as the paper's best
METRICS = ("srcc", "lcc")
POPULATION = 2_000_000  # captions behind the truth: its error is a fiftieth of a study's at 960 captions
STUDIES = {160: 1000, 960: 500}  # by number of captions
RESAMPLES = 1000
SEED = 1


@dataclass(frozen=True)
class Study:
    """Two scores [2, n] of equal quality, ratings [n], and the caption of each pair [n]."""

    scores: np.ndarray
    rating: np.ndarray
    caption: np.ndarray


def study(rng: np.random.Generator, captions: int) -> Study:
    """A study of `captions` × 3 pairs; everything that differs between studies comes from `rng`."""
    effect = np.repeat(rng.normal(size=(3, captions)), CLIPS, axis=1)
    own = rng.normal(size=(3, captions * CLIPS))
    latent = np.sqrt(CAPTION_SHARE) * effect + np.sqrt(1 - CAPTION_SHARE) * own  # [3, n], unit variance
    rating = np.clip(np.round(5.5 + 2 * latent[0], 1), 0, 10)
    scores = np.maximum(0.3 + 0.2 * (QUALITY * latent[0] + np.sqrt(1 - QUALITY**2) * latent[1:]), 0)
    return Study(scores, rating, np.repeat(np.arange(captions), CLIPS))


def truth(captions: int = POPULATION, seed: int = SEED) -> dict[str, float]:
    """SRCC and LCC of the population that the studies are drawn from."""
    everyone = study(np.random.default_rng(seed), captions)
    score, rating = everyone.scores[0], everyone.rating
    return {"srcc": stats.spearmanr(score, rating).statistic, "lcc": stats.pearsonr(score, rating).statistic}


def one_study(number: int, captions: int, n_resamples: int, seed: int, true: dict[str, float]) -> list[dict]:
    """One study's intervals and p-values: a row per unit and metric: unit, metric, width, below, above, covered, p."""
    drawn = study(np.random.default_rng([seed, captions, number]), captions)
    rows = []
    for unit, groups in (("captions", drawn.caption), ("pairs", None)):
        settings = {"groups": groups, "n_resamples": n_resamples, "seed": seed + number}
        found = bootstrap_correlations(drawn.scores[0], drawn.rating, **settings)
        for metric in METRICS:
            low, high = getattr(found.low, metric), getattr(found.high, metric)
            p = compare(*drawn.scores, drawn.rating, metric=metric, **settings).p
            row = {"unit": unit, "metric": metric, "width": high - low, "p": p, "wrong": p < 0.05}
            row |= {"below": true[metric] < low, "above": true[metric] > high}
            rows.append(row | {"covered": low <= true[metric] <= high})
    return rows


def simulate(captions: int, studies: int, n_resamples: int, true: dict, seed: int = SEED, workers: int = 1):
    """A row per unit and metric over `studies` studies: coverage, errors; the same whatever the number of workers."""
    one = partial(one_study, captions=captions, n_resamples=n_resamples, seed=seed, true=true)
    if workers == 1:
        found = list(map(one, range(studies)))
    else:
        with ProcessPoolExecutor(workers) as pool:
            found = list(pool.map(one, range(studies), chunksize=10))
    rows = pd.DataFrame([row for rows in found for row in rows])
    columns = ["covered", "below", "above", "width", "wrong"]
    return (
        rows.astype({c: float for c in columns}).groupby(["unit", "metric"], sort=False)[columns].mean().reset_index()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the studies, from the first on")
    arguments = parser.parse_args()
    true = truth()
    lines = [
        "# Coverage of the intervals, errors of the test",
        "",
        f"`python benchmarks/interval_coverage.py`, seed {SEED}, {RESAMPLES:,} resamples per study. Simulated studies of",
        f"{CLIPS} clips per caption; {CAPTION_SHARE:.0%} of the variance of rating and score is the caption's.",
        f"Truth, from {POPULATION:,} captions: SRCC {true['srcc']:.4f}, LCC {true['lcc']:.4f}.",
        "± is one binomial standard error; below and above: how often the truth lies there. Resampling pairs is wrong",
        "here, as a caption's clips are alike. Wanted: 93 to 97 % covered, 5 ± 2 % of equal scores called different.",
        "",
        "| captions | studies | resampled | metric | covered | below | above | width | called different |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for captions, most in STUDIES.items():
        studies = max(2, round(most * arguments.share))
        for row in simulate(captions, studies, RESAMPLES, true, workers=2).itertuples():
            errors = [np.sqrt(share * (1 - share) / studies) for share in (row.covered, row.wrong)]
            lines.append(
                f"| {captions} | {studies} | {row.unit} | {row.metric.upper()} | {row.covered:.1%} ± {errors[0]:.1%} | "
                f"{row.below:.1%} | {row.above:.1%} | {row.width:.3f} | {row.wrong:.1%} ± {errors[1]:.1%} |"
            )
    print("\n".join(lines))
    if arguments.share == 1:
        Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
