"""The demo's stand-in CLAPs: two tiny `transformers.ClapModel`s, pretrained on the synthetic corpus's sounds.

They learn as LAION's and Microsoft's models did, by contrast, from captions that leave things out. So they
name events and hardly mind what is missing, added, noisy or in the wrong order: that is left to the ratings.
"""

from __future__ import annotations

from .architectures import ARCHITECTURES, Architecture
from .settings import Pretraining
from .standins import CURVE_FILE, SETTINGS_FILE, final_improvement, fused_twin, make_standins, naming_accuracy

__all__ = [
    "ARCHITECTURES",
    "CURVE_FILE",
    "SETTINGS_FILE",
    "Architecture",
    "Pretraining",
    "final_improvement",
    "fused_twin",
    "make_standins",
    "naming_accuracy",
]
