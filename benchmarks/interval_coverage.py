"""Do the intervals cover, and does the test err as often as it says? Simulated studies with caption effects.

    python benchmarks/interval_coverage.py                # writes interval_coverage.md: some 6 minutes of one core
    python benchmarks/interval_coverage.py --share 0.1    # with the first tenth of the studies

Each study has 160 or 960 captions of 3 clips. Half of the variance of rating and score is the caption's own and is
shared by its clips, half is the clip's. Ratings are clipped to 0-10 and rounded to tenths, scores clipped at 0, so
both have ties. Two scores are made alike, so they are equally good in truth: each difference that is called
significant is an error. The true SRCC and LCC come from one very large simulated population.
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

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scipy import stats  # noqa: E402

from humanclap.evaluate import ResamplePlan, WeightedCorrelations, bootstrap_samples, correlations  # noqa: E402
from humanclap.evaluate.intervals import Estimate  # noqa: E402

CLIPS = 3
CAPTION_SHARE = 0.5  # of the variance that is the caption's
QUALITY = 0.5  # correlation of a score with the rating before clipping and rounding: SRCC as the paper's best
METRICS = ("srcc", "lcc")
LEVEL = 0.95
POPULATION = 2_000_000  # captions behind the truth: its error is a fiftieth of a study's at 960 captions
STUDIES = {160: 2000, 960: 1000}  # by number of captions
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


def williams(r_a: float, r_b: float, r_ab: float, n: int) -> float:
    """Two-sided p of Williams' (1959) test that two correlations with one variable are equal, n independent triples.

    t = (r_a - r_b) √((n - 1) (1 + r_ab) / (2 |R| (n - 1) / (n - 3) + r̄² (1 - r_ab)³)), n - 3 degrees of freedom,
    |R| = 1 - r_a² - r_b² - r_ab² + 2 r_a r_b r_ab, r̄ = (r_a + r_b) / 2 (Steiger 1980, eq. 7).
    """
    determinant = 1 - r_a**2 - r_b**2 - r_ab**2 + 2 * r_a * r_b * r_ab
    mean = (r_a + r_b) / 2
    scale = 2 * determinant * (n - 1) / (n - 3) + mean**2 * (1 - r_ab) ** 3
    t = (r_a - r_b) * np.sqrt((n - 1) * (1 + r_ab) / scale)
    return float(2 * stats.t.sf(abs(t), n - 3))


def one_study(number: int, captions: int, n_resamples: int, seed: int, true: dict[str, float]) -> list[dict]:
    """One study's intervals and p-values: a row a quantity, with the columns unit, method, metric, covered, p."""
    rng = np.random.default_rng([seed, captions, number])
    drawn = study(rng, captions)
    rows = []
    engine = WeightedCorrelations(drawn.scores, drawn.rating, METRICS)
    for unit, groups in (("caption", drawn.caption), ("pair", np.arange(len(drawn.rating)))):
        estimates = _estimates(engine, groups, n_resamples, seed + number, jackknife=unit == "caption")
        for metric, (a, b) in estimates.items():
            for method in ("percentile", "bca") if unit == "caption" else ("percentile",):
                found = a if method == "bca" else Estimate(a.value, a.samples)
                ends = found.ends(LEVEL)
                row = {"unit": unit, "method": method, "metric": metric, "width": ends.high - ends.low}
                row |= {"below": true[metric] < ends.low, "above": true[metric] > ends.high, "p": np.nan}
                rows.append(row | {"covered": ends.low <= true[metric] <= ends.high})
            rows.append({"unit": unit, "method": "difference", "metric": metric, "p": (a - b).p()})
    return rows + _one_clip_a_caption(rng, drawn, n_resamples, seed + number)


def _estimates(engine, groups, n_resamples: int, seed: int, jackknife: bool) -> dict[str, list[Estimate]]:
    """For each metric the estimates of both scores, resampled together."""
    plan = ResamplePlan.draw(groups, n_resamples=n_resamples, seed=seed)

    def statistic(weights: np.ndarray) -> np.ndarray:  # [metric, score, B]
        return np.stack(list(engine(weights).values()))

    values = statistic(np.ones((len(groups), 1), np.float32))[..., 0]
    samples = bootstrap_samples(statistic, plan)
    without = bootstrap_samples(statistic, plan.leave_one_out()) if jackknife else None
    return {
        metric: [Estimate(values[i, s], samples[i, s], None if without is None else without[i, s]) for s in (0, 1)]
        for i, metric in enumerate(engine.metrics)
    }


def _one_clip_a_caption(rng: np.random.Generator, drawn: Study, n_resamples: int, seed: int) -> list[dict]:
    """p of the LCC's difference by Williams and by the bootstrap, on one random clip of each caption."""
    captions = len(drawn.rating) // CLIPS
    rows = np.arange(captions) * CLIPS + rng.integers(CLIPS, size=captions)
    scores, rating = drawn.scores[:, rows], drawn.rating[rows]
    a, b = (correlations(score, rating).lcc for score in scores)
    by_williams = williams(a, b, correlations(*scores).lcc, captions)
    engine = WeightedCorrelations(scores, rating, ("lcc",))
    first, second = _estimates(engine, np.arange(captions), n_resamples, seed, jackknife=False)["lcc"]
    return [
        {"unit": "one clip", "method": "williams", "metric": "lcc", "p": by_williams},
        {"unit": "one clip", "method": "difference", "metric": "lcc", "p": (first - second).p()},
    ]


def simulate(
    captions: int, studies: int, n_resamples: int, true: dict[str, float], seed: int = SEED, workers: int = 1
) -> pd.DataFrame:
    """All rows of `studies` studies, with the number of the study; the same whatever the number of workers."""
    one = partial(one_study, captions=captions, n_resamples=n_resamples, seed=seed, true=true)
    if workers == 1:
        found = list(map(one, range(studies)))
    else:
        with ProcessPoolExecutor(workers) as pool:
            found = list(pool.map(one, range(studies), chunksize=10))
    return pd.DataFrame([row | {"study": number} for number, rows in enumerate(found) for row in rows])


def coverage_table(found: pd.DataFrame) -> pd.DataFrame:
    """Share of studies whose interval holds the truth, with its binomial standard error; misses on either side."""
    intervals = found[found["covered"].notna()].astype({"covered": float, "below": float, "above": float})
    table = intervals.groupby(["unit", "method", "metric"], sort=False).agg(
        coverage=("covered", "mean"), studies=("covered", "size"), truth_below=("below", "mean"),
        truth_above=("above", "mean"), width=("width", "mean"),
    )
    table.insert(1, "se", np.sqrt(table["coverage"] * (1 - table["coverage"]) / table["studies"]))
    return table.reset_index()


def error_table(found: pd.DataFrame) -> pd.DataFrame:
    """Share of studies in which two equally good scores are called different, with its binomial standard error."""
    tests = found[found["p"].notna()].assign(wrong=lambda rows: (rows["p"] < 1 - LEVEL).astype(float))
    grouped = tests.groupby(["unit", "method", "metric"], sort=False)["wrong"]
    table = grouped.agg(wrong="mean", studies="size")
    table.insert(1, "se", np.sqrt(table["wrong"] * (1 - table["wrong"]) / table["studies"]))
    return table.reset_index()


def nearness(found: pd.DataFrame) -> dict[str, float]:
    """How near the bootstrap's p is to Williams' over studies: mean and largest |difference|, correlation, verdicts."""
    p = found[found["unit"] == "one clip"].pivot(index="study", columns="method", values="p")
    apart = (p["williams"] - p["difference"]).abs()
    same = (p["williams"] < 1 - LEVEL) == (p["difference"] < 1 - LEVEL)
    return {"mean": apart.mean(), "largest": apart.max(), "correlation": p.corr().iloc[0, 1], "same": same.mean()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the studies, from the first on")
    parser.add_argument("--workers", type=int, default=2, help="processes (the numbers are the same with any)")
    arguments = parser.parse_args()
    true = truth()
    lines = _head(true)
    for captions, studies in STUDIES.items():
        found = simulate(captions, max(2, round(studies * arguments.share)), RESAMPLES, true, workers=arguments.workers)
        lines += _section(captions, found)
    text = "\n".join(lines) + "\n"
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


def _head(true: dict[str, float]) -> list[str]:
    return [
        "# Coverage of the intervals, errors of the test",
        "",
        f"`python benchmarks/interval_coverage.py`, seed {SEED}, {RESAMPLES:,} resamples a study. Simulated studies of",
        f"{CLIPS} clips a caption; {CAPTION_SHARE:.0%} of the variance of rating and score is the caption's.",
        f"Truth, from {POPULATION:,} captions: SRCC {true['srcc']:.4f}, LCC {true['lcc']:.4f}.",
        "± is one binomial standard error; below and above: how often the truth lies there.",
    ]


def _section(captions: int, found: pd.DataFrame) -> list[str]:
    names = {"caption": "captions", "pair": "pairs (wrong: a caption's are alike)", "one clip": "one clip a caption"}
    methods = {"percentile": "percentile", "bca": "BCa", "difference": "paired bootstrap", "williams": "Williams"}
    studies = found["study"].nunique()
    lines = ["", f"## {captions} captions, {captions * CLIPS:,} pairs: {studies:,} studies", ""]
    lines += _heads("resampled", "interval", "metric", "covers the truth", "below", "above", "width", "93-97 %")
    for row in coverage_table(found).itertuples():
        met = "–" if row.unit == "pair" else "met" if 0.93 <= row.coverage <= 0.97 else "NOT met"
        first = f"| {names[row.unit]} | {methods[row.method]} | {row.metric.upper()} | "
        misses = f"{row.truth_below:.1%} | {row.truth_above:.1%}"
        lines.append(f"{first}{row.coverage:.1%} ± {row.se:.1%} | {misses} | {row.width:.3f} | {met} |")
    lines += ["", *_heads("resampled", "test at 5 %, two-sided", "metric", "equal scores called different", "5 ± 2 %")]
    for row in error_table(found).itertuples():
        met = "–" if row.unit == "pair" else "met" if 0.03 <= row.wrong <= 0.07 else "NOT met"
        first = f"| {names[row.unit]} | {methods[row.method]} | {row.metric.upper()} | "
        lines.append(f"{first}{row.wrong:.1%} ± {row.se:.1%} | {met} |")
    near = nearness(found)
    return lines + [
        "",
        f"Williams' p and the bootstrap's, LCC on one random clip a caption, {studies:,} studies:",
        f"mean distance {near['mean']:.3f}, largest {near['largest']:.3f}, correlation {near['correlation']:.4f},",
        f"the same verdict at 5 % in {near['same']:.1%}.",
    ]


def _heads(*names: str) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


if __name__ == "__main__":
    main()
