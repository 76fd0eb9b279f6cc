"""The overview of Human-CLAP in the manner of the paper's Fig. 2, drawn by code."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .style import COLOURS, DOUBLE, SMALL, house_style, new_figure


@house_style
def overview(contrastive_weight: float = 0.1, regression_weight: float = 1.0) -> Figure:
    """How ratings train a CLAP: pairs through two encoders, cosines into two losses weighed by the ratings.

    Args:
        contrastive_weight, regression_weight: λ1 and λ2 of equation 6, written into the drawing.
    """
    figure, axis = new_figure(DOUBLE, 3.1)
    axis.set(xlim=(0, 16.4), ylim=(0, 7.2))
    axis.axis("off")

    def box(x, y, width, height, text, colour):
        axis.add_patch(
            FancyBboxPatch(
                (x, y),
                width,
                height,
                boxstyle="round,pad=0.08",
                facecolor=COLOURS[colour],
                alpha=0.16,
                edgecolor="none",
            )
        )
        axis.add_patch(
            FancyBboxPatch(
                (x, y),
                width,
                height,
                boxstyle="round,pad=0.08",
                facecolor="none",
                edgecolor=COLOURS[colour],
                linewidth=1.2,
            )
        )
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=SMALL)

    def arrow(start, end, colour="0.35"):
        axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=colour, linewidth=1))

    box(0.2, 5.0, 2.4, 1.4, "caption\n“a dog barks\nthen a bell rings”", "blue")
    box(0.2, 2.7, 2.4, 1.2, "clip\n(natural or generated)", "orange")
    box(0.2, 0.4, 2.4, 1.2, "mean human rating\n0–10, a = rating / 10", "green")
    box(3.7, 5.1, 2.2, 1.2, "text encoder\n+ projection", "blue")
    box(3.7, 2.7, 2.2, 1.2, "audio encoder\n+ projection", "orange")
    box(7.0, 3.7, 2.4, 1.5, "cosine of every\ntext with every clip\nin the batch", "grey")
    box(10.45, 5.0, 3.0, 1.5, "wSCE (eq. 5)\nall cosines, pair i\nweighed by its $a_i$", "purple")
    box(10.45, 2.0, 3.0, 1.5, "MSE or MAE (eq. 2–4)\nReLU of the pair's cosine\nagainst $a_i$", "vermilion")
    box(
        14.2,
        3.5,
        2.0,
        1.5,
        f"$L$ = {contrastive_weight:g} $L_{{wSCE}}$\n+ {regression_weight:g} $L_{{reg}}$\n(eq. 6)",
        "grey",
    )
    arrow((2.75, 5.7), (3.55, 5.7))
    arrow((2.75, 3.3), (3.55, 3.3))
    arrow((6.05, 5.6), (6.95, 4.9))
    arrow((6.05, 3.4), (6.95, 4.0))
    arrow((9.55, 4.8), (10.35, 5.6))
    arrow((9.55, 4.1), (10.35, 3.0))
    arrow((13.6, 5.5), (14.15, 4.75))
    arrow((13.6, 2.9), (14.15, 3.75))
    green = COLOURS["green"]
    axis.plot([2.75, 11.9], [1.0, 1.0], color=green, linewidth=1)
    arrow((11.9, 1.0), (11.9, 1.85), green)
    axis.plot([11.9, 13.85, 13.85], [1.0, 1.0, 4.4], color=green, linewidth=1)
    axis.plot([13.85, 11.9], [4.4, 4.4], color=green, linewidth=1)
    arrow((11.9, 4.4), (11.9, 4.9), green)
    axis.set_title("Human-CLAP: fine-tuning a CLAP on human ratings")
    return figure
