"""Every figure at its print size: nothing overlaps or is clipped, letters are large enough, colours can be told apart."""

import itertools
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import plot_tables as tables
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from humanclap import plots
from humanclap.evaluate.agreement import ALL_LEFT, COMMON
from humanclap.plots import ratings, style

CLIPS = {f"clip {i}, {'a long name ' * i}": np.random.default_rng(i).normal(0, 0.1, 8000) for i in range(5)}
MANY_SYSTEMS = (*tables.SYSTEMS, "my-own-system-with-a-long-name", "another", "third")
ANCHORS = np.random.default_rng(0).exponential(1.5, 300).clip(0, 10)
CONTROLS = [f"AUC, own against caption {i} of another clip" for i in range(9)]


def forest(models, **columns):
    return plots.overall_forest(tables.cell_table(models, ("all",)).assign(**columns))


# Without a comma: what the notebooks draw. With one: many models, long names, nothing known.
FIGURES = {
    "ablation": lambda: plots.ablation(tables.ablation_table()),
    "ablation, systems": lambda: plots.ablation(tables.ablation_table(tables.CELLS)),
    "agreement_by_system": lambda: plots.agreement_by_system(tables.ceiling_table()),
    "anchor_means": lambda: plots.anchor_means(pd.Series(ANCHORS), 2.0),
    "calibration": lambda: plots.calibration(tables.reliability_table()),
    "calibration, one curve": lambda: plots.calibration(tables.reliability_table(("mae",), ("none",))),
    "calibration_mse": lambda: plots.calibration_mse(tables.mse_table()),
    "dumbbells": lambda: plots.dumbbells(tables.cell_table(), "laion-clap", "wsce+mae"),
    "dumbbells, a long name": lambda: plots.dumbbells(
        tables.cell_table(("mine", tables.LONG), tables.RANGES), "mine", tables.LONG
    ),
    "floor_and_ceiling": lambda: plots.floor_and_ceiling(tables.mark_table()),
    "further_breakdowns": lambda: plots.further_breakdowns(tables.further_table()),
    "further_breakdowns, twelve models": lambda: plots.further_breakdowns(tables.further_table(tables.TWELVE)),
    "homogeneous": lambda: plots.homogeneous(tables.homogeneous_table()),
    "homogeneous, seven models": lambda: plots.homogeneous(tables.homogeneous_table(tables.SEVEN)),
    "learning_curves": lambda: plots.learning_curves(tables.history_table()),
    "listening": lambda: plots.listening(tables.control_table()),
    "listening, all controls": lambda: plots.listening(tables.control_table(tables.TWELVE, CONTROLS)),
    "overall_forest": lambda: forest(tables.SEVEN, paper=0.4, mark="*†"),
    "overall_forest, twelve models": lambda: forest(tables.TWELVE, paper=0.4),
    "overall_forest, nothing known": lambda: forest(tables.SEVEN, value=np.nan, note="fewer than 4 pairs"),
    "overview": plots.overview,
    "own_systems": lambda: plots.own_systems(tables.own_table(), tables.reference_table()),
    "preferences": lambda: plots.preferences(tables.preference_table()),
    "scale_use": lambda: plots.scale_use(tables.rating_table()),
    "score_scatter": lambda: plots.score_scatter(tables.score_table(), ["laion-clap", "wsce+mae"]),
    "score_scatter, few pairs": lambda: plots.score_scatter(tables.score_table(n=60), ["wsce+mae"]),
    "score_scatter, twelve models": lambda: plots.score_scatter(
        tables.score_table(tables.TWELVE, n=210, seeds=3), list(tables.TWELVE)
    ),
    "screening_curve": lambda: plots.screening_curve(tables.screening_table(), 2.0),
    "screening_rules": lambda: plots.screening_rules(tables.rule_table()),
    "screening_rules, two measures": lambda: plots.screening_rules(
        pd.concat([tables.rule_table().assign(measure=name) for name in (ALL_LEFT, COMMON)])
    ),
    "spectrograms": lambda: plots.spectrograms(CLIPS, 8000, window="first", window_seconds=0.5),
    "system_means": lambda: plots.system_means(tables.system_table(("mae", "mse"), MANY_SYSTEMS)),
}  # fmt: skip
NO_FIGURES = {"COLOURS", "DOUBLE", "LABELLED", "MODEL_NAMES", "SINGLE", "SYSTEM_NAMES", "write_figure"}
MINE = {"font.size": 23.0, "axes.grid": False, "pdf.fonttype": 3, "lines.linewidth": 7.0, "axes.edgecolor": "red"}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * ("," in name)) for name in FIGURES]
)
def drawn(request):
    """A figure, its texts with their boxes in pixels, and matplotlib's settings before and after it was made."""
    with mpl.rc_context(MINE):
        before = settings()
        figure = FIGURES[request.param]()
        after = settings()
    return figure, shown_texts(figure), before, after


def settings():
    return {name: value for name, value in mpl.rcParams.items() if name != "backend"}


def shown_texts(figure):
    """Every text that is drawn, with its box in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    hidden = set()
    for axis in figure.findobj(mpl.axes.Axes):
        for ticks in (axis.xaxis, axis.yaxis):
            low, high = sorted(ticks.get_view_interval())
            slack = 1e-6 * (high - low)
            for tick in ticks.get_major_ticks() + ticks.get_minor_ticks():
                if not axis.axison or not low - slack <= tick.get_loc() <= high + slack:
                    hidden |= {id(tick.label1), id(tick.label2)}
    texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and id(t) not in hidden]
    return [(text, Text.get_window_extent(text, renderer)) for text in texts]


def test_every_exported_figure_is_drawn_here():
    assert {name.split(",")[0] for name in FIGURES} == set(plots.__all__) - NO_FIGURES


def test_a_figure_is_readable_and_leaves_the_callers_matplotlib_alone(drawn):
    figure, boxes, before, after = drawn
    assert boxes
    for text, box in boxes:
        inside = min(box.x0, box.y0) >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert inside, f"{text.get_text()!r} reaches out of the figure"
    for (a, box_a), (b, box_b) in itertools.combinations(boxes, 2):
        width = min(box_a.x1, box_b.x1) - max(box_a.x0, box_b.x0)
        height = min(box_a.y1, box_b.y1) - max(box_a.y0, box_b.y0)
        assert width < 1 or height < 1, f"{a.get_text()!r} overlaps {b.get_text()!r}"
    assert figure.get_figwidth() <= style.DOUBLE + 1e-9
    assert figure.get_figheight() <= 9.2, "higher than a page"
    assert min(text.get_fontsize() for text, _ in boxes) >= style.SMALL
    assert before == after and MINE.items() <= after.items()
    assert not mpl.pyplot.get_fignums(), "a notebook would show it twice"


# --- what is written ---


def test_png_and_pdf_are_as_wide_as_a_page_and_written_with_the_same_bytes_again(tmp_path):
    for folder in ("a", "b"):
        paths = plots.write_figure(forest(tables.SEVEN), tmp_path / folder / "new" / "f.png", "synthetic")
        assert [path.name for path in paths] == ["f.png", "f.pdf"]
    for name in ("f.png", "f.pdf"):
        first, second = ((tmp_path / folder / "new" / name).read_bytes() for folder in ("a", "b"))
        assert first == second
    assert mpl.image.imread(paths[0]).shape[1] == pytest.approx(style.DOUBLE * style.PNG_DPI, abs=1)
    box = second.split(b"/MediaBox [")[1].split(b"]")[0].split()
    assert float(box[2]) - float(box[0]) == pytest.approx(style.DOUBLE * 72, abs=0.5)


def test_the_pdf_has_no_date_and_truetype_letters(tmp_path):
    with mpl.rc_context({"pdf.fonttype": 3}):
        _, pdf = plots.write_figure(forest(("mae",)), tmp_path / "f.png")
    assert b"CreationDate" not in pdf.read_bytes()
    assert b"/FontFile2" in pdf.read_bytes() and b"/Type3" not in pdf.read_bytes()


def test_the_label_of_the_data_is_above_the_figure_and_not_clipped(tmp_path):
    named, bare = (
        mpl.image.imread(plots.write_figure(forest(("mae",)), tmp_path / f"{label}.png", label)[0])
        for label in ("synthetic", "")
    )
    strip = len(named) - len(bare)
    assert strip == pytest.approx(style.LABEL_STRIP * style.PNG_DPI, abs=1)
    assert named[0].min() == 1.0 and named[:, -1].min() == 1.0  # white edges: no letter is cut
    assert named[:strip, :, :3].min() < 0.9  # and it is there


@pytest.mark.parametrize("missing", ["matplotlib", "seaborn"])
def test_without_its_packages_the_import_names_the_extra(missing):
    script = f"import sys; sys.modules[{missing!r}] = None; import humanclap; humanclap.plots"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 1 and "pip install '.[study]'" in found.stderr.splitlines()[-1]


# --- colours ---

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB
SIGHT = {
    "all cones": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
APART = 15  # CIE 1976 ΔE; 2.3 is just noticeable side by side


def lab(colour, sight):
    """CIE L*a*b* (D65) of a hex colour as somebody with `sight` sees it."""
    srgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(SIGHT[sight]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / [0.9505, 1, 1.089]).clip(16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_every_kind_of_sight_and_density_gets_darker(sight):
    for a, b in itertools.combinations(style.COLOURS, 2):
        distance = np.linalg.norm(lab(style.COLOURS[a], sight) - lab(style.COLOURS[b], sight))
        assert distance > APART, f"{a} and {b} are {distance:.0f} apart"
    few, more, most = (lab(colour, sight)[0] for colour in ratings.DENSITY)
    assert few - 20 > more > most + 20
    assert max(lab(colour, sight)[0] for colour in (*style.COLOURS.values(), *ratings.DENSITY)) < 92  # of white's 100


def test_models_of_one_figure_never_look_the_same_and_known_ones_always_do():
    for models in (tables.TWELVE, [*style.MODEL_NAMES, *(f"mine {i}" for i in range(20))]):
        looks = style.model_looks(models)
        ours = [m for m in looks if "standin" not in m]  # a stand-in has the look of what it replaces
        assert len({(looks[m].colour, looks[m].marker) for m in ours}) == len(ours)
        assert len({look.name for look in looks.values()}) == len(looks)
        assert looks["mae"] == style.model_looks(["mae"])["mae"]
    assert style.model_looks(["x"])["x"].name == "x"
