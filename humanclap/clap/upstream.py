"""laion_clap and msclap as they are, imported on use, without what they change around them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from ..checks import need_extra


def package_folder(package: str, extra: str, what: str) -> Path:
    """The folder of "laion_clap" or "msclap", which is not imported. Raises ExtraMissing where it is not installed."""
    need_extra(package, extra, what)
    return Path(next(iter(importlib.util.find_spec(package).submodule_search_locations)))


def laion_models() -> ModuleType:
    """laion_clap's `clap_module`, its models, without the package around it; ExtraMissing where it is not installed.

    `import laion_clap` itself asks the hub for three tokenizers, two of which no model of its uses.
    """
    folder = package_folder("laion_clap", "laion", "LAION's own checkpoint")
    with surroundings_kept():
        sys.path.insert(0, str(folder))
        return importlib.import_module("clap_module")


def msclap_models() -> ModuleType:
    """`msclap.models.clap`; ExtraMissing where it is not installed."""
    need_extra("msclap", "msclap", "MS CLAP")
    with surroundings_kept():
        return importlib.import_module("msclap.models.clap")


@contextlib.contextmanager
def surroundings_kept() -> Iterator[None]:
    """Restore sys.path, the warnings filters, the generators, grad mode and logging afterwards.

    msclap silences all warnings and transformers' log when it is imported, laion_clap puts its folder on sys.path, and
    building either model draws weights.
    """
    from transformers.utils import logging as transformers_log

    path, root = list(sys.path), logging.getLogger()
    level, handlers, verbosity = root.level, list(root.handlers), transformers_log.get_verbosity()
    python_state, numpy_state, grad = random.getstate(), np.random.get_state(), torch.is_grad_enabled()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.filterwarnings("ignore", message="torch.meshgrid")  # in laion_clap's code, not in its use
            yield
    finally:
        sys.path[:] = path
        root.setLevel(level)
        root.handlers[:] = handlers
        transformers_log.set_verbosity(verbosity)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_grad_enabled(grad)


@contextlib.contextmanager
def untrained(module: ModuleType, name: str, text_model: torch.nn.Module) -> Iterator[None]:
    """Within it, `module.name.from_pretrained(...)` is `text_model`, whose weights come from the checkpoint.

    Both packages would fetch half a gigabyte of a published text model and then overwrite all of it.
    """

    class Given:
        @staticmethod
        def from_pretrained(*_args) -> torch.nn.Module:
            return text_model

    original = getattr(module, name)
    setattr(module, name, Given)
    try:
        yield
    finally:
        setattr(module, name, original)
