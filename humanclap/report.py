"""From the scores of one's own clips to what can be said of them: systems compared, extremes, what to report."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from scipy import stats

from . import __version__
from .evaluate import (
    ResamplePlan,
    anchor_auc,
    bootstrap_samples,
    correlations,
    percentile_interval,
    swap_captions,
    two_sided_p,
)
from .evaluate.checks import need_columns
from .evaluate.significance import CORRECTION_RESAMPLES, holm
from .score import OK

MIN_PROMPTS = 4  # fewer, and an interval over prompts says nothing: it is left empty and marked
HIGH_RATING, LOW_RATING = 8.0, 2.0
FLOOR = "the same clips, other prompts"
_NEEDED = ("audio", "text", "system", "clap_score", "status")


def system_means(scores: pd.DataFrame, n_resamples: int = 2000, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """The mean CLAPScore of each system with its interval, prompts resampled with all their clips.

    The interval is the expanded percentile interval (Hesterberg 2015): over n prompts, resamples are moved away from
    the mean by sqrt(n / (n - 1)) · t / z, the quantiles of Student's t with n - 1 degrees of freedom and of the normal
    distribution at `level`. One's own prompts are few, and a plain percentile interval over 10 of them is a fifth too
    narrow; over 500 the factor is 1.003.

    scores: audio, text, system and what `score_pairs` returns. Columns: system, clips (scored), failed (without a
    score: they keep their rows, and no part in the mean), prompts (of scored clips), mean, low, high, zero_share
    (scores of 0, of a cosine at or below it), note. Highest mean first. Fewer than MIN_PROMPTS prompts: no interval.
    ValueError where a column is missing or no clip at all has a score.
    """
    scored = _scored(scores)
    rows = []
    for system, own in scores.groupby("system", sort=True):
        part = scored[scored["system"] == system]
        row = {"system": system, "clips": len(part), "failed": len(own) - len(part), "prompts": part["text"].nunique()}
        row |= dict(zip(("mean", "low", "high"), _mean(part["clap_score"], part["text"], n_resamples, seed, level)))
        row["zero_share"] = float((part["clap_score"] == 0).mean()) if len(part) else np.nan
        rows.append(row | {"note": _note(row["prompts"])})
    return pd.DataFrame(rows).sort_values(["mean", "system"], ascending=[False, True], ignore_index=True)


def compare_systems(
    scores: pd.DataFrame, n_resamples: int = CORRECTION_RESAMPLES, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Every two systems against each other: is the difference of their scores more than the luck of these prompts?

    Where the two share prompts, they are compared on those, paired: d_p = mean score of a's clips for prompt p - that
    of b's, the difference is the mean of the d_p (each prompt counts once), and prompts are resampled. Where they share
    none, each is resampled by itself, and the difference mixes systems with prompts (`paired` False; the note says so).
    Intervals as in `system_means`; p is `evaluate.two_sided_p` of the same resamples; p_holm is Holm's correction
    over all rows, for which n_resamples should be 10,000.

    Columns: system, other, difference (system - other; the higher system first), low, high, p, p_holm, prompts (that
    the row rests on), left_out (prompts of either that the other has no score for), paired, note. One system: no rows.
    """
    per_prompt = _scored(scores).pivot_table(index="text", columns="system", values="clap_score", aggfunc="mean")
    order = per_prompt.mean().sort_values(ascending=False, kind="stable").index
    rows = []
    for first, second in itertools.combinations(order, 2):
        a, b = per_prompt[first].dropna(), per_prompt[second].dropna()
        shared = a.index.intersection(b.index)
        paired = len(shared) > 0
        row = {"system": first, "other": second, "difference": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}
        row |= {"prompts": len(shared) if paired else len(a) + len(b), "paired": paired}
        row["left_out"] = len(a.index.union(b.index)) - len(shared) if paired else 0
        row["note"] = "" if paired else "no shared prompts: systems and prompts cannot be told apart"
        if paired:
            values, fewest = (a - b).loc[shared], len(shared)
            row["difference"] = float(values.mean())
        else:
            row["difference"], fewest = float(a.mean() - b.mean()), min(len(a), len(b))
        if fewest < MIN_PROMPTS:
            row["note"] = _note(fewest)
        else:
            if paired:
                samples = _samples(values, n_resamples, seed, level)
            else:  # two draws that know nothing of each other
                samples = _samples(a, n_resamples, seed, level) - _samples(b, n_resamples, seed + 1, level)
            row["low"], row["high"] = percentile_interval(samples, level)
            row["p"] = two_sided_p(samples)
        rows.append(row)
    columns = ["system", "other", "difference", "low", "high", "p", "p_holm", "prompts", "left_out", "paired", "note"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table["p"].astype(float)) if len(table) else table["p"])


def other_prompts(pairs: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The same clips with prompts that are not theirs (`evaluate.swap_captions`); no rows where that cannot be done.

    It cannot where one prompt has over half of the clips, as with a single prompt; `attrs["note"]` then says why.
    """
    try:
        return swap_captions(pairs, seed)
    except ValueError as error:
        empty = pairs.iloc[:0].assign(original_text=pd.Series(dtype=object))
        empty.attrs["note"] = str(error)
        return empty


def references(
    scores: pd.DataFrame,
    swapped: pd.DataFrame,
    rated: pd.DataFrame | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """What the scores are to be read against: reference, mean, low, high, clips, prompts, note.

    - the floor, the same clips with other prompts (`swapped`, scored): what a score here gives for no match at all;
    - where there are rated pairs that the same CLAP scored (`rated`, with mean_rating 0-10 and `data`, their name):
      those rated at most 2, and those rated at least 8, which is what a good match earns in that data.
    """
    parts = {FLOOR: swapped[swapped["status"] == OK] if len(swapped) else swapped}
    if rated is not None:
        data = rated["data"].iloc[0]
        parts[f"pairs rated {LOW_RATING:g} or less ({data})"] = rated[rated["mean_rating"] <= LOW_RATING]
        parts[f"pairs rated {HIGH_RATING:g} or more ({data})"] = rated[rated["mean_rating"] >= HIGH_RATING]
    rows = []
    for name, part in parts.items():
        prompts = part["text"].nunique()
        values = part["clap_score"] if len(part) else pd.Series(dtype=float)
        ends = dict(zip(("mean", "low", "high"), _mean(values, part["text"], n_resamples, seed)))
        note = swapped.attrs.get("note", "") if name == FLOOR and not len(part) else _note(prompts)
        rows.append({"reference": name, **ends, "clips": len(part), "prompts": prompts, "note": note})
    return pd.DataFrame(rows)


def listens(scores: pd.DataFrame, swapped: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How often a clip scores higher with its own prompt than any clip with another's (AUC; 0.5: the score is deaf).

    One row a system: system, auc, low, high, clips, note; no AUC where there are no swapped scores or too few prompts.
    """
    own, other = _scored(scores), swapped[swapped["status"] == OK] if len(swapped) else swapped
    rows = []
    for system in sorted(set(own["system"])):
        a, b = own[own["system"] == system], other[other["system"] == system]
        fewest = min(a["text"].nunique(), b["text"].nunique())
        row = {"system": system, "auc": np.nan, "low": np.nan, "high": np.nan, "clips": len(a), "note": _note(fewest)}
        if fewest >= MIN_PROMPTS:
            found = anchor_auc(a["clap_score"], b["clap_score"], a["text"], b["original_text"], n_resamples, seed)
            row |= {"auc": found.auc, "low": found.low, "high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def best_and_worst(scores: pd.DataFrame, n: int = 4) -> pd.DataFrame:
    """The n clips with the highest and the n with the lowest cosine, none of them twice.

    Columns: place ("best 1", ..., "worst 1", ...), system, audio, text, cosine, clap_score.
    """
    scored = _scored(scores).sort_values(["cosine", "audio", "text"], ascending=[False, True, True], ignore_index=True)
    n = min(n, len(scored) // 2) or 1
    best, worst = scored.head(n), scored.tail(n if len(scored) > 1 else 0)[::-1]
    picked = pd.concat([best, worst], ignore_index=True)
    places = [f"best {i + 1}" for i in range(len(best))] + [f"worst {i + 1}" for i in range(len(worst))]
    picked.insert(0, "place", places)
    return picked[["place", "system", "audio", "text", "cosine", "clap_score"]]


def panel_titles(picked: pd.DataFrame) -> list[str]:
    """A title for the panel of each row of `best_and_worst`: place, cosine, system, prompt."""
    titles = [f"{row.place} ({row.cosine:.2f}), {row.system}: {row.text}" for row in picked.itertuples()]
    return [title.replace("$", r"\$") for title in titles]  # else what stands between two is read as mathematics


def facts(scores: pd.DataFrame, n_resamples: int, seed: int, rated: pd.DataFrame | None = None) -> pd.DataFrame:
    """What to report with the score, so that others can get it again: fact, value.

    With `rated` (as in `references`) also how far this CLAP follows the ratings there.
    """
    scored = _scored(scores)
    made_by = {name: ", ".join(sorted(set(scores[name].astype(str)))) for name in ("model", "checkpoint_sha256")}
    made_by |= {name: ", ".join(sorted(set(scores[name].astype(str)))) for name in ("window", "precision", "device")}
    failures = scores.loc[scores["status"] != OK, "status"].value_counts()
    value, low, high = _mean(scored["clap_score"], scored["text"], n_resamples, seed)
    interval = f"{low:.4f} to {high:.4f}" if np.isfinite(low) else f"none ({_note(scored['text'].nunique())})"
    agreement = "not known here: no rated pairs were scored with this CLAP"
    if rated is not None:
        found = correlations(rated["clap_score"], rated["target"])
        agreement = f"SRCC {found.srcc:.3f} over {found.n:,} rated pairs ({rated['data'].iloc[0]})"
    rows = {
        "score": "CLAPScore = max(cosine, 0), mean over clips",
        **made_by,
        "software": f"humanclap {__version__}",
        "clips scored": f"{len(scored)} of {len(scores)}",
        "clips without a score": "; ".join(f"{n} {status}" for status, n in failures.items()) or "none",
        "prompts": str(scored["text"].nunique()),
        "mean": f"{value:.4f}",
        "95 % interval": interval,
        "interval by": f"bootstrap over prompts (expanded percentile), {n_resamples:,} resamples, seed {seed}",
        "agreement of this CLAP with ratings": agreement,
    }
    return pd.DataFrame({"fact": list(rows), "value": list(rows.values())})


# --- the arithmetic -------------------------------------------------------------------------------------


def _scored(scores: pd.DataFrame) -> pd.DataFrame:
    need_columns(scores, "the scores", _NEEDED)
    scored = scores[scores["status"] == OK]
    if not len(scored):
        first = f"; the first: {scores['audio'].iloc[0]}, {scores['status'].iloc[0]}" if len(scores) else ""
        raise ValueError(f"none of the {len(scores)} clips has a score{first}")
    return scored


def _samples(values: pd.Series, n_resamples: int, seed: int, level: float) -> np.ndarray:
    """Resampled means [B] of one value a prompt, in float64, expanded."""
    plan = ResamplePlan.draw(values.index, len(values), n_resamples, seed)
    numbers = values.to_numpy(float)
    samples = bootstrap_samples(lambda weights: numbers @ weights.astype(float) / len(numbers), plan)
    return _expanded(samples, numbers.mean(), len(numbers), level)


def _expanded(samples: np.ndarray, value: float, n: int, level: float) -> np.ndarray:
    """Resamples moved away from the value for a small number n of prompts; see `system_means`."""
    upper = (1 + level) / 2
    factor = np.sqrt(n / (n - 1)) * stats.t.ppf(upper, n - 1) / stats.norm.ppf(upper)
    return value + factor * (samples - value)


def _mean(values, prompts, n_resamples: int, seed: int, level: float = 0.95) -> tuple[float, float, float]:
    """Mean over clips, and its interval with whole prompts resampled; no interval below MIN_PROMPTS."""
    numbers = values.to_numpy(float)
    mean = float(numbers.mean()) if len(numbers) else np.nan
    if prompts.nunique() < MIN_PROMPTS:
        return mean, np.nan, np.nan
    plan = ResamplePlan.draw(prompts.to_numpy(), len(numbers), n_resamples, seed)
    samples = bootstrap_samples(lambda weights: numbers @ (w := weights.astype(float)) / w.sum(axis=0), plan)
    return mean, *percentile_interval(_expanded(samples, mean, prompts.nunique(), level), level)


def _note(prompts: int) -> str:
    if prompts >= MIN_PROMPTS:
        return ""
    return "no clip with a score" if prompts == 0 else f"{prompts} prompts, an interval needs {MIN_PROMPTS}"
