"""The paper's ablation: what wSCE adds to a regression loss, over training seeds as well as over captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from .checks import listed
from .intervals import check_interval
from .sampled import SampledCell, default_metrics, sample_cells
from .significance import check_correction
from .tables import with_holm
from .wide import SEED, Wide, widen

PAIRS = (("wsce+mae", "mae"), ("wsce+mse", "mse"))
ENOUGH_SEEDS = 3  # with fewer, the spread over seeds says next to nothing


def ablation(
    table: pd.DataFrame,
    pairs: Sequence[tuple] = PAIRS,
    by: str = "overall",
    score: str = "clap_score",
    metrics: Sequence[str] | None = None,
    model: str = "model",
    groups: str | None = "text",
    n_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    cut: float = 5.0,
    interval: str = "percentile",
    family: str = "ablation",
    correct: bool = True,
) -> pd.DataFrame:
    """Difference of each (model, reference) of `pairs` in each cell, with its two uncertainties shown apart.

    Two trainings with one seed start alike and see the same batches, so differences are taken seed by seed; the
    seeds that both models have are used, and a note names those that only one has. Columns:
    - model, reference, cell, metric, value, reference_value (means over the paired seeds), difference;
    - low, high: the test-sampling interval, of the mean difference over these very seeds: captions are resampled,
      trainings are held fixed. p (two-sided), p_holm (over all rows here; `family` names them) belong to it;
    - n_seeds, seed_sd, seed_min, seed_max: number of paired seeds, and SD and range of their differences on the
      pairs as they are; seed_t_low, seed_t_high: difference ± t · seed_sd / √n_seeds, Student's interval at
      `level` over seeds (needs two), with the test pairs held fixed;
    - family, n, n_constant, note. Fewer than 3 seeds are marked there.
    Neither interval holds the other's uncertainty. Other arguments, marks and errors as in `paper_table`;
    ValueError where a model is not in the table, is compared with itself, or two models share no training seed.
    """
    if correct:
        check_correction(n_resamples)
    jackknife = check_interval(interval)
    metrics = default_metrics(metrics, by)
    wide = widen(table, score, model, [groups] if groups else [])
    paired = {pair: _paired_seeds(wide, *pair) for pair in _as_pairs(pairs)}
    wide = _only(wide, {name for pair in paired for name in pair})
    cells = sample_cells(wide, by, cut, metrics, groups, n_resamples, seed, jackknife)
    rows = []
    for (name, reference), (seeds, left_out) in paired.items():
        runs, others = (_runs(wide, which, seeds) for which in (name, reference))
        rows += [
            {model: name, "reference": reference, "cell": cell.name, "metric": metric}
            | _row(cell, metric, runs, others, level, left_out)
            for cell in cells for metric in metrics
        ]
    found = pd.DataFrame(rows)
    return with_holm(found, family) if correct else found.assign(family="")


def _row(cell: SampledCell, metric: str, runs: np.ndarray, others: np.ndarray, level: float, left_out: str) -> dict:
    """The numbers of one difference in one cell; `runs` and `others` are the same seeds of the two models."""
    value, reference = cell.estimate(metric, runs), cell.estimate(metric, others)
    difference = value - reference
    ends = difference.ends(level)
    each = cell.values[metric][runs] - cell.values[metric][others]
    spread = np.full(2, np.nan)
    sd = each.std(ddof=1) if len(each) > 1 else np.nan
    if np.isfinite(sd):
        spread = each.mean() + stats.t.ppf([(1 - level) / 2, (1 + level) / 2], len(each) - 1) * sd / np.sqrt(len(each))
    few = f"{len(each)} paired training seed{'s' if len(each) > 1 else ''}, fewer than {ENOUGH_SEEDS}"
    notes = [ends.note, few if len(each) < ENOUGH_SEEDS else "", left_out]
    return {
        "value": value.value, "reference_value": reference.value, "difference": difference.value,
        "low": ends.low, "high": ends.high, "p": difference.p(), "n_seeds": len(each), "seed_sd": sd,
        "seed_min": each.min(), "seed_max": each.max(), "seed_t_low": spread[0], "seed_t_high": spread[1],
        "n": cell.n, "n_constant": difference.n_undefined,
        "note": cell.notes(metric, runs, others, also="; ".join(filter(None, notes))),
    }


def _as_pairs(pairs: Sequence[tuple]) -> list[tuple]:
    """The pairs as tuples of two different models; ValueError where they are not, or there is none."""
    pairs = [tuple(pair) if isinstance(pair, (tuple, list)) else (pair,) for pair in pairs]
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"pairs holds {pair}: each must be two different models, (model, reference)")
    if not pairs:
        raise ValueError(f"pairs is empty: for instance {PAIRS}")
    return pairs


def _paired_seeds(wide: Wide, model, reference) -> tuple[list, str]:
    """The training seeds that both models have, and a note on those that only one has."""
    missing = [name for name in (model, reference) if name not in wide.models]
    if missing:
        raise ValueError(f"ablation needs the models {listed(missing)}. Available: {listed(wide.models)}")
    seeds = {name: wide.seeds(name) for name in (model, reference)}
    both = [seed for seed in seeds[model] if seed in seeds[reference]]
    if not both:
        raise ValueError(
            f"{model!r} and {reference!r} share no {SEED}: {listed(seeds[model])} against {listed(seeds[reference])}. "
            "Train both with the same seeds"
        )
    alone = [f"{seed} of {name}" for name in seeds for seed in seeds[name] if seed not in both]
    return both, f"without training seeds that only one has: {listed(alone)}" if alone else ""


def _only(wide: Wide, models: set) -> Wide:
    """The wide table with the runs of these models alone."""
    kept = [place for place, (name, _) in enumerate(wide.runs) if name in models]
    return replace(
        wide, models=[name for name in wide.models if name in models], runs=[wide.runs[i] for i in kept],
        scores=wide.scores[kept],
    )


def _runs(wide: Wide, model, seeds: list) -> np.ndarray:
    """Which rows of the scores are these seeds of a model, in the order of `seeds`."""
    return np.array([wide.runs.index((model, seed)) for seed in seeds])
