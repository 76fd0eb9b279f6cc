"""Tables I to III, the ablation and every further breakdown from one long score table: one engine for all.

A long score table has one row per model and pair: model, audio, text, target (0 to 1), clap_score, and where they are
known system and mean_rating (0 to 10). Where a fine-tuned model has several training seeds, the column training_seed
distinguishes its runs (NaN for models that have none), and every value is the mean over its seeds. All models, seeds
and cells share one set of resamples of captions, so differences are paired.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from humanclap import tables as files
from humanclap.checks import choice, listed, need_columns
from humanclap.files import write_text

from .bootstrap import (
    ALPHA,
    CORRECTION_RESAMPLES,
    Estimate,
    ResamplePlan,
    bootstrap_samples,
    few_captions,
    holm,
    seed_sd,
)
from .inputs import SEED, WITHIN, Wide, as_vector, make_cells, widen, within_systems
from .weighted import METRICS, WeightedCorrelations

FAMILIES = {"overall": "Table I", "system": "Table II", "score_range": "Table III"}
BETTER, WORSE, ABOVE_FLOOR = "*", "‡", "†"
ABLATIONS = (("wsce+mae", "mae"), ("wsce+mse", "mse"))
ENOUGH_SEEDS = 3  # with fewer, the spread over seeds says next to nothing


@dataclass(frozen=True)
class SampledCell:
    """One cell: name, number of pairs and of captions, note, and per metric values [R] and samples [R, B].

    computed: False where the cell must stay empty, for the reason in `note`.
    """

    name: str
    n: int
    n_captions: int
    note: str
    computed: bool
    values: dict[str, np.ndarray]
    samples: dict[str, np.ndarray]

    def estimate(self, metric: str, runs: np.ndarray) -> Estimate:
        """Mean of the metric over `runs` (the seeds of one model), in each resample the same."""
        return Estimate.mean(self.values[metric][runs], self.samples[metric][runs])

    def notes(self, metric: str, *runs: np.ndarray, also: Sequence[str] = ()) -> str:
        """What there is to say about the metric of one model's `runs` (of each of several models), in one line."""
        notes = [self.note]
        for rows in runs if self.computed else ():
            undefined = int(np.isnan(self.values[metric][rows]).sum())
            some = f" in {undefined} of {len(rows)} training seeds" if undefined < len(rows) else ""
            notes += [f"constant score or target{some}"] if undefined else []
        return "; ".join(dict.fromkeys(filter(None, (*notes, *also))))


def sample_cells(wide: Wide, by: str, metrics: Sequence[str], n_resamples: int, seed: int) -> list[SampledCell]:
    """Values and samples of `wide.scores` [R, n] in every cell of `by`; resamples are drawn once for all of them.

    by "system" ends with "within systems": the mean of the systems' values weighted by their numbers of pairs, in each
    resample by the resample's own numbers.
    """
    plan, cells = ResamplePlan.draw(wide.pairs["text"], n_resamples, seed), make_cells(wide.pairs, by)
    both = {}  # [metrics, R, 1 + B] of each cell: the values, then the samples
    for cell in cells:
        if not cell.note:
            engine = WeightedCorrelations(wide.scores[:, cell.rows], wide.target[cell.rows], metrics)

            def all_metrics(weights: np.ndarray, engine=engine) -> np.ndarray:
                return np.stack(list(engine(weights).values()))

            value = all_metrics(np.ones((int(cell.rows.sum()), 1), np.float32))
            both[cell.name] = np.concatenate([value, bootstrap_samples(all_metrics, plan, cell.rows)], axis=-1)
    if by == "system":
        within, used = within_systems(cells, wide.pairs)
        cells.append(within)
        if used:
            of_caption = [np.bincount(plan.codes[cell.rows], minlength=plan.n_groups) for cell in used]
            sizes = np.stack(of_caption) @ np.insert(plan.counts, 0, 1, axis=1)  # [systems, 1 + B]
            each = np.stack([both[cell.name] for cell in used])
            with np.errstate(invalid="ignore"):
                # one system undefined in a resample (or not drawn: 0 · NaN) leaves the mean undefined there
                both[WITHIN] = np.einsum("sb,smrb->mrb", sizes, each) / sizes.sum(axis=0)
    found, nothing = [], np.full((len(metrics), len(wide.scores), 1 + n_resamples), np.nan)
    for cell in cells:
        sampled = dict(zip(metrics, both.get(cell.name, nothing), strict=True))
        values, samples = ({metric: each[:, part] for metric, each in sampled.items()} for part in (0, slice(1, None)))
        size = int(cell.rows.sum()), len(np.unique(plan.codes[cell.rows]))
        found.append(SampledCell(cell.name, *size, cell.note, cell.name in both, values, samples))
    return found


def breakdown(
    table: pd.DataFrame,
    by: str = "overall",
    metrics: Sequence[str] | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    floor: str | None = None,
) -> pd.DataFrame:
    """`paper_table` without a baseline: no differences, marks and ceilings. One row per model, cell and metric.

    Columns: model, cell, metric, value, low, high, n, n_constant, n_seeds, seed_sd, note; with `floor` also floor.
    """
    found = _table(table, by, None, floor, metrics, n_resamples, seed)
    columns = ["model", "cell", "metric", "value", "low", "high", "n", "n_constant", "n_seeds", "seed_sd"]
    return found[[*columns, *(["floor"] if floor else []), "note"]]


def paper_table(
    scores: pd.DataFrame,
    by: str = "overall",
    baseline: str | None = "laion-clap",
    floor: str | None = None,
    ceilings: pd.DataFrame | None = None,
    metrics: Sequence[str] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
    family: str | None = None,
    correct: bool = True,
) -> pd.DataFrame:
    """One of the paper's tables, or another breakdown, from a long score table: one row per model, cell and metric.

    by: "overall" (Table I: cell "all"); "system" (Table II: each system, "synthesized" (the paper's "All"), "all", and
    "within systems", the mean of the single systems' values weighted by their numbers of pairs); "score_range" (Table
    III); or one of the further breakdowns of `make_cells`. metrics: srcc, lcc, ktau, mse; None means all four overall
    and srcc elsewhere. baseline: the model that the others are compared with; None: no
    differences. floor: a column with a blind predictor's
    value for each pair (`strongest_blind`; a column of that name and "_name" says which predictor), or a model of the
    table that never listens; it has no rows of its own and is in no comparison. ceilings: frame with cell, metric,
    ceiling (one row each). family: name of the family of Holm's correction, which is all differences from the baseline
    in this table; None: "Table I", "Table II", "Table III", or the name of the breakdown. correct: False leaves the
    correction and its marks out, and then n_resamples may be below 10,000.

    Columns: model, cell, metric, value (mean over training seeds), low, high (95 %, of that mean: captions resampled
    with all pairs and all seeds), n, n_constant (resamples in which the metric is undefined; the interval leaves them
    out), n_seeds (1 for a model without seeds), seed_sd (SD of the seeds' values; NaN for one); floor, ceiling (NaN
    where not known), floor_name; difference from the baseline (for mse below zero is better) with diff_low, diff_high
    (paired), p (uncorrected; NaN below 20 captions), p_holm; floor_diff_low, floor_diff_high, the paired interval of
    the difference from the floor; mark; family; baseline, n_resamples; note. The mark holds
    - "*": better than the baseline, p_holm < 0.05;
    - "‡": worse than the baseline, p_holm < 0.05;
    - "†": the paired interval of the difference from the floor lies on the better side of zero (uncorrected).
    Better is smaller for mse, else larger. A cell with fewer than 4 pairs, or where score or target is constant, stays,
    with NaN and a note that says why.

    ValueError: what `widen` and `make_cells` refuse, a floor that is neither column nor model, a baseline that is no
    model of the table or the only one, ceilings with a cell and metric twice, too few resamples for the correction.
    """
    _need_resamples(n_resamples, correct)
    table = _table(scores, by, baseline, floor, metrics, n_resamples, seed)
    if ceilings is None:
        table["ceiling"] = np.nan
    else:
        keys = ["cell", "metric"]
        need_columns(ceilings, "ceilings", (*keys, "ceiling"))
        if ceilings.duplicated(keys).any():
            raise ValueError(f"ceilings must have one row for each {listed(keys)}: {len(ceilings)} rows are too many")
        table = table.merge(ceilings[[*keys, "ceiling"]], "left", keys)
    named = scores[f"{floor}_name"].iloc[0] if f"{floor}_name" in scores else floor or ""
    table = table.assign(floor_name=named, baseline=baseline or "", n_resamples=n_resamples, p_holm=np.nan, family="")
    if correct:
        table = table.assign(p_holm=holm(table["p"]), family=family or FAMILIES.get(by, by))
    table["mark"] = _marks(table)
    columns = ["model", "cell", "metric", "value", "low", "high", "n", "n_constant", "n_seeds", "seed_sd", "floor"]
    columns += ["ceiling", "floor_name", "difference", "diff_low", "diff_high", "p", "p_holm", "floor_diff_low"]
    return table[[*columns, "floor_diff_high", "mark", "family", "baseline", "n_resamples", "note"]]


def _table(table, by, baseline, floor, metrics, n_resamples, seed) -> pd.DataFrame:
    """The numbers of every model in every cell: value, floor, difference from the baseline (None: none), notes."""
    metrics = _metrics(metrics, by)
    wide, blind = _with_floor(table, floor)
    if baseline is not None and baseline not in wide.models:
        raise ValueError(f"baseline {baseline!r} is not in the table. Available: {listed(wide.models)}")
    if baseline is not None and len(wide.models) == 1:
        raise ValueError(f"baseline {baseline!r} is the only model in the table: nothing to compare with it")
    base = None if baseline is None else wide.rows(baseline)
    nothing = Estimate(np.nan, np.full(n_resamples, np.nan))
    rows = []
    for cell in sample_cells(wide, by, metrics, n_resamples, seed):
        for metric in metrics:
            for name in wide.models:
                runs, compared = wide.rows(name), baseline is not None and name != baseline
                value = cell.estimate(metric, runs)
                difference = value - cell.estimate(metric, base) if compared else nothing
                over_floor = nothing if blind is None else value - cell.estimate(metric, blind)
                row = {"model": name, "cell": cell.name, "metric": metric, "value": value.value, **value.row()}
                row |= {"n": cell.n, "n_constant": value.n_undefined, "n_seeds": len(runs)}
                row["seed_sd"] = seed_sd(cell.values[metric][runs])
                row["floor"] = np.nan if blind is None else cell.estimate(metric, blind).value
                row |= {"difference": difference.value, **difference.row("diff_"), "p": difference.p(cell.n_captions)}
                row |= over_floor.row("floor_diff_")
                few = few_captions(cell.n_captions) if np.isfinite(difference.value) else ""
                row["note"] = cell.notes(metric, *([runs, base] if compared else [runs]), also=[few])
                rows.append(row)
    return pd.DataFrame(sorted(rows, key=lambda row: wide.models.index(row["model"])))


def _metrics(metrics: Sequence[str] | None, by: str) -> tuple[str, ...]:
    """The metrics asked for; None: all four overall, srcc elsewhere. ValueError for an unknown one."""
    metrics = metrics if metrics is not None else METRICS if by == "overall" else ("srcc",)
    return tuple(choice(metric, "metrics", METRICS) for metric in ([metrics] if isinstance(metrics, str) else metrics))


def _with_floor(table: pd.DataFrame, floor: str | None) -> tuple[Wide, np.ndarray | None]:
    """The wide table and which rows of its scores are the floor's: a column for each pair, or one of its models.

    A floor is no model any more: it leaves `models`. ValueError where `floor` is neither.
    """
    if floor is None:
        return widen(table), None
    if floor in table:
        wide = widen(table, (floor,))
        values = as_vector(wide.pairs[floor], f"floor column {floor}")
        return replace(wide, scores=np.vstack([wide.scores, values])), np.array([len(wide.scores)])
    wide = widen(table)
    if floor not in wide.models:
        raise ValueError(
            f"floor {floor!r} is neither a column nor a model of the table. Models: {listed(wide.models)}; columns: "
            f"{listed(table.columns)}"
        )
    return replace(wide, models=[name for name in wide.models if name != floor]), wide.rows(floor)


def _marks(table: pd.DataFrame) -> pd.Series:
    """ "*", "‡" and "†" of each row, as `paper_table` says."""
    sign = np.where(table["metric"] == "mse", -1, 1)  # better is smaller, or larger
    differs, better = table["p_holm"] < ALPHA, sign * table["difference"] > 0
    nearer_end = np.where(sign > 0, table["floor_diff_low"], -table["floor_diff_high"])
    marks = np.where(differs, np.where(better, BETTER, WORSE), "")
    return pd.Series(marks, index=table.index, dtype=object) + np.where(nearer_end > 0, ABOVE_FLOOR, "")


def _need_resamples(n_resamples: int, correct: bool) -> None:
    """ValueError where a correction for many comparisons is asked for with too few resamples."""
    if correct and n_resamples < CORRECTION_RESAMPLES:
        raise ValueError(
            f"n_resamples={n_resamples} is too few for Holm's correction: p can't fall below 2 / (B + 1), so take at "
            f"least {CORRECTION_RESAMPLES:,}, or ask for no correction"
        )


def ablation(
    table: pd.DataFrame,
    pairs: Sequence[tuple] = ABLATIONS,
    by: str = "overall",
    metrics: Sequence[str] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
    correct: bool = True,
) -> pd.DataFrame:
    """What wSCE adds: the difference of each (model, reference) of `pairs` in each cell, both uncertainties apart.

    Two trainings with one seed start alike and see the same batches, so differences are taken seed by seed; the seeds
    that both models have are used, and a note names those that only one has. Columns:
    - model, reference, cell, metric, value, reference_value (means over the paired seeds), difference;
    - low, high: the test-sampling interval, of the mean difference over these very seeds: captions are resampled,
      trainings are held fixed. p (two-sided), p_holm (over all rows here, the family "ablation") belong to it;
    - n_seeds, seed_sd, seed_min, seed_max: number of paired seeds, and SD and range of their differences on the pairs
      as they are; seed_t_low, seed_t_high: difference ± t · seed_sd / √n_seeds, Student's 95 % interval over seeds
      (needs two), with the test pairs held fixed;
    - family, n, n_constant, note. Fewer than 3 seeds are marked there.
    Neither interval holds the other's uncertainty. Other arguments, notes and errors as in `paper_table`; ValueError
    where a model is not in the table, is compared with itself, or two models share no training seed.
    """
    _need_resamples(n_resamples, correct)
    metrics, wide = _metrics(metrics, by), widen(table)
    paired = {tuple(pair): _paired_seeds(wide, tuple(pair)) for pair in pairs}
    kept = [place for place, (name, _) in enumerate(wide.runs) if any(name in pair for pair in paired)]
    wide = replace(wide, runs=[wide.runs[place] for place in kept], scores=wide.scores[kept])
    cells = sample_cells(wide, by, metrics, n_resamples, seed)
    rows = []
    for (name, reference), (seeds, left_out) in paired.items():
        runs, others = (np.array([wide.runs.index((which, each)) for each in seeds]) for which in (name, reference))
        few = f"{len(seeds)} paired training seed{'s' * (len(seeds) > 1)}, fewer than {ENOUGH_SEEDS}"
        also = [few if len(seeds) < ENOUGH_SEEDS else "", left_out]
        for cell in cells:
            for metric in metrics:
                value, of_reference = cell.estimate(metric, runs), cell.estimate(metric, others)
                difference = value - of_reference
                each = cell.values[metric][runs] - cell.values[metric][others]
                half = stats.t.ppf(1 - ALPHA / 2, len(each) - 1) * seed_sd(each) / np.sqrt(len(each))
                row = {"model": name, "reference": reference, "cell": cell.name, "metric": metric}
                row |= {"value": value.value, "reference_value": of_reference.value, "difference": difference.value}
                row |= {**difference.row(), "p": difference.p(cell.n_captions), "p_holm": np.nan}
                row |= {"n_seeds": len(each), "seed_sd": seed_sd(each), "seed_min": each.min(), "seed_max": each.max()}
                row |= {"seed_t_low": each.mean() - half, "seed_t_high": each.mean() + half, "family": ""}
                no_p = few_captions(cell.n_captions) if cell.computed else ""
                row |= {"n": cell.n, "n_constant": difference.n_undefined}
                rows.append(row | {"note": cell.notes(metric, runs, others, also=[no_p, *also])})
    found = pd.DataFrame(rows)
    return found.assign(p_holm=holm(found["p"]), family="ablation") if correct else found


def _paired_seeds(wide: Wide, pair: tuple) -> tuple[list, str]:
    """The training seeds that both models have, and a note on those that only one has."""
    model, reference = pair
    missing = [name for name in pair if name not in wide.models]
    if missing or model == reference:
        raise ValueError(f"ablation needs two models, not {listed(pair)}. Available: {listed(wide.models)}")
    seeds = {name: wide.seeds(name) for name in pair}
    both = [seed for seed in seeds[model] if seed in seeds[reference]]
    if not both:
        raise ValueError(
            f"{model!r} and {reference!r} share no {SEED}: {listed(seeds[model])} against {listed(seeds[reference])}. "
            "Train both with the same seeds"
        )
    alone = [f"{seed} of {name}" for name in seeds for seed in seeds[name] if seed not in both]
    return both, f"without training seeds that only one has: {listed(alone)}" if alone else ""


EMPTY, _BELOW = "–", "font-style: italic; color: #555"  # the look of the rows below the models
METRIC_NAMES = {"srcc": "SRCC", "lcc": "LCC", "ktau": "KTAU", "mse": "MSE"}
FLOOR_ROW, CEILING_ROW, N_ROW = "floor (never listens)", "ceiling", "n"
NEEDED = ("value", "low", "high", "n", "n_constant", "n_seeds", "seed_sd", "floor", "ceiling", "p", "mark", "family")
NEEDED += ("baseline", "n_resamples", "note")
_LATEX = str.maketrans(
    {char: rf"\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': r"\textquotedbl{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "≤": r"$\leq$", "±": r"$\pm$", "−": r"$-$"}
    | {"†": r"\dag{}", "‡": r"\ddag{}", "–": "--", "“": "``", "”": "''"}
)
_ESCAPED = {
    "latex": lambda text: str(text).translate(_LATEX),
    "markdown": lambda text: re.sub(r"([\\|*_<`])", r"\\\1", str(text)),
    "styler": lambda text: html.escape(str(text)),
}


def render_table(frame: pd.DataFrame, format: str, label: str, names: Mapping[str, str] | None = None):
    """A frame of `paper_table` in the paper's wide form: one row per model, one column per cell (a metric, where there
    is one cell; both, where there are several of each), floor, ceiling and n below.

    frame: of `paper_table` (or read back from its CSV), with or without the column `paper` of `paper.beside`. format:
    "styler" gives a pandas Styler for a notebook; "markdown" and "latex" (a `table*` for booktabs) give text. label:
    the data behind the numbers ("RELATE ratings", "synthetic"); it is in the notes, with resamples, Holm's family, what
    the marks mean and what is missing. The title is the family's name. names: what models and cells are called in
    print. ValueError for another format, a missing column, no rows, or rows that are there twice.
    """
    choice(format, "format", ("styler", "markdown", "latex"))
    names, keys = names or {}, ["model", "cell", "metric"]
    need_columns(frame, "the table", (*keys, *NEEDED))
    if not len(frame) or frame.duplicated(keys).any():
        raise ValueError(f"a table needs rows, one for each {listed(keys)}; {frame.duplicated(keys).sum()} are twice")
    # empty text is read back from a CSV as NaN
    frame = frame.assign(**{c: frame[c].astype(object).where(frame[c].notna(), "") for c in ("mark", "family", "note")})
    body, notes = _wide(frame, names, format), _notes(frame, label, names)
    title = next(filter(None, frame["family"]), "")
    if format == "markdown":
        head, escaped = f"**{title}**\n\n" if title else "", [re.sub(r"([\\*_<`])", r"\\\1", note) for note in notes]
        return f"{head}{body.to_markdown(disable_numparse=True)}\n\n" + "".join(f"{note}  \n" for note in escaped)
    if format == "latex":
        caption = " ".join(filter(None, [title and f"{title}.", *notes])).translate(_LATEX)
        where = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "humanclap"
        return body.style.to_latex(
            hrules=True, environment="table*", position="t", position_float="centering", caption=caption,
            label=f"tab:{where}", column_format="l" + "c" * len(body.columns),
        )  # fmt: skip
    n_models = frame["model"].nunique()
    looks = [[look] * len(body.columns) for look in [""] * n_models + [_BELOW] * (len(body) - n_models)]
    shown = (f"<b>{html.escape(title)}</b><br>" if title else "") + "<br>".join(map(html.escape, notes))
    caption = [{"selector": "caption", "props": "caption-side: bottom; text-align: left; font-size: 85%"}]
    styler = body.style.apply(lambda _: pd.DataFrame(looks, body.index, body.columns), axis=None)
    return styler.set_caption(shown).set_table_styles(caption)


def write_table(
    frame: pd.DataFrame, path_stem: str | Path, label: str, names: Mapping[str, str] | None = None
) -> list[Path]:
    """Write `<path_stem>.csv` (the tidy frame, with the column data = label), `.md` and `.tex`; return the paths.

    Each file is written whole or not at all. Raises as `render_table`, and OSError.
    """
    stem = Path(path_stem)
    texts = [render_table(frame, kind, label, names) for kind in ("markdown", "latex")]
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(stem.name + ending) for ending in (".csv", ".md", ".tex")]
    files.write_table(frame.assign(data=label), paths[0], float_format="%.6g")
    for path, text in zip(paths[1:], texts, strict=True):
        write_text(path, text)
    return paths


def _number(value: float) -> str:
    return EMPTY if pd.isna(value) else f"{value:.3f}".replace("-", "−")


def _entry(row: dict, format: str) -> str:
    """value ± SD mark [low, high] (paper …), without what is not there."""
    escaped = _ESCAPED[format]
    paper = f"(paper {_number(row['paper'])})" if pd.notna(row.get("paper")) else ""
    if pd.isna(row["value"]):
        return escaped(f"{EMPTY} {paper}".strip())
    spread = "" if pd.isna(row["seed_sd"]) else f" ± {_number(row['seed_sd'])}"
    interval = "" if pd.isna(row["low"]) else f"[{_number(row['low'])}, {_number(row['high'])}]"
    value, below = f"{_number(row['value'])}{spread}", f"{interval} {paper}".strip()
    if format != "latex":
        return escaped(f"{value}{row['mark']} {below}".strip())
    mark = rf"\textsuperscript{{{escaped(row['mark'])}}}" if row["mark"] else ""
    return rf"\shortstack{{{escaped(value)}{mark} \\ {{\scriptsize {escaped(below)}}}}}"


def _wide(frame: pd.DataFrame, names: Mapping[str, str], format: str) -> pd.DataFrame:
    """The table as text, ready for its format: models, then floor and ceiling where any is known, and n."""
    escaped, spot = _ESCAPED[format], ["cell", "metric"]
    frame = frame.assign(entry=[_entry(row, format) for row in frame.to_dict("records")])
    first = frame.drop_duplicates(spot).set_index(spot)
    body = frame.pivot(index="model", columns=spot, values="entry").fillna(EMPTY)
    body = body.loc[frame["model"].unique(), first.index]
    body.index = [escaped(names.get(model, model)) for model in body.index]
    for column, head in (("floor", FLOOR_ROW), ("ceiling", CEILING_ROW)):
        if frame[column].notna().any():
            body.loc[head] = [escaped(_number(value)) for value in first[column]]
    body.loc[N_ROW] = [f"{n:,}" for n in first["n"]]
    one_cell, one_metric = frame["cell"].nunique() == 1, frame["metric"].nunique() == 1
    heads = []
    for cell, metric in first.index:
        cell, metric = names.get(cell, cell.replace("<=", "≤")), METRIC_NAMES.get(metric, metric)
        heads.append(escaped(metric if one_cell else cell if one_metric else f"{cell}: {metric}"))
    return body.set_axis(heads, axis=1)


def _notes(frame: pd.DataFrame, label: str, names: Mapping[str, str]) -> list[str]:
    """Whatever a reader must know to use the numbers: data, intervals, seeds, marks, what is missing."""

    def named(items) -> str:
        return listed(names.get(item, item) for item in dict.fromkeys(items))

    first, family = frame.iloc[0], next(filter(None, frame["family"]), "")
    drawn = f"{first['n_resamples']:,} resamples of captions, each with all its pairs"
    notes = [f"Data: {label}.", f"In brackets 95 % percentile bootstrap intervals over {drawn}."]
    seeds = sorted(set(frame.loc[frame["n_seeds"] > 1, "n_seeds"]))
    if seeds:
        many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        notes.append(f"Values with ± are means over {many} training seeds, with the SD over the seeds.")
    baseline = named([first["baseline"]]) if isinstance(first["baseline"], str) else ""  # "" of a table without one
    if family:
        notes.append(
            f"{BETTER} better, {WORSE} worse than {baseline}: p < {ALPHA} by paired bootstrap, two-sided, after Holm's "
            f"correction over the {frame['p'].notna().sum()} differences of this table (family: {family})."
        )
    elif baseline:
        notes.append(f"Differences from {baseline} are not marked: no correction for many comparisons was made.")
    if frame["floor"].notna().any():
        floor = f" ({first['floor_name']})" if first.get("floor_name") else ""
        notes.append(
            f"{ABOVE_FLOOR} better than the floor{floor}, a predictor that never listens: the paired 95 % interval of the "
            "difference excludes zero (uncorrected)."
        )
    if frame["ceiling"].notna().any():
        notes.append("Ceiling: what a perfect score could reach on these noisy ratings.")
    if "paper" in frame and frame["paper"].notna().any():
        notes.append("“paper”: the number printed there, on its own pairs.")
    undefined = frame[(frame["n_constant"] > 0) & frame["value"].notna()]
    if len(undefined):
        most = f"at most {undefined['n_constant'].max():,} ({named(undefined['cell'])})"
        notes.append(f"Resamples in which a score was constant are left out: {most}.")
    lines = []  # the frame's own notes, each once, with the cells it is about (and the models, where not all)
    for (cell, note), rows in frame[frame["note"] != ""].groupby(["cell", "note"], sort=False):
        some = rows["model"].nunique() < frame["model"].nunique()
        lines.append(named([cell]) + (f" ({named(rows['model'])})" if some else "") + f": {note}")
    return notes + ([f"{EMPTY}: not computed. Notes: {'; '.join(lines)}."] if lines else [])
