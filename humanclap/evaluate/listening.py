"""Does it listen? Every control of every model in one table, on captions resampled together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from .bootstrap import bootstrap_samples
from .cells import MIN_PAIRS, known_systems
from .checks import PAIR, check_level, listed, need_columns
from .controls import WeightedAuc
from .floors import caption_features
from .partial import WeightedPartialSrcc
from .resamples import ResamplePlan
from .seeds import averaged, partners
from .weighted import WeightedCorrelations
from .wide import SEED, Wide, widen

TRUE = "SRCC"
PARTIAL = "partial SRCC"
PARTIAL_TEMPORAL = "partial SRCC, temporal words too"
SWAPPED = "SRCC, swapped captions"
DROP = "drop with swapped captions"
AUC_SWAPPED = "AUC, own against swapped caption"
CLIP_SWAPPED = "same clip: own above swapped caption"
AUC_ANCHORS = "AUC, own caption against anchor"
CLIP_ANCHORS = "same clip: own caption above anchor's"
CONTROLS = (TRUE, PARTIAL, PARTIAL_TEMPORAL, SWAPPED, DROP, AUC_SWAPPED, CLIP_SWAPPED, AUC_ANCHORS, CLIP_ANCHORS)


@dataclass
class _Table:
    """Rows as they come: values [R] and samples [R, B] of every run, written down for each model."""

    wide: Wide
    model: str
    level: float
    rows: list[dict] = field(default_factory=list)

    def add(self, control: str, values, samples, n: int, note: str = "", of: Wide | None = None) -> None:
        """`of`: whose runs the values are of, where some of the table's models may be missing."""
        of = of or self.wide
        for name in self.wide.models:
            row = {self.model: name, "control": control}
            if name not in of.models:
                row |= dict.fromkeys(("value", "low", "high", "seed_sd"), np.nan)
                row |= {"n": 0, "n_undefined": 0, "n_seeds": 0, "note": "not scored with these captions"}
            else:
                of_model = of.rows(name)
                found = averaged(values[of_model], samples[of_model], self.level)
                undefined = "" if np.isfinite(found.value) else "undefined: nothing varies, or nothing is left"
                row |= {**found.as_dict(), "n": n, "note": note if np.isfinite(found.value) else note or undefined}
            self.rows.append(row)

    def to_frame(self) -> pd.DataFrame:
        columns = [self.model, "control", "value", "low", "high", "n", "n_undefined", "n_seeds", "seed_sd", "note"]
        place = {name: i for i, name in enumerate(self.wide.models)}
        return pd.DataFrame(sorted(self.rows, key=lambda row: place[row[self.model]]), columns=columns)


def listening_table(
    scores: pd.DataFrame,
    swapped: pd.DataFrame | None = None,
    anchors: pd.DataFrame | None = None,
    score: str = "clap_score",
    model: str = "model",
    matched: str | None = "natural",
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Whether each model listens: SRCC with what a blind guess knows taken out, with other captions, and anchors.

    Args:
        scores: the long score table of the test pairs with their own captions (`target` 0 to 1; where they are
            known, `system` and `training_seed`). A blind predictor may stand in it as a model: its partial SRCC is
            what the covariates leave of a guess that never listens, and the others' must be above that.
        swapped: the long score table of `swap_captions(pairs)`, with its `original_text`: the same pairs, each
            clip with another clip's caption. None: no such rows.
        anchors: the long score table of the anchors, pairs that do not match on purpose. None: no such rows.
        matched: the system whose clips match their captions (RELATE's anchors are natural clips, too); the AUCs and
            the comparisons within a clip take its pairs. None, or no system known: all pairs.

    Returns:
        Tidy, one row a model and control: model, control, value, low, high, n, n_undefined (resamples without a
        value, left out of the interval), n_seeds, seed_sd, note. Controls, in this order (`CONTROLS`):

        - SRCC: with the target, captions as they are.
        - partial SRCC: given system (a dummy each) and number of words (by rank), see `WeightedPartialSrcc`.
        - partial SRCC, temporal words too: given also whether the caption says "followed by" or "then".
        - SRCC, swapped captions: the targets stay with the clips, so what is left is not the caption's doing.
        - drop with swapped captions: SRCC - that, on the same resamples.
        - AUC, own against swapped caption: probability that a matched pair scores above one with a swapped caption,
          ties counting half.
        - same clip: own above swapped caption: the share of clips whose own caption scores higher, ties half.
        - AUC, own caption against anchor; same clip: own caption above anchor's: likewise with the anchors; the
          latter, for the anchors whose clip stands in `scores` with its own caption (the note counts the others).

        A model with several seeds has the mean over its seeds, resampled together. Captions are resampled with all
        their pairs. A control that can't be known for a model stays, with NaN and a note.

    Raises:
        ValueError: as `widen` does for the three tables; swapped without original_text, or of other pairs than the
            scores; models in `swapped` or `anchors` that `scores` lacks; `matched` names no system of the scores.
    """
    check_level(level)
    wide = widen(scores, score, model, [])
    table = _Table(wide, model, level)
    pairs = wide.pairs
    plan = ResamplePlan.draw(pairs["text"], len(pairs), n_resamples, seed)
    true = _srcc(wide.scores, wide.target, plan)
    table.add(TRUE, *true, len(pairs), _few(len(pairs)))
    _add_partial(table, plan)
    if swapped is not None or anchors is not None:
        own = _matched_rows(pairs, matched)
    if swapped is not None:
        other = _widen_swapped(swapped, wide, score, model)
        _add_swapped(table, other, true, own, plan)
    if anchors is not None:
        # an anchor has a rating, and no target that a score is held against: `widen` asks for one
        bare = [column for column in (model, *PAIR, score, SEED) if column in anchors]
        other = widen(anchors[bare].assign(target=0.0), score, model, [])
        _add_anchors(table, other, own, n_resamples, seed)
    return table.to_frame()


def _srcc(scores: np.ndarray, target: np.ndarray, plan: ResamplePlan) -> tuple[np.ndarray, np.ndarray]:
    statistic = WeightedCorrelations(scores, target, ("srcc",))
    return _evaluate(lambda weights: statistic(weights)["srcc"], plan)


def _evaluate(statistic, plan: ResamplePlan, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Values [R] and samples [R, B]; the values are NaN where the `n` pairs that count are too few."""
    values = statistic(np.ones((len(plan.codes), 1), dtype=np.float32))[:, 0]
    enough = (len(plan.codes) if n is None else n) >= MIN_PAIRS
    return values if enough else np.full(len(values), np.nan), bootstrap_samples(statistic, plan)


def _few(n: int) -> str:
    return f"fewer than {MIN_PAIRS} pairs" if n < MIN_PAIRS else ""


def _matched_rows(pairs: pd.DataFrame, matched: str | None) -> np.ndarray:
    systems = known_systems(pairs)
    if matched is None or systems is None:
        return np.ones(len(pairs), dtype=bool)
    rows = systems == matched
    if not rows.any():
        raise ValueError(
            f"no pair is of the system {matched!r}; there are {listed(sorted(set(systems)))}: name the system whose "
            "clips match their captions, or matched=None for all pairs"
        )
    return rows


def _add_partial(table: _Table, plan: ResamplePlan) -> None:
    wide = table.wide
    words, temporal = caption_features(wide.pairs).T
    systems = known_systems(wide.pairs)
    note = _few(len(wide.pairs)) or ("" if systems is not None else "no system known: given the caption only")
    for control, covariates in ((PARTIAL, [words]), (PARTIAL_TEMPORAL, [words, temporal])):
        statistic = WeightedPartialSrcc(wide.scores, wide.target, covariates, systems)
        table.add(control, *_evaluate(statistic, plan), len(wide.pairs), note)


def _widen_swapped(swapped: pd.DataFrame, wide: Wide, score: str, model: str) -> Wide:
    """The swapped pairs' scores in the order of the scores' own pairs, found by clip and original caption."""
    need_columns(swapped, "swapped", [model, *PAIR, "original_text", score])
    by_own = swapped.assign(text=swapped["original_text"])
    other = widen(by_own, score, model, [])
    wanted, found = (pd.MultiIndex.from_frame(each.pairs[PAIR]) for each in (wide, other))
    places = found.get_indexer(wanted)
    if (places < 0).any() or len(found) != len(wanted):
        raise ValueError(
            f"swapped must be of the same pairs as scores, by audio and original_text: it lacks {(places < 0).sum()} "
            f"of {len(wanted)} and has {len(found)}; make it with swap_captions of the same pairs"
        )
    if not np.array_equal(other.target[places], wide.target):
        raise ValueError("the targets of swapped are not those of the scores: they stay with the clip")
    return replace(other, scores=other.scores[:, places])


def _add_swapped(table: _Table, other: Wide, true: tuple, own: np.ndarray, plan: ResamplePlan) -> None:
    wide = table.wide
    note = _few(len(wide.pairs))
    away = _srcc(other.scores, wide.target, plan)
    table.add(SWAPPED, *away, len(wide.pairs), note, other)
    partner = partners(other, wide, "swapped")
    drop = tuple(here[partner] - there for here, there in zip(true, away, strict=True))
    table.add(DROP, *drop, len(wide.pairs), note, other)
    mine, theirs = wide.scores[partner][:, own], other.scores[:, own]
    auc = _auc(mine, theirs)
    n_own, share = int(own.sum()), _share_above(mine, theirs)
    statistics = {
        AUC_SWAPPED: lambda weights: auc(np.concatenate([weights[own]] * 2)),
        CLIP_SWAPPED: lambda weights: share(weights[own]),
    }
    for control, statistic in statistics.items():
        table.add(control, *_evaluate(statistic, plan, n_own), n_own, _few(n_own), other)


def _add_anchors(table: _Table, other: Wide, own: np.ndarray, n_resamples: int, seed: int) -> None:
    wide = table.wide
    partner = partners(other, wide, "anchors")
    pairs = wide.pairs[own].reset_index(drop=True)
    mine, theirs = wide.scores[partner][:, own], other.scores
    captions = [*pairs["text"], *other.pairs["text"]]
    plan = ResamplePlan.draw(captions, len(captions), n_resamples, seed)
    found = _evaluate(_auc(mine, theirs), plan, min(mine.shape[1], theirs.shape[1]))
    note = f"{mine.shape[1]} own captions, {theirs.shape[1]} anchors"
    table.add(AUC_ANCHORS, *found, len(captions), note, other)

    anchor = other.pairs[PAIR].assign(anchor=np.arange(theirs.shape[1]))
    same = anchor.merge(pairs[PAIR].assign(own=np.arange(len(pairs))), on="audio", suffixes=("_anchor", ""))
    same = same[same["text"] != same["text_anchor"]]
    left = theirs.shape[1] - same["anchor"].nunique()
    note = f"{left} of {theirs.shape[1]} anchors left out: their clip has no pair with its own caption here"
    if len(same) < MIN_PAIRS or same["text"].nunique() < 2:
        nothing = np.full(len(theirs), np.nan), np.full((len(theirs), n_resamples), np.nan)
        table.add(CLIP_ANCHORS, *nothing, len(same), note, other)
        return
    plan = ResamplePlan.draw(same["text"], len(same), n_resamples, seed)
    share = _share_above(mine[:, same["own"]], theirs[:, same["anchor"]])
    table.add(CLIP_ANCHORS, *_evaluate(share, plan), len(same), note if left else "", other)


def _auc(mine: np.ndarray, theirs: np.ndarray):
    """AUC of mine [R, n] against theirs [R, k], run by run: weights [n + k, B], mine first -> [R, B]."""
    is_mine = np.arange(mine.shape[1] + theirs.shape[1]) < mine.shape[1]
    statistics = [WeightedAuc(np.concatenate(both), is_mine) for both in zip(mine, theirs, strict=True)]
    return lambda weights: np.stack([statistic(weights) for statistic in statistics])


def _share_above(mine: np.ndarray, theirs: np.ndarray):
    """Share of [R, n] in which mine is above theirs, a tie counting half: weights [n, B] -> [R, B]."""
    wins = (mine > theirs) + 0.5 * (mine == theirs)

    def share(weights):
        with np.errstate(invalid="ignore"):  # no such pair in the resample: 0 / 0 is NaN
            return wins @ weights.astype(np.float64) / weights.sum(axis=0, dtype=np.float64)

    return share
