"""Systems compared: their mean scores and ratings, and which of two clips of one caption is preferred."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from humanclap.checks import listed, need_columns, whole_number

from .bootstrap import Estimate, ResamplePlan, bootstrap_samples, seed_sd, weighted_mean
from .inputs import FEW, MIN_PAIRS, PAIR, Wide, known_systems, system_order, widen

SYSTEMS_NOTE = (
    "AudioLDM and AudioLDM 2 are conditioned on CLAP embeddings, and Tango 2 is tuned on preferences that a CLAP "
    "ranked: a CLAPScore is no outside judge of them."
)
ALL_SHARED = "all shared captions"


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
        n, means, samples = _means(values, plan, chosen)
        note = FEW if 0 < n < MIN_PAIRS else "" if n else "no such pairs"
        people = Estimate(means[-1], samples[-1])
        for name in wide.models:
            runs = wide.rows(name)
            found = Estimate.mean(means[runs], samples[runs])
            row = {"model": name, "system": system, "score": found.value, **found.row("score_")}
            row |= {"rating": people.value, **people.row("rating_"), "n": n, "n_seeds": len(runs)}
            rows.append(row | {"seed_sd": seed_sd(means[runs]), "note": note})
    return pd.DataFrame(sorted(rows, key=lambda row: wide.models.index(row["model"])))


def preferences(
    scores: pd.DataFrame,
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
        train_pairs: pairs with `system` and `target`: the floor always prefers the system that has the higher mean
            there, so it hears nothing.
        min_captions: two systems with fewer captions in common are left out, and the last row's note says so (a few
            texts of RELATE belong to several caption ids, and so pair other systems by chance).

    Returns:
        One row per model and pair of systems, and one for all together (`ALL_SHARED`): model, systems, value, low,
        high, n (comparisons), n_captions, n_ties_score (mean over seeds), n_ties_people, n_seeds, seed_sd, floor,
        floor_low, floor_high, note. Captions are resampled. Fewer than 4 comparisons: NaN and a note.

    Raises:
        ValueError: as `widen` does; no systems known, or no two with `min_captions` captions in common (the message is
            a sentence that a notebook can show in the table's place); train_pairs that lack a system.
    """
    min_captions, wide = whole_number(min_captions, "min_captions", 1), widen(scores, ("system",))
    systems, target = _need_systems(wide), wide.target
    items, left_out = _comparisons(wide.pairs, systems, min_captions)
    plan = ResamplePlan.draw(items["text"], n_resamples, seed)
    a, b = items["a"].to_numpy(), items["b"].to_numpy()
    by_score, by_people = np.sign(wide.scores[:, a] - wide.scores[:, b]), np.sign(target[a] - target[b])
    floor = np.full(len(items), np.nan) if train_pairs is None else _floor(train_pairs, items, by_people)
    values = np.vstack([(1 + by_score * by_people) / 2, floor])
    names = items["system_a"].astype(str) + " – " + items["system_b"].astype(str)
    rows = []
    for name in (*dict.fromkeys(names), ALL_SHARED):
        chosen = np.ones(len(items), dtype=bool) if name == ALL_SHARED else (names == name).to_numpy()
        n, means, samples = _means(values, plan, chosen)
        note = FEW.replace("pairs", "comparisons") if n < MIN_PAIRS else ""
        if name == ALL_SHARED and left_out and not note:
            note = f"without {left_out} (fewer than {min_captions} captions)"
        blind = Estimate(means[-1], samples[-1])
        for model in wide.models:
            runs = wide.rows(model)
            found = Estimate.mean(means[runs], samples[runs])
            row = {"model": model, "systems": name, "value": found.value, **found.row(), "n": n}
            row |= {"n_captions": int(items["text"][chosen].nunique())}
            row["n_ties_score"] = float((by_score[runs][:, chosen] == 0).sum(axis=1).mean())
            row |= {"n_ties_people": int((by_people[chosen] == 0).sum()), "n_seeds": len(runs)}
            row |= {"seed_sd": seed_sd(means[runs]), "floor": blind.value, **blind.row("floor_"), "note": note}
            rows.append(row)
    return pd.DataFrame(sorted(rows, key=lambda row: wide.models.index(row["model"])))


def _need_systems(wide: Wide) -> np.ndarray:
    systems = known_systems(wide.pairs)
    if systems is None:
        raise ValueError("the score table names no system: its column system is empty, so there is nothing to compare")
    return systems


def _means(values: np.ndarray, plan: ResamplePlan, chosen: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Of values [R, n]: the number of `chosen` ones, their means [R] and those of every resample [R, B]; NaN: too few."""
    mean, n = weighted_mean(values[:, chosen]), int(chosen.sum())
    if n < MIN_PAIRS:
        return n, np.full(len(values), np.nan), np.full((len(values), plan.n_resamples), np.nan)
    return n, mean(np.ones((n, 1)))[:, 0], bootstrap_samples(mean, plan, chosen)


def _comparisons(pairs: pd.DataFrame, systems: np.ndarray, min_captions: int) -> tuple[pd.DataFrame, str]:
    """Every two clips of one caption by two systems, text, a and b (places in `pairs`), system_a, system_b; and the
    pairs of systems left out for few captions, in words."""
    clips = pairs[PAIR].assign(place=np.arange(len(pairs)), system=systems).sort_values(PAIR)
    of = {system: part[["text", "place"]] for system, part in clips.groupby("system")}
    both, few = [], []
    for first, second in combinations([system for system in system_order(systems) if system in of], 2):
        shared = of[first].merge(of[second], on="text").set_axis(["text", "a", "b"], axis=1)
        if shared["text"].nunique() >= min_captions:
            both.append(shared.assign(system_a=first, system_b=second))
        elif len(shared):
            few.append(f"{first} – {second}: {len(shared)}")
    if not both:
        raise ValueError(
            f"no two of the systems {listed(system_order(systems))} share {min_captions} captions"
            + (f"; comparisons: {listed(few)}" if few else "")
        )
    return pd.concat(both, ignore_index=True), listed(few)


def _floor(train_pairs: pd.DataFrame, items: pd.DataFrame, by_people: np.ndarray) -> np.ndarray:
    """Agreement [n] of always preferring the system with the higher mean target in train; a tie there is 1/2."""
    need_columns(train_pairs, "train_pairs", ("system", "target"))
    means = train_pairs.groupby("system")["target"].mean()
    missing = sorted({*items["system_a"], *items["system_b"]} - set(means.index[means.notna()]))
    if missing:
        raise ValueError(f"train_pairs has no target of {listed(missing)}: the floor needs every system's mean")
    always = np.sign(items["system_a"].map(means).to_numpy() - items["system_b"].map(means).to_numpy())
    return (1 + always * by_people) / 2
