"""Are the ceilings right? Estimates of `evaluate.cell_ceilings` against the truth in made-up worlds.

    python benchmarks/ceilings.py                        # about 15 minutes on one idle core; writes ceilings.md
    python benchmarks/ceilings.py --studies 4 --stdout   # fewer studies, printed

The worlds are in ceiling_worlds.py; none of them is the model that is fitted. The truth is scipy's correlation of the
true value with the mean rating in 200,000 pairs; the estimates see the ratings only. The table is committed whatever it
says.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from ceiling_worlds import TIED, WORLDS, draw_pairs, truth  # noqa: E402

from humanclap.evaluate import cell_ceilings  # noqa: E402

SIZES = {2892: 12, 480: 24}  # pairs (RELATE's test pairs; those of one system) -> studies
N_TRUTH = 200_000
RESAMPLES = 100
TOLERANCE = 0.02
ROWS = [("all", "srcc"), ("all", "ktau"), ("all", "lcc"), ("<=5 all", "srcc"), (">5 all", "srcc")]
TABLE = Path(__file__).with_suffix(".md")
NOTES = f"""\
## How to read it

- truth: a perfect score's correlation with the mean ratings; estimate: mean of the ceilings over the studies; off:
  estimate less truth, **bold** where it is more than {TOLERANCE:g} off; SD: of the ceiling over studies, that is, of
  one data set; covered: share of the studies whose 95 % interval holds the truth.
- "all" cells are the whole set, "<=5" and ">5" the halves that Table III's cut on the mean rating leaves. A cut is
  sensitive to the shape of the distribution near it, and to how the noise of bad pairs differs from that of good ones.
- In the last world the true values have ties, which the fitted model does not allow for: KTAU divides by them.
- Intervals tell the sampling of captions only. Where a world differs from the model so that the estimate is off, they
  cover less than 95 %, the more so the more pairs there are.
"""


def main() -> None:
    arguments = _arguments()
    started = time.perf_counter()
    rows = [row for name, world in (WORLDS | TIED).items() for row in _world(name, world, arguments.studies)]
    text = _report(pd.DataFrame(rows))
    print(text)
    print(f"{(time.perf_counter() - started) / 60:.1f} min", file=sys.stderr)
    if not arguments.stdout:
        TABLE.write_text(text, encoding="utf-8")


def _world(name: str, world, n_studies: int | None) -> list[dict]:
    """One row a size, cell and metric of one world."""
    known = truth(world, N_TRUTH, seed=0)
    rows = []
    for n_pairs, studies in SIZES.items():
        found = []
        for study in range(n_studies or studies):
            ratings, _ = draw_pairs(world, n_pairs, np.random.default_rng([study, n_pairs]))
            found += [
                cell_ceilings(ratings, by, n_resamples=RESAMPLES, seed=study) for by in ("overall", "score_range")
            ]
        found = pd.concat(found).groupby(["cell", "metric"])
        for cell, metric in ROWS:
            one = found.get_group((cell, metric))
            value = known[cell, metric]
            rows.append({
                "world": name, "pairs": n_pairs, "cell": cell, "metric": metric, "truth": value,
                "estimate": one["ceiling"].mean(), "sd": one["ceiling"].std(),
                "covered": ((one["low"] <= value) & (value <= one["high"])).mean(),
            })  # fmt: skip
        print(f"{name}, {n_pairs} pairs", file=sys.stderr, flush=True)
    return rows


def _report(table: pd.DataFrame) -> str:
    off = table["estimate"] - table["truth"]
    inside = table["cell"] == "all"
    named = ~table["world"].isin(TIED)
    worst = off[inside & named].abs().max()
    n_cut = int((off[~inside & named].abs() > TOLERANCE).sum())
    lines = [
        "# The ceilings against the truth", "",
        "Written by `python benchmarks/ceilings.py`. Raters a pair as on RELATE's test captions after the paper's "
        f"screening (16 % have one); {' and '.join(f'{k} studies of {n:,} pairs' for n, k in SIZES.items())} a world; "
        f"{RESAMPLES} resamples.", "",
        f"All pairs: the largest distance from the truth is {worst:.3f} ({TOLERANCE:g} is allowed), worlds with ties "
        f"left aside. Table III's cells: {n_cut} of {int((~inside & named).sum())} are more than {TOLERANCE:g} off, "
        f"at most {off[~inside & named].abs().max():.3f}.", "",
        "| world | pairs | cell | metric | truth | estimate | off | SD | covered |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row, distance in zip(table.itertuples(), off, strict=True):
        shown = f"**{distance:+.3f}**" if abs(distance) > TOLERANCE else f"{distance:+.3f}"
        cell = row.cell.replace("<", "&lt;").replace(">", "&gt;")
        lines.append(
            f"| {row.world} | {row.pairs:,} | {cell} | {row.metric.upper()} | {row.truth:.3f} | "
            f"{row.estimate:.3f} | {shown} | {row.sd:.3f} | {row.covered:.0%} |"
        )
    what = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "pandas"))
    worlds = [f"- {name}: {world.__doc__}" for name, world in (WORLDS | TIED).items()]
    end = f"Python {platform.python_version()}, {what}."
    return "\n".join([*lines, "", "## The worlds", "", *worlds, "", NOTES, end, ""])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, help="studies of each size (default: 12 large and 24 small ones)")
    parser.add_argument("--stdout", action="store_true", help=f"print the table and leave {TABLE.name} as it is")
    arguments = parser.parse_args()
    if arguments.studies and not arguments.stdout:
        parser.error(f"{TABLE.name} holds the default numbers of studies: give others together with --stdout")
    return arguments


if __name__ == "__main__":
    main()
