"""Scores of one's own clips: systems compared, reference scores, what to report, and one page of it all."""

from __future__ import annotations

import base64
import datetime
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import __version__, audio
from .checks import need_columns
from .evaluate import anchor_auc, correlations, holm, mean_interval, paired_p, swap_captions
from .evaluate.bootstrap import few_prompts
from .score import OK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIGH_RATING, LOW_RATING = 8.0, 2.0
FLOOR = "the same clips, other prompts"
GROUND_TRUTH = ("natural", "ground truth", "ground_truth", "ground-truth", "groundtruth", "gt", "real", "reference")
"""Names of a system that are recordings, not a generator's output: never pooled with systems."""
SILENT_PEAK, CLIPPED_SHARE, SHORT_SECONDS = 1e-3, 1e-3, 1.0
"""Below -60 dBFS a clip counts as silent; with a thousandth of its samples at full scale as clipped; below 1 s as short."""
_NEEDED = ("audio", "text", "system", "clap_score", "status")


def system_means(scores: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The mean CLAPScore of each system with its interval (`evaluate.mean_interval` over prompts), highest first.

    scores: audio, text, system and what `score_pairs` returns. Columns: system, clips (scored), failed (without a
    score: they keep their rows and are no part of the mean), prompts (of scored clips), mean, low, high, shared_mean
    (over the prompts that every system has a score for), zero_share (scores of 0, of a cosine at or below it), note.
    Fewer than 4 prompts: no interval. ValueError where a column is missing or no clip at all has a score.
    """
    scored, shared = _scored(scores), _per_prompt(scores).dropna()
    rows = []
    for system, own in scores.groupby("system", sort=True):
        part = scored[scored["system"] == system]
        row = {"system": system, "clips": len(part), "failed": len(own) - len(part), "prompts": part["text"].nunique()}
        row |= _mean(part, n_resamples, seed)
        row["shared_mean"] = float(shared[system].mean()) if system in shared and len(shared) else np.nan
        row["zero_share"] = float((part["clap_score"] == 0).mean()) if len(part) else np.nan
        rows.append(row | {"note": few_prompts(row["prompts"])})
    return pd.DataFrame(rows).sort_values(["mean", "system"], ascending=[False, True], ignore_index=True)


def score_summary(scores: pd.DataFrame) -> dict:
    """A score table in short, for JSON: the systems (one called "all" without a column system) with the mean, its
    interval, numbers of clips, failures and prompts; with several captions a clip (caption_number) also the means over
    clips of their mean and of their highest score; and the checkpoint, window and precision behind them.
    """
    table = scores if "system" in scores else scores.assign(system="all")
    rows = system_means(table).astype(object)
    systems = rows.where(rows.notna(), None).drop(columns="zero_share").to_dict("records")
    for row in systems if "caption_number" in scores else ():
        of_clip = _scored(table[table["system"] == row["system"]]).groupby("audio")["clap_score"]
        row |= {"mean_of_means": float(of_clip.mean().mean()), "mean_of_highest": float(of_clip.max().mean())}
    made_by = {name: str(scores[name].iloc[0]) for name in ("model", "checkpoint_sha256", "window", "precision")}
    return {"systems": systems, "failed": int((scores["status"] != OK).sum()), **made_by}


def compare_systems(scores: pd.DataFrame, n_resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Each two systems against each other on the prompts they share: is the difference more than chance?

    d_p = mean score of a's clips for prompt p - that of b's; the difference is the mean of the d_p (each prompt counts
    once), with the interval of `evaluate.mean_interval` over prompts and the p of `evaluate.paired_p`. Two systems
    without shared prompts have neither, since a difference would mix systems with prompts. p_holm is Holm's correction
    over the rows with a p.

    Columns: system, other, difference (system - other; the higher system first), low, high, p, p_holm, prompts (shared),
    left_out (prompts of either that the other has no score for), paired, note. One system: no rows.
    """
    per_prompt = _per_prompt(scores)
    order = per_prompt.mean().sort_values(ascending=False, kind="stable").index
    rows = []
    for first, second in itertools.combinations(order, 2):
        a, b = per_prompt[first].dropna(), per_prompt[second].dropna()
        difference = (a - b).dropna()
        if len(difference) and difference.mean() < 0:  # higher over all prompts, lower on the shared ones
            first, second, difference = second, first, -difference
        row = {"system": first, "other": second, "difference": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}
        row |= {"prompts": len(difference), "left_out": len(a.index.union(b.index)) - len(difference)}
        row |= {"paired": len(difference) > 0, "note": few_prompts(len(difference))}
        if len(difference):
            found = mean_interval(difference, difference.index, n_resamples, seed)
            row |= {"difference": found.mean, "low": found.low, "high": found.high}
            if not row["note"]:
                row["p"] = paired_p(difference)
        else:
            row["note"] = "no shared prompts: systems and prompts cannot be told apart"
        rows.append(row)
    columns = ["system", "other", "difference", "low", "high", "p", "p_holm", "prompts", "left_out", "paired", "note"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table["p"].astype(float)) if len(table) else table["p"])


def finding(means: pd.DataFrame, comparisons: pd.DataFrame, references: pd.DataFrame) -> str:
    """One sentence with what the scores show: which systems differ for sure, or what a single one reaches."""
    if len(means) == 1:
        row, floor = means.iloc[0], references.set_index("reference")["mean"].get(FLOOR, np.nan)
        against = f"; the same clips with other prompts score {floor:.3f}" if np.isfinite(floor) else ""
        return f"{row['system']}: mean CLAPScore {_with_interval(row)} over {row['prompts']} prompts{against}."
    sure = comparisons[comparisons["p_holm"] < 0.05].sort_values("difference", ascending=False)
    unpaired, parts = int((~comparisons["paired"].astype(bool)).sum()), []
    for system, rows in sure.head(6).groupby("system", sort=False):
        ends = "{other} ({difference:+.3f} [{low:.3f}, {high:.3f}])"
        others = ", ".join(ends.format(**row) for row in rows.to_dict("records"))
        prompts = " or ".join(map(str, sorted(set(rows["prompts"]))))
        parts.append(f"{system} scores above {others} on {prompts} shared prompts")
    if len(sure) > 6:
        parts.append(f"{len(sure) - 6} further pairs of systems differ, too")
    if len(sure) + unpaired < len(comparisons):
        nothing = "no two systems can be told apart on their prompts"
        parts.append("no other pair can be told apart" if len(sure) else nothing)
    if unpaired:
        parts.append(f"{unpaired} pairs of systems share no prompt and cannot be compared")
    return "; ".join(parts) + "."


def side_by_side(scores: pd.DataFrame, n: int = 4) -> pd.DataFrame:
    """The n shared prompts on which the systems differ most: text, then one column of mean scores per system."""
    shared = _per_prompt(scores).dropna()
    spread = (shared.max(axis=1) - shared.min(axis=1)).sort_values(ascending=False, kind="stable")
    return shared.loc[spread.index[:n]].rename_axis(index="text", columns=None).reset_index()


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


def noise_and_silence(folder: Path, texts: Sequence[str], seconds: float = 10.0, seed: int = 0) -> pd.DataFrame:
    """Write noise.wav (white, -20 dBFS) and silence.wav to `folder`; pairs of each with every prompt: audio, text, system."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    n_samples = round(16_000 * seconds)
    waves = {"noise": np.random.default_rng(seed).normal(0, 0.1, n_samples).clip(-1, 1), "silence": np.zeros(n_samples)}
    for name, wave in waves.items():
        soundfile.write(folder / f"{name}.wav", wave, 16_000)
    rows = [{"audio": f"{name}.wav", "text": text, "system": name} for name in waves for text in dict.fromkeys(texts)]
    return pd.DataFrame(rows)


def references(
    swapped: pd.DataFrame,
    fillers: pd.DataFrame | None = None,
    rated: pd.DataFrame | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """What the scores are to be read against: reference, mean, low, high, clips, prompts, note.

    - the floor, the same clips with other prompts (`swapped`, scored): what no match at all scores here;
    - noise and silence with these prompts (`fillers`, scored `noise_and_silence`);
    - where the same CLAP scored rated pairs (`rated`, with mean_rating 0-10 and `data`, their name): those rated at
      most 2, and those rated at least 8, which is what a good match scores in those data.
    """
    parts = {FLOOR: swapped}
    if fillers is not None:
        parts |= {f"{name}, these prompts": part for name, part in fillers.groupby("system", sort=False)}
    if rated is not None:
        data, rating = rated["data"].iloc[0], rated["mean_rating"]
        parts[f"pairs rated {LOW_RATING:g} or less ({data})"] = rated[rating <= LOW_RATING]
        parts[f"pairs rated {HIGH_RATING:g} or more ({data})"] = rated[rating >= HIGH_RATING]
    rows = []
    for name, part in parts.items():
        scored = part[part["status"] == OK] if len(part) else part
        row = {"reference": name, **_mean(scored, n_resamples, seed), "clips": len(scored)}
        row["prompts"] = scored["text"].nunique()
        rows.append(row | {"note": part.attrs.get("note") or few_prompts(row["prompts"])})
    return pd.DataFrame(rows)


def listens(scores: pd.DataFrame, swapped: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How often a clip scores higher with its own prompt than the system's clips with others (AUC; 0.5: chance).

    One row per system: system, auc, low, high, clips, note; no AUC where there are no swapped scores or too few prompts.
    """
    own, other = _scored(scores), swapped[swapped["status"] == OK] if len(swapped) else swapped
    rows = []
    for system, a in own.groupby("system"):
        b = other[other["system"] == system]
        note = few_prompts(min(a["text"].nunique(), b["text"].nunique()))
        row = {"system": system, "auc": np.nan, "low": np.nan, "high": np.nan, "clips": len(a), "note": note}
        if not note:
            found = anchor_auc(a["clap_score"], b["clap_score"], a["text"], b["original_text"], n_resamples, seed)
            row |= {"auc": found.auc, "low": found.low, "high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def best_and_worst(scores: pd.DataFrame, n: int = 4) -> pd.DataFrame:
    """The n clips with the highest and the n with the lowest cosine, none of them twice; recordings left out.

    Columns: place ("best 1", ..., "worst 1", ...), system, audio, text, cosine, clap_score. A set of nothing but
    recordings (GROUND_TRUTH) is shown as it is.
    """
    scored = _scored(scores).sort_values(["cosine", "audio", "text"], ascending=[False, True, True], ignore_index=True)
    recorded = scored["system"].astype(str).str.strip().str.lower().isin(GROUND_TRUTH)
    scored = scored if recorded.all() else scored[~recorded]
    n = min(n, len(scored) // 2) or 1
    best, worst = scored.head(n), scored.tail(n if len(scored) > 1 else 0)[::-1]
    places = [f"{end} {i + 1}" for end, part in (("best", best), ("worst", worst)) for i in range(len(part))]
    picked = pd.concat([best, worst], ignore_index=True).assign(place=places)
    return picked[["place", "system", "audio", "text", "cosine", "clap_score"]]


def panel_titles(picked: pd.DataFrame) -> list[str]:
    """A title for the panel of each row of `best_and_worst`: place, cosine, system, prompt."""
    titles = [f"{row.place} ({row.cosine:.2f}), {row.system}: {row.text}" for row in picked.itertuples()]
    return [title.replace("$", r"\$") for title in titles]  # else what is between two is read as mathematics


def heard_seconds(clap) -> float:
    """Seconds of a clip that a CLAP takes in at once; NaN where its backend does not say."""
    return clap.n_samples / clap.sample_rate


def durations(scores: pd.DataFrame, root: Path, window_seconds: float) -> pd.DataFrame:
    """Per system: scored clips, shortest, median and longest in seconds, and how many are longer than the window,
    shorter than 1 s, silent, clipped (see SILENT_PEAK)."""
    rows = []
    for clip in _scored(scores)[["audio", "system"]].drop_duplicates().itertuples():
        wave, rate = audio.decode_mono(root / clip.audio)
        seconds, level = len(wave) / rate, np.abs(wave)
        row = {"system": clip.system, "seconds": seconds, "longer": seconds > window_seconds + 1e-3}
        row |= {"under 1 s": seconds < SHORT_SECONDS, "silent": level.max() < SILENT_PEAK}
        rows.append(row | {"clipped": (level >= 0.999).mean() > CLIPPED_SHARE})
    groups = pd.DataFrame(rows).groupby("system")
    table = groups["seconds"].agg(clips="size", shortest="min", median="median", longest="max")
    counts = groups[["longer", "under 1 s", "silent", "clipped"]].sum().astype(int)
    if np.isnan(window_seconds):  # the backend does not say
        counts = counts.drop(columns="longer")
    return table.join(counts.rename(columns={"longer": f"longer than the {window_seconds:g} s window"})).reset_index()


def facts(scores: pd.DataFrame, n_resamples: int, seed: int, rated: pd.DataFrame | None = None) -> pd.DataFrame:
    """What to report with the score, so that others can reproduce it: fact, value.

    The mean of each system, never of all together. With `rated` (as in `references`) also how far this CLAP agrees with
    the ratings there.
    """
    scored = _scored(scores)
    columns = ("model", "checkpoint_sha256", "window", "precision", "device")
    made_by = {name: ", ".join(sorted(set(scores[name].astype(str)))) for name in columns}
    failures = scores.loc[scores["status"] != OK, "status"].value_counts()
    agreement = "not known here: no rated pairs were scored with this CLAP"
    if rated is not None:
        found = correlations(rated["clap_score"], rated["target"])
        agreement = f"SRCC {found.srcc:.3f} over {found.n:,} rated pairs ({rated['data'].iloc[0]})"
    rows = {
        "score": "CLAPScore = max(cosine, 0), mean over clips",
        **made_by,
        "software": f"humanclap {__version__}",
        "date": datetime.date.today().isoformat(),
        "clips scored": f"{len(scored)} of {len(scores)}",
        "clips without a score": "; ".join(f"{n} {status}" for status, n in failures.items()) or "none",
        "prompts": str(scored["text"].nunique()),
    }
    for row in system_means(scores, n_resamples, seed).to_dict("records"):
        rows[f"mean, {row['system']}"] = _with_interval(row)
    rows["interval by"] = f"bootstrap over prompts (expanded percentile), {n_resamples:,} resamples, seed {seed}"
    rows["agreement of this CLAP with ratings"] = agreement
    return pd.DataFrame({"fact": list(rows), "value": list(rows.values())})


@dataclass(frozen=True)
class Section:
    """A section of the page: a heading, a text, and any of a table, a figure and clips (caption -> audio file)."""

    heading: str
    text: str = ""
    table: pd.DataFrame | None = None
    figure: Figure | None = None
    clips: Mapping[str, Path] | None = None


MOST_BYTES = 3_000_000
"""The largest clip that is embedded: the page goes by e-mail."""
_MEDIA_TYPES = {
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
}


def dated(clap) -> dict[str, str]:
    """When and with which weights: for the head of the page."""
    weights = f"sha256 {clap.checkpoint_sha256[:16]}…, window {clap.window}, {clap.precision}"
    return {"Weights": weights, "Date": f"{datetime.date.today().isoformat()}, humanclap {__version__}"}


def write_page(
    path: str | Path, title: str, finding: str, about: Mapping[str, str], sections: Sequence[Section]
) -> Path:
    """Write one HTML file (report.html.j2) that needs no other: the finding, what it is about, tables, figures, clips."""
    from jinja2 import Environment, PackageLoader

    shown = [
        {
            "heading": section.heading,
            "text": section.text,
            "table": None if section.table is None else readable(section.table).to_html(index=False, border=0),
            "figure": None if section.figure is None else _png(section.figure),
            "clips": [(caption, _sound(clip)) for caption, clip in (section.clips or {}).items()],
        }
        for section in sections
    ]
    template = Environment(loader=PackageLoader("humanclap", "."), autoescape=True).get_template("report.html.j2")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(template.render(title=title, finding=finding, about=about, sections=shown), encoding="utf-8")
    return path


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of this module for people: headings in words, an interval in one column, three digits, no empty column."""
    table = table.drop(columns="paired", errors="ignore")
    if {"low", "high"} <= set(table):
        ends = [f"{a:.3f} to {b:.3f}" if np.isfinite(a) else "–" for a, b in zip(table["low"], table["high"])]
        table.insert(list(table).index("low"), "95 % interval", ends)
        table = table.drop(columns=["low", "high"])
    if "note" in table and not table["note"].astype(bool).any():
        table = table.drop(columns="note")
    words = {"shared_mean": "mean, shared prompts", "zero_share": "zero scores", "p_holm": "p (Holm)", "auc": "AUC"}
    table = table.rename(columns=words | {"left_out": "prompts left out", "clap_score": "CLAPScore", "text": "prompt"})
    return pd.DataFrame({name: [_cell(str(name), value) for value in table[name]] for name in table})


def _cell(name: str, value) -> str:
    if not isinstance(value, (float, np.floating)):
        return str(value)
    if np.isnan(value):
        return "–"
    if name.startswith("p") and value < 0.001:
        return "< 0.001"
    if name in ("shortest", "median", "longest"):
        return f"{value:.1f} s"
    return f"{value:+.3f}" if name == "difference" else f"{value:.0%}" if name.startswith("zero") else f"{value:.3f}"


def _png(figure: Figure) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return base64.b64encode(picture.getvalue()).decode()


def _sound(path: Path) -> str | None:
    if path.stat().st_size > MOST_BYTES:
        return None
    kind = _MEDIA_TYPES.get(path.suffix.lower(), "audio/wav")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _scored(scores: pd.DataFrame) -> pd.DataFrame:
    need_columns(scores, "the scores", _NEEDED)
    scored = scores[scores["status"] == OK]
    if not len(scored):
        first = f"; the first: {scores['audio'].iloc[0]}, {scores['status'].iloc[0]}" if len(scores) else ""
        raise ValueError(f"none of the {len(scores)} clips has a score{first}")
    return scored


def _per_prompt(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean score per prompt (rows) and system (columns); NaN where a system has no score for a prompt."""
    return _scored(scores).pivot_table(index="text", columns="system", values="clap_score", aggfunc="mean")


def _mean(scored: pd.DataFrame, n_resamples: int, seed: int) -> dict[str, float]:
    if not len(scored):
        return {"mean": np.nan, "low": np.nan, "high": np.nan}
    found = mean_interval(scored["clap_score"].astype(float), scored["text"], n_resamples, seed)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _with_interval(row: Mapping) -> str:
    if not np.isfinite(row["low"]):
        return f"{row['mean']:.3f} (no interval: {few_prompts(row['prompts'])})"
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
