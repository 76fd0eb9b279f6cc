"""How often do the tests find a difference where there is none, with few prompts or captions?

    python benchmarks/small_samples.py             # writes small_samples.md: more than 20 minutes of one core
    python benchmarks/small_samples.py --share 0.1  # a tenth of the simulations, printed only

A test at level α should reject a true null in at most a share α of studies. Notebook 05 compares two systems on their
shared prompts: differences per prompt are drawn symmetric around 0, normal or with heavy tails (Student's t with 3
degrees of freedom), and tested by `evaluate.paired_p` (exact sign flips up to 16 prompts, Student's t above) and, for
comparison, by the plain bootstrap p of their mean. The tables compare correlations: two equally good scores on captions
of 3 clips each, by `evaluate.two_sided_p` of paired caption resamples, as `evaluate.compare` does. Holm's correction
needs the small levels to hold, which is why `compare` gives no p below 20 captions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import numpy as np
from interval_coverage import study

from humanclap.evaluate import ResamplePlan, WeightedCorrelations, bootstrap_samples, paired_p, two_sided_p
from humanclap.evaluate.bootstrap import MIN_CAPTIONS_P

PROMPTS = (4, 5, 6, 7, 8, 10, 12, 16, 17, 20, 25, 30, 40, 60)
CAPTIONS = (7, 10, 15, 20, 30, 40, 60)
SIMULATIONS, STUDIES = 20_000, 4_000
RESAMPLES = 4_000
LEVELS = (0.05, 0.01, 0.001)


def bootstrap_p(differences: np.ndarray, counts: np.ndarray) -> float:
    """The first edition's p: of the mean of differences [n] over resamples, counts [n, B]."""
    return two_sided_p(differences @ counts)


def prompts_null(n: int, tails: str, simulations: int, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Shares of simulations at most each level, for `paired_p` and for the plain bootstrap (a tenth of them)."""
    drawn = rng.normal(size=(simulations, n)) if tails == "normal" else rng.standard_t(3, size=(simulations, n))
    exact = np.array([paired_p(row) for row in drawn])
    counts = ResamplePlan.draw(range(n), RESAMPLES, 0).counts
    plain = np.array([bootstrap_p(row, counts) for row in drawn[: simulations // 10]])
    return [float((exact <= a).mean()) for a in LEVELS], [float((plain <= a).mean()) for a in LEVELS]


def captions_null(n: int, studies: int, seed: int = 3) -> list[float]:
    """Shares of studies whose `compare` of two equally good scores (SRCC) has p at most each level, no lower limit."""
    p = []
    for number in range(studies):
        drawn = study(np.random.default_rng([seed, n, number]), n)
        engine = WeightedCorrelations(drawn.scores, drawn.rating, ("srcc",))
        plan = ResamplePlan.draw(drawn.caption, RESAMPLES, number)
        samples = bootstrap_samples(lambda weights, engine=engine: engine(weights)["srcc"], plan)
        p.append(two_sided_p(samples[0] - samples[1]))
    return [float((np.array(p) <= level).mean()) for level in LEVELS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the simulations")
    share = parser.parse_args().share
    rng = np.random.default_rng(1)
    levels = " | ".join(f"p ≤ {level:g}" for level in LEVELS)
    lines = [
        "# Error rates with few prompts or captions",
        "",
        f"`python benchmarks/small_samples.py`: shares of null simulations ({round(SIMULATIONS * share):,} per row, a",
        "tenth for the plain bootstrap) with p at most the level. Wanted: at most the level.",
        "",
        f"| prompts | differences | paired_p: {levels} | plain bootstrap: {levels} |",
        "|---|---|" + "---|" * 2 * len(LEVELS),
    ]
    for n in PROMPTS:
        for tails in ("normal", "heavy tails"):
            ours, plain = prompts_null(n, tails, round(SIMULATIONS * share), rng)
            lines.append(f"| {n} | {tails} | " + " | ".join(f"{rate:.4f}" for rate in (*ours, *plain)) + " |")
    lines += [
        "",
        f"Equally good scores compared by SRCC, captions of 3 clips ({round(STUDIES * share):,} studies per row, "
        f"{RESAMPLES:,} resamples; `compare` gives no p below {MIN_CAPTIONS_P} captions):",
        "",
        f"| captions | {levels} |",
        "|---|" + "---|" * len(LEVELS),
    ]
    for n in CAPTIONS:
        rates = captions_null(n, round(STUDIES * share))
        lines.append(f"| {n} | " + " | ".join(f"{rate:.4f}" for rate in rates) + " |")
    print("\n".join(lines))
    if share == 1:
        Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
