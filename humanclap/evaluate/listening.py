"""Does a score listen? It should fall where the caption does not belong to the clip."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from humanclap.checks import need_columns, whole_number

from .bootstrap import Estimate, ResamplePlan, bootstrap_samples, plan_for, seed_sd, weighted_mean
from .floors import caption_features
from .inputs import FEW, MIN_PAIRS, PAIR, SEED, Wide, as_vector, group_codes, known_systems, pair_index, partners, widen
from .weighted import WeightedAuc, WeightedCorrelations, WeightedPartialSrcc

MAX_ROUNDS = 200
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


@dataclass(frozen=True)
class AnchorAuc:
    """AUC of matched against mismatched pairs: `auc` in [0, 1], 0.5 is chance, with its 95 % interval.

    n_undefined: resamples without a matched or without a mismatched pair, left out of the interval.
    """

    auc: float
    low: float
    high: float
    n_matched: int
    n_mismatched: int
    n_resamples: int
    n_undefined: int


def anchor_auc(
    matched, mismatched, matched_groups=None, mismatched_groups=None, n_resamples: int = 2000, seed: int = 0
) -> AnchorAuc:
    """Probability that a matched pair scores above a mismatched one, a tie counting half, with its interval.

    AUC = (#{matched > mismatched} + #{equal} / 2) / (n_matched · n_mismatched), from the scores of matched [N] and
    mismatched [K] pairs (RELATE's anchors, or swapped captions). The groups are their captions: both given, captions
    are resampled with all their pairs on both sides; neither, pairs are. ValueError for NaN or infinite scores, an
    empty side, only one of the groups, groups that are not one per pair.
    """
    matched, mismatched = as_vector(matched, "matched"), as_vector(mismatched, "mismatched")
    if not len(matched) or not len(mismatched):
        raise ValueError(f"an AUC needs both sides, not {len(matched)} matched, {len(mismatched)} mismatched")
    if (matched_groups is None) != (mismatched_groups is None):
        raise ValueError("give the groups (captions) of both sides, or of neither")
    scores = np.concatenate([matched, mismatched])
    is_matched, groups = np.arange(len(scores)) < len(matched), None
    if matched_groups is not None:
        group_codes(matched_groups, len(matched)), group_codes(mismatched_groups, len(mismatched))
        groups = [*matched_groups, *mismatched_groups]
    plan = plan_for(groups, ~is_matched, scores, n_resamples=n_resamples, seed=seed)
    auc = WeightedAuc(scores, is_matched)
    found = Estimate(float(auc(np.ones((len(scores), 1)))[0]), bootstrap_samples(auc, plan))
    return AnchorAuc(found.value, *found.ends(), len(matched), len(mismatched), plan.n_resamples, found.n_undefined)


def swap_captions(pairs: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The same pairs with their captions dealt out anew, so that no clip has a caption that is its own.

    A permutation of `text` among the rows: each caption is used as often as before, and no row gets a text that is
    paired with its `audio` anywhere in `pairs`. The text it had is kept as `original_text`; ratings and targets stay
    with the clip, so a score that listens to the pair must fall against them. Rows, index and order are kept, and a
    pair gets the same caption whatever the order. ValueError for missing columns or captions, a seed that is no whole
    number of at least 0, or where no such dealing was found (one caption for over half the rows).
    """
    rng = np.random.default_rng(whole_number(seed, "seed"))
    need_columns(pairs, "pairs", PAIR, filled=True)
    codes = np.stack([pd.factorize(pairs[column], sort=True)[0].astype(np.int64) for column in PAIR])
    order = np.lexsort(codes[::-1])  # dealt in the order of audio and text: the rows' own does not matter
    audio, text = codes[:, order]
    n_texts = int(text.max(initial=0)) + 1
    own = np.unique(audio * n_texts + text)

    def is_own(rows: np.ndarray, source: np.ndarray) -> np.ndarray:
        return np.isin(audio[rows] * n_texts + text[source], own)

    everyone, source = np.arange(len(pairs)), rng.permutation(len(pairs))
    for _ in range(MAX_ROUNDS):
        wrong = rng.permutation(everyone[is_own(everyone, source)])
        if not len(wrong):
            break
        for row in wrong:  # trade with a random row such that both end up with a caption that is not theirs
            here, there = source[row], source[everyone]
            fits = ~is_own(np.full(len(pairs), row), there) & ~is_own(everyone, np.full(len(pairs), here))
            if fits.any():
                other = rng.choice(everyone[fits])
                source[row], source[other] = source[other], source[row]
    if is_own(everyone, source).any():
        text, n = next(iter(pairs["text"].value_counts().items()))
        raise ValueError(
            f"found no way to deal {len(pairs)} captions so that no clip keeps its own: {n} rows have {text!r}; no "
            "caption may be in more than half of the rows"
        )
    original = pairs["text"].to_numpy(object)
    swapped = original.copy()
    swapped[order] = original[order[source]]
    return pairs.assign(original_text=original, text=swapped)


def listening_table(
    scores: pd.DataFrame,
    swapped: pd.DataFrame | None = None,
    anchors: pd.DataFrame | None = None,
    matched: str | None = "natural",
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Whether each model listens: SRCC with what a blind guess knows taken out, with other captions, and anchors.

    Args:
        scores: the long score table of the test pairs with their own captions (`target` 0 to 1; where they are known,
            `system` and `training_seed`). A blind predictor may be in it as a model: its partial SRCC is what the
            covariates leave of a guess that never listens, and the others' must be above that.
        swapped: the long score table of `swap_captions(pairs)`, with its `original_text`: the same pairs, each clip with
            another clip's caption. None: no such rows.
        anchors: the long score table of the anchors, pairs that do not match on purpose. None: no such rows.
        matched: the system whose clips match their captions (RELATE's anchors are natural clips, too); the AUCs and the
            comparisons within a clip take its pairs. None, no system known, or no such system: all pairs.

    Returns:
        Tidy, one row per model and control: model, control, value, low, high, n, n_undefined (resamples without a
        value, left out of the interval), n_seeds, seed_sd, note. Controls, in this order (`CONTROLS`):

        - SRCC: with the target, captions as they are.
        - partial SRCC: given system (a dummy each) and number of words (by rank), see `WeightedPartialSrcc`.
        - partial SRCC, temporal words too: given also whether the caption says "followed by" or "then".
        - SRCC, swapped captions: the targets stay with the clips, so what is left is not due to the caption.
        - drop with swapped captions: SRCC - that, on the same resamples.
        - AUC, own against swapped caption: probability that a matched pair scores above one with a swapped caption, ties
          counting half.
        - same clip: own above swapped caption: the share of clips whose own caption scores higher, ties half.
        - AUC, own caption against anchor; same clip: own caption above anchor's: likewise with the anchors; the latter,
          for the anchors whose clip is in `scores` with its own caption (the note counts the others).

        A model with several seeds has the mean over its seeds, resampled together. Captions are resampled with all
        their pairs. A control that can't be known for a model stays, with NaN and a note.

    Raises:
        ValueError: as `widen` does for the three tables; swapped without original_text, or of other pairs than the
            scores; models in `swapped` or `anchors` that `scores` lacks.
    """
    wide = widen(scores)
    pairs, rows = wide.pairs, []
    plan = ResamplePlan.draw(pairs["text"], n_resamples, seed)
    n, note = len(pairs), FEW if len(pairs) < MIN_PAIRS else ""

    def add(control: str, found: tuple, n: int, note: str = "", of: Wide = wide) -> None:
        """`found`: values [R] and samples [R, B] of the runs of `of`, where some of the models may be missing."""
        for name in wide.models:
            runs, row = of.rows(name), {"model": name, "control": control}
            one = Estimate.mean(found[0][runs], found[1][runs]) if len(runs) else Estimate(np.nan, np.empty(0))
            undefined = "" if np.isfinite(one.value) else "undefined: nothing varies, or nothing is left"
            row |= {"value": one.value, **one.row(), "n": n if len(runs) else 0, "n_undefined": one.n_undefined}
            row |= {"n_seeds": len(runs), "seed_sd": seed_sd(found[0][runs])}
            rows.append(row | {"note": (note or undefined) if len(runs) else "not scored with these captions"})

    true = _srcc(wide.scores, wide.target, plan)
    add(TRUE, true, n, note)
    words, temporal = caption_features(pairs).T
    systems = known_systems(pairs)
    given = note or ("" if systems is not None else "no system known: given the caption only")
    for control, covariates in ((PARTIAL, [words]), (PARTIAL_TEMPORAL, [words, temporal])):
        add(control, _evaluate(WeightedPartialSrcc(wide.scores, wide.target, covariates, systems), plan, n), n, given)
    own = np.ones(n, dtype=bool) if systems is None or matched not in set(systems) else systems == matched
    if swapped is not None:
        other = _widen_swapped(swapped, wide)
        away, partner = _srcc(other.scores, wide.target, plan), partners(other, wide, "swapped")
        add(SWAPPED, away, n, note, other)
        add(DROP, (true[0][partner] - away[0], true[1][partner] - away[1]), n, note, other)
        mine, theirs, n_own = wide.scores[partner][:, own], other.scores[:, own], int(own.sum())
        auc, few = _auc(mine, theirs), FEW if n_own < MIN_PAIRS else ""
        add(AUC_SWAPPED, _evaluate(lambda w: auc(np.concatenate([w, w])), plan, n_own, own), n_own, few, other)
        add(CLIP_SWAPPED, _evaluate(_share_above(mine, theirs), plan, n_own, own), n_own, few, other)
    if anchors is not None:
        # an anchor has a rating, and no target that a score is compared with: `widen` asks for one
        bare = anchors[[column for column in ("model", *PAIR, "clap_score", SEED) if column in anchors]]
        other = widen(bare.assign(target=0.0))
        mine, theirs = wide.scores[partners(other, wide, "anchors")][:, own], other.scores
        n_mine, n_theirs = mine.shape[1], theirs.shape[1]
        of_both = ResamplePlan.draw([*pairs["text"][own], *other.pairs["text"]], n_resamples, seed)
        found = _evaluate(_auc(mine, theirs), of_both, min(n_mine, n_theirs))
        add(AUC_ANCHORS, found, n_mine + n_theirs, f"{n_mine} own captions, {n_theirs} anchors", other)
        place = other.pairs[PAIR].assign(anchor=np.arange(n_theirs))
        same = place.merge(pairs.loc[own, PAIR].assign(own=np.arange(n_mine)), on="audio", suffixes=("_anchor", ""))
        same = same[same["text"] != same["text_anchor"]]
        left = n_theirs - same["anchor"].nunique()
        few = FEW if len(same) < MIN_PAIRS else ""
        few = (
            f"{left} of {n_theirs} anchors left out: their clip has no pair with its own caption here" if left else few
        )
        found = np.full(len(theirs), np.nan), np.full((len(theirs), n_resamples), np.nan)
        if len(same) >= MIN_PAIRS and same["text"].nunique() > 1:
            share = _share_above(mine[:, same["own"]], theirs[:, same["anchor"]])
            found = _evaluate(share, ResamplePlan.draw(same["text"], n_resamples, seed), len(same))
        add(CLIP_ANCHORS, found, len(same), few, other)
    return pd.DataFrame(sorted(rows, key=lambda row: wide.models.index(row["model"])))


def _srcc(scores: np.ndarray, target: np.ndarray, plan: ResamplePlan) -> tuple[np.ndarray, np.ndarray]:
    statistic = WeightedCorrelations(scores, target, ("srcc",))
    return _evaluate(lambda weights: statistic(weights)["srcc"], plan, len(target))


def _evaluate(statistic, plan: ResamplePlan, n: int, rows=slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Values [R] and samples [R, B]; the values are NaN where the `n` pairs that count are too few."""
    values = statistic(np.ones((len(plan.codes[rows]), 1), dtype=np.float32))[:, 0]
    return values if n >= MIN_PAIRS else np.full(len(values), np.nan), bootstrap_samples(statistic, plan, rows)


def _widen_swapped(swapped: pd.DataFrame, wide: Wide) -> Wide:
    """The swapped pairs' scores in the order of the scores' own pairs, found by clip and original caption."""
    need_columns(swapped, "swapped", ["model", *PAIR, "original_text", "clap_score"])
    other = widen(swapped.assign(text=swapped["original_text"]))
    wanted, found = pair_index(wide.pairs), pair_index(other.pairs)
    places = found.get_indexer(wanted)
    if (places < 0).any() or len(found) != len(wanted):
        raise ValueError(
            f"swapped must be of the same pairs as scores, by audio and original_text: it lacks {(places < 0).sum()} of "
            f"{len(wanted)} and has {len(found)}; make it with swap_captions of the same pairs"
        )
    if not np.array_equal(other.target[places], wide.target):
        raise ValueError("the targets of swapped are not those of the scores: they stay with the clip")
    return replace(other, scores=other.scores[:, places])


def _auc(mine: np.ndarray, theirs: np.ndarray):
    """AUC of mine [R, n] against theirs [R, k], run by run: weights [n + k, B], mine first -> [R, B]."""
    is_mine = np.arange(mine.shape[1] + theirs.shape[1]) < mine.shape[1]
    statistics = [WeightedAuc(np.concatenate(both), is_mine) for both in zip(mine, theirs, strict=True)]
    return lambda weights: np.stack([statistic(weights) for statistic in statistics])


def _share_above(mine: np.ndarray, theirs: np.ndarray):
    """Share of [R, n] in which mine is above theirs, a tie counting half: weights [n, B] -> [R, B]."""
    return weighted_mean((mine > theirs) + 0.5 * (mine == theirs))
