"""`python -m humanclap.finetune`: one fine-tuning from a CSV of rated pairs; what `accelerate launch` starts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from humanclap.finetune.config import FinetuneConfig

_ABOUT = """\
Fine-tune a CLAP on rated pairs, with the paper's settings unless others are given.

PAIRS.csv has the columns audio (below --audio-root), text and target (0-1), as `humanclap screen` writes them; with
a column split, its rows "train" are taken. Without --validation they are split as n_train, split_by and split_seed
say. --out gets history.csv, times.csv, manifest.json, model/ (the best epoch) and, until the run is finished,
checkpoints; the same command with --resume goes on after a stop."""

_EXAMPLES = """\
examples:
  humanclap screen REL.csv --out pairs.csv
  python -m humanclap.finetune pairs.csv --audio-root RELATE_wave --out runs/wsce+mae
  python -m humanclap.finetune pairs.csv --audio-root RELATE_wave --out runs/wsce+mae --resume
  accelerate launch --num_processes 4 -m humanclap.finetune pairs.csv --audio-root RELATE_wave --out runs/wsce+mae
      Four GPUs; the batch of 8 is that of all of them. On several machines --out is a folder that all share."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (sys.argv's, if None) and return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return run(arguments)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        print(f"humanclap.finetune: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("humanclap.finetune: stopped; --resume goes on after the last whole epoch", file=sys.stderr)
        return 130


def run(arguments: argparse.Namespace) -> int:
    from humanclap.finetune import finetune, split_pairs

    config = _config(arguments)
    pairs = _read(arguments.pairs)
    if arguments.validation is None:
        train, validation = split_pairs(pairs, config)
    else:
        train, validation = pairs, _read(arguments.validation)
        if "split" in train:
            train = train[train["split"] == "train"].reset_index(drop=True)
    result = finetune(
        config,
        train,
        validation,
        audio_root=arguments.audio_root,
        output_dir=arguments.out,
        device=arguments.device,
        progress=not arguments.quiet,
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        cache_dir=arguments.cache,
        tensorboard=arguments.tensorboard,
    )
    from humanclap.finetune.accelerated import launched, rank

    if rank() == 0:
        best = result.history.set_index("epoch").loc[result.best_epoch]
        print(
            f"epoch {result.best_epoch} of {config.epochs} is the best: validation loss {best['validation_loss']:.4f}, "
            f"SRCC {best['validation_srcc']:.4f} ({result.n_train} pairs train, {result.n_validation} validate)"
        )
        print(result.checkpoint)
    if launched():
        import torch

        torch.distributed.destroy_process_group()
    return 0


def _config(arguments: argparse.Namespace) -> FinetuneConfig:
    """The settings of --config, with those given as options in their place."""
    settings = {}
    if arguments.config is not None:
        import yaml

        settings = yaml.safe_load(Path(arguments.config).read_text("utf-8")) or {}
        known = {field.name for field in fields(FinetuneConfig)}
        unknown = sorted(set(settings) - known) if isinstance(settings, dict) else ["no mapping of names to values"]
        if unknown:
            raise ValueError(f"{arguments.config}: {', '.join(map(str, unknown))}; allowed: {', '.join(sorted(known))}")
    given = {field.name: getattr(arguments, field.name) for field in fields(FinetuneConfig)}
    return FinetuneConfig(**settings | {name: value for name, value in given.items() if value is not None})


def _read(path: str):
    from humanclap.tables import read_scores

    return read_scores(path)


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}: true or false")
    return text.lower() == "true"


def _count_or_share(text: str) -> int | float:
    return int(text) if text.isdecimal() else float(text)


_TYPES = {"str": str, "int": int, "float": float, "bool": _yes_or_no, "int | float": _count_or_share}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m humanclap.finetune",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("pairs", metavar="PAIRS.csv", help="rated pairs that train (and, split, validate)")
    add("--validation", metavar="CSV", help="rated pairs that validate")
    add("--audio-root", required=True, metavar="DIR", help="the folder that the column audio is relative to")
    add("--out", required=True, metavar="DIR", help="the folder of this run")
    add("--config", metavar="YAML", help="settings by name; the options below come before them")
    add("--resume", action="store_true", help="go on with the run in --out, or begin it")
    add("--overwrite", action="store_true", help="replace the run in --out")
    add("--cache", metavar="DIR", help="keep features there")
    add("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N (default: auto)")
    add("--tensorboard", action="store_true", help="write the history for TensorBoard, too")
    add("--quiet", action="store_true", help="no progress bars")
    settings = parser.add_argument_group("settings", "see `help(humanclap.finetune.FinetuneConfig)`")
    for field in fields(FinetuneConfig):
        name = f"--{field.name.replace('_', '-')}"
        settings.add_argument(
            name, dest=field.name, type=_TYPES[field.type], metavar="V", help=f"default: {field.default}"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
