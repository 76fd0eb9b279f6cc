"""Human-CLAP: does this sound match this text, as people hear it?

The public names load on first use (PEP 562), so that `import humanclap` costs next to nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.2.0"

_MODULES = (
    "relate",
    "rated_sets",
    "losses",
    "demo",
    "evaluate",
    "paper",
    "plots",
    "report",
    "finetune",
    "study",
    "audio",
    "download",
    "judge",
    "layouts",
)
_NAMES = {"load_clap": "clap", "clap_score": "losses", "score_pairs": "score", "HumanCLAPScore": "metric"}

__all__ = [*_MODULES, *_NAMES]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    if name in _MODULES:
        if name == "plots":
            from .checks import need_extra

            need_extra("seaborn", "study", "humanclap.plots")
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"humanclap has no {name!r}. Available: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
