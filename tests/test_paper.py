"""The paper's numbers, and our cells beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from humanclap import paper


def test_the_papers_values_are_those_of_its_tables():
    one = paper.values("I").set_index(["model", "metric"])["value"]
    assert one["wsce+mae", "srcc"] == 0.457 and one["laion", "mse"] == 0.068 and len(one) == 28
    two = paper.values("II").set_index(["model", "cell"])["value"]
    assert two["laion", "tango2"] == 0.144 and two["mae", "tango"] == 0.448 and len(two) == 36
    three = paper.values("III").set_index(["model", "cell"])["value"]
    assert three["laion", "<=5 natural"] == 0.072 and three["wsce+mae", ">5 synthesized"] == 0.408
    with pytest.raises(ValueError, match="Available: I, II, III"):
        paper.values("IV")


def test_the_papers_value_stands_beside_the_same_cell_only():
    ours = pd.DataFrame({"model": ["laion-standin", "sce"], "cell": "all", "metric": "srcc", "value": [0.3, 0.2]})
    beside = paper.beside(ours, "I")
    assert beside["paper"][0] == 0.280 and np.isnan(beside["paper"][1])
    assert beside["value"].tolist() == [0.3, 0.2] and list(beside.columns) == [*ours.columns, "paper"]


def test_gains_are_differences_of_the_papers_cells():
    assert paper.gain("I", "all") == pytest.approx(0.457 - 0.280)
    assert paper.gain("II", "synthesized") == pytest.approx(0.583 - 0.338)
    assert paper.gain("I", "all", "wsce+mae", "mae") == pytest.approx(0.004)
