"""Systems compared: their mean scores and ratings, and which of two clips of one caption is preferred."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from humanclap.checks import listed, need_columns, whole_number

from .agreement import random_halves
from .bootstrap import Estimate, ResamplePlan, seed_sd
from .cells import NO_PAIRS, known_systems, system_order
from .inputs import FEW, MIN_PAIRS, PAIR, Wide, as_ratings, pair_index, widen

SYSTEMS_NOTE = (
    "AudioLDM and AudioLDM 2 are conditioned on CLAP embeddings, and Tango 2 is tuned on preferences that a CLAP "
    "ranked: a CLAPScore is no outside judge of them."
)
ALL_SHARED = "all shared captions"
ENOUGH_LISTENERS = 2  # who rated both clips: one for each half


def system_means(scores: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean score and mean rating of each system, each with its interval; no coefficient over a handful of systems.

    scores: a long score table with `system` and `target` (0 to 1). One row per model and system: model, system, score,
    score_low, score_high, rating, rating_low, rating_high (0 to 10, people's: the same for every model), n (pairs),
    n_seeds, seed_sd, note. Captions are resampled with all their pairs, the same for all systems and models; several
    `training_seed` of a model are averaged. A system with fewer than 4 pairs keeps its row, with NaN and a note.
    `SYSTEMS_NOTE` belongs under the table. ValueError as `widen` does, and where systems are not known.
    """
    wide = widen(scores, ("system",))
    systems = _need_systems(wide)
    plan = ResamplePlan.draw(wide.pairs["text"], n_resamples, seed)
    values = np.vstack([wide.scores, 10 * wide.target])
    rows = []
    for system in system_order(systems):
        chosen = systems == system
        means, samples = _mean(values[:, chosen], plan, chosen)
        note = FEW if 0 < chosen.sum() < MIN_PAIRS else "" if chosen.any() else NO_PAIRS
        if note:
            means, samples = np.full_like(means, np.nan), np.full_like(samples, np.nan)
        people = Estimate(means[-1], samples[-1])
        for name in wide.models:
            runs = wide.rows(name)
            found = Estimate.mean(means[runs], samples[runs])
            row = {"model": name, "system": system, "score": found.value, **found.row("score_")}
            row |= {"rating": people.value, **people.row("rating_"), "n": int(chosen.sum()), "n_seeds": len(runs)}
            rows.append(row | {"seed_sd": seed_sd(means[runs]), "note": note})
    return pd.DataFrame(sorted(rows, key=lambda row: wide.models.index(row["model"])))


def preferences(
    scores: pd.DataFrame,
    ratings: pd.DataFrame | None = None,
    train_pairs: pd.DataFrame | None = None,
    min_captions: int = 10,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How often score and people prefer the same one of two systems' clips of one caption.

    Two systems are compared where they share captions, and on those only: in RELATE natural with each of the others,
    AudioLDM with Tango 2, AudioLDM 2 with Tango. A comparison is two clips of one caption, a of the one system and b of
    the other. It counts 1 where score(a) - score(b) and rating(a) - rating(b) have one sign, 0 where they have opposite
    ones, and 1/2 where either is a tie (ties are counted apart). Chance is 1/2.

    Args:
        scores: a long score table with `system` and `target`.
        ratings: the single ratings behind the targets (no anchors; listener): how often one half of the listeners who
            rated both clips agrees with the other half, over 50 random halves. It is no strict ceiling (a half is
            noisier than all), but what agreement among people looks like here.
        train_pairs: pairs with `system` and `target`: the floor always prefers the system that has the higher mean
            there, so it hears nothing.
        min_captions: two systems with fewer captions in common are left out, and the last row's note says so (a few
            texts of RELATE belong to several caption ids, and so pair other systems by chance).

    Returns:
        One row per model and pair of systems, and one for all together (`ALL_SHARED`): model, systems, system_a,
        system_b, value, low, high, n (comparisons), n_captions, n_ties_score (mean over seeds), n_ties_people,
        n_undefined, n_seeds, seed_sd, half_agreement, half_low, half_high, n_half (comparisons with at least two
        listeners who rated both), floor, floor_low, floor_high, note. Captions are resampled. Fewer than 4 comparisons:
        NaN and a note.

    Raises:
        ValueError: as `widen` and `as_ratings` do; no systems known, or no two with `min_captions` captions in common
            (the message is a sentence that a notebook can show in the table's place); ratings of none of the pairs
            (ratings of other pairs beside them are passed over); train_pairs that lack a system.
    """
    min_captions, wide = whole_number(min_captions, "min_captions", 1), widen(scores, ("system",))
    systems, target = _need_systems(wide), wide.target
    items, left_out = _comparisons(wide.pairs, systems, min_captions)
    plan = ResamplePlan.draw(items["text"], n_resamples, seed)
    a, b = items["a"].to_numpy(), items["b"].to_numpy()
    by_score, by_people = np.sign(wide.scores[:, a] - wide.scores[:, b]), np.sign(target[a] - target[b])
    unknown = np.full(len(items), np.nan)
    halves = unknown if ratings is None else _half_agreement(ratings, wide.pairs, items, seed)
    floor = unknown if train_pairs is None else _floor(train_pairs, items, by_people)
    values = np.vstack([(1 + by_score * by_people) / 2, halves, floor])
    rows = []
    for name, chosen in _subsets(items):
        n, first = int(chosen.sum()), items[chosen].iloc[0]
        means, samples = _mean(values[:, chosen], plan, chosen)
        note = FEW.replace("pairs", "comparisons") if n < MIN_PAIRS else ""
        if note:
            means, samples = np.full_like(means, np.nan), np.full_like(samples, np.nan)
        elif name == ALL_SHARED and left_out:
            note = f"without {left_out} (fewer than {min_captions} captions)"
        half, blind = Estimate(means[-2], samples[-2]), Estimate(means[-1], samples[-1])
        beside = {"half_agreement": half.value, **half.row("half_"), "n_half": int(np.isfinite(halves[chosen]).sum())}
        beside |= {"floor": blind.value, **blind.row("floor_"), "note": note}
        for model in wide.models:
            runs = wide.rows(model)
            found = Estimate.mean(means[runs], samples[runs])
            row = {"model": model, "systems": name}
            row |= {f"system_{side}": first[f"system_{side}"] if name != ALL_SHARED else "" for side in "ab"}
            row |= {"value": found.value, **found.row(), "n": n, "n_captions": int(items["text"][chosen].nunique())}
            row["n_ties_score"] = float((by_score[runs][:, chosen] == 0).sum(axis=1).mean())
            row |= {"n_ties_people": int((by_people[chosen] == 0).sum()), "n_undefined": found.n_undefined}
            rows.append(row | {"n_seeds": len(runs), "seed_sd": seed_sd(means[runs])} | beside)
    return pd.DataFrame(sorted(rows, key=lambda row: wide.models.index(row["model"])))


def _need_systems(wide: Wide) -> np.ndarray:
    systems = known_systems(wide.pairs)
    if systems is None:
        raise ValueError("the score table names no system: its column system is empty, so there is nothing to compare")
    return systems


def _mean(values: np.ndarray, plan: ResamplePlan, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of values [R, k] of the `chosen` k pairs, and of every resample: [R] and [R, B]. NaN is left out."""
    defined = np.isfinite(values)
    filled = np.where(defined, values, 0.0)
    with np.errstate(invalid="ignore"):  # no pair at all, or none in the resample: 0 / 0 is NaN
        samples = [filled @ w / (defined @ w) for _, w in ((s, w.astype(float)) for s, w in plan.chunks(chosen))]
        return filled.sum(axis=1) / defined.sum(axis=1), np.concatenate(samples, axis=1)


def _comparisons(pairs: pd.DataFrame, systems: np.ndarray, min_captions: int) -> tuple[pd.DataFrame, str]:
    """Every two clips of one caption by two systems, text, a and b (places in `pairs`), system_a, system_b; and the
    pairs of systems left out for few captions, in words."""
    clips = pairs[PAIR].assign(place=np.arange(len(pairs)), system=systems).sort_values(PAIR)
    both, few = [], []
    for first, second in combinations(system_order(systems), 2):
        a, b = (
            clips.loc[clips["system"] == system, ["text", "place"]].rename(columns={"place": side})
            for system, side in ((first, "a"), (second, "b"))
        )
        shared = a.merge(b, on="text").assign(system_a=first, system_b=second)
        if shared["text"].nunique() >= min_captions:
            both.append(shared)
        elif len(shared):
            few.append(f"{first} – {second}: {len(shared)}")
    if not both:
        raise ValueError(
            f"no two of the systems {listed(system_order(systems))} share {min_captions} captions"
            + (f"; comparisons: {listed(few)}" if few else "")
        )
    return pd.concat(both, ignore_index=True), listed(few)


def _subsets(items: pd.DataFrame):
    """(name, mask) of each pair of systems that share captions, and of all comparisons."""
    for (first, second), _ in items.groupby(["system_a", "system_b"], sort=False):
        yield f"{first} – {second}", ((items["system_a"] == first) & (items["system_b"] == second)).to_numpy()
    yield ALL_SHARED, np.ones(len(items), dtype=bool)


def _floor(train_pairs: pd.DataFrame, items: pd.DataFrame, by_people: np.ndarray) -> np.ndarray:
    """Agreement [n] of always preferring the system with the higher mean target in train; a tie there is 1/2."""
    need_columns(train_pairs, "train_pairs", ("system", "target"))
    means = train_pairs.groupby("system")["target"].mean()
    missing = sorted({*items["system_a"], *items["system_b"]} - set(means.index[means.notna()]))
    if missing:
        raise ValueError(f"train_pairs has no target of {listed(missing)}: the floor needs every system's mean")
    always = np.sign(items["system_a"].map(means).to_numpy() - items["system_b"].map(means).to_numpy())
    return (1 + always * by_people) / 2


def _half_agreement(ratings: pd.DataFrame, pairs: pd.DataFrame, items: pd.DataFrame, seed: int) -> np.ndarray:
    """Share of 50 splits [n] in which two halves of the listeners who rated both clips prefer the same; else NaN."""
    rating = as_ratings(ratings, "listener")
    place = pair_index(pairs).get_indexer(pair_index(ratings))
    if not (place >= 0).any():
        raise ValueError("ratings has none of the pairs of scores")
    single = pd.DataFrame({"place": place, "listener": ratings["listener"].to_numpy(), "rating": rating})[place >= 0]
    both = items[["a", "b"]].assign(item=np.arange(len(items)))
    both = both.merge(single, left_on="a", right_on="place").merge(
        single, left_on=["b", "listener"], right_on=["place", "listener"], suffixes=("_a", "_b")
    )
    difference = (both["rating_a"] - both["rating_b"]).to_numpy(float)
    order = np.lexsort((difference, both["item"]))  # the deal must not depend on the order in which ratings came
    item, difference = both["item"].to_numpy()[order], difference[order]
    size, found = np.bincount(item, minlength=len(items)), np.full(len(items), np.nan)
    if (size >= ENOUGH_LISTENERS).any():
        halves, _ = random_halves(difference, item, size, 50, seed)
        found[size >= ENOUGH_LISTENERS] = np.mean([(1 + np.sign(a) * np.sign(b)) / 2 for a, b in halves], axis=0)
    return found
