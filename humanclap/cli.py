"""The command line: score, merge, screen, convert and fetch, a thin shell around the package."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import cli_help

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20  # files named in a summary
_N_RESAMPLES = 2000


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (sys.argv's, if None) and return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, TypeError, OSError) as error:
        # A traceback would hide the one line that says what to mend.
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"humanclap {arguments.command}: error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"humanclap {arguments.command}: stopped", file=sys.stderr)
        return 130


# --- the commands ---------------------------------------------------------------------------------------


def _score(arguments: argparse.Namespace) -> int:
    from .shards import Shard, read_pairs, write_csv

    shard = None if arguments.shard is None else Shard.parse(arguments.shard)
    _require_folder_of(arguments.out)
    pairs = read_pairs(arguments.pairs)
    n_rows = len(pairs)
    if shard is not None:
        rows = shard.rows(n_rows)
        if not len(rows):
            raise ValueError(f"shard {shard} of {n_rows} rows is empty: use {n_rows} shards or fewer")
        pairs = pairs.iloc[rows.start : rows.stop].reset_index(drop=True)
    paths = _below(arguments.audio_root, pairs["audio"])

    from .clap.lazy import LazyClap  # torch from here on
    from .score import COLUMNS, score_pairs

    cache = None if arguments.no_cache else arguments.cache or _default_cache()
    clap = LazyClap(
        arguments.clap,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        window=arguments.window,
        precision=arguments.precision,
        seed=arguments.seed,
        memory=cache,
    )
    settings = {"batch_size": arguments.batch_size, "cache_dir": cache, "progress": not arguments.quiet}
    scores = score_pairs(clap, paths, pairs["text"].tolist(), **settings)
    table = pairs.assign(**{column: scores[column] for column in COLUMNS[2:]})
    if shard is not None:
        table = table.assign(**shard.bookkeeping(n_rows, arguments.pairs))
    write_csv(table, arguments.out)
    return _report(table, arguments.out)


def _merge(arguments: argparse.Namespace) -> int:
    from .shards import merge, read_pairs, write_csv

    _require_folder_of(arguments.out)
    table = merge([read_pairs(path, scored=True) for path in arguments.shards], arguments.shards)
    write_csv(table, arguments.out)
    return _report(table, arguments.out)


def _screen(arguments: argparse.Namespace) -> int:
    from .relate import aggregate_pairs, load_ratings, screen_listeners
    from .shards import write_csv

    _require_folder_of(arguments.out)
    screening = screen_listeners(load_ratings(arguments.ratings), arguments.max_anchor_mean)
    pairs = aggregate_pairs(screening.ratings)
    if arguments.split is not None:
        pairs = pairs[pairs["split"] == arguments.split]
    write_csv(pairs, arguments.out)
    print(screening)
    print(f"{len(pairs):,} pairs, {int(pairs['n_ratings'].sum()):,} ratings -> {arguments.out}")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from .clap.convert import to_clapmodel, to_laion

    if arguments.to == "clapmodel":
        if arguments.base is not None:
            raise ValueError("--base goes with --to laion: a ClapModel takes nothing from it")
        written = to_clapmodel(arguments.source, arguments.target, arguments.tokenizer)
        print(f"{written}: a transformers.ClapModel with preprocessor and tokenizer")
    else:
        if arguments.tokenizer is not None:
            raise ValueError("--tokenizer goes with --to clapmodel: a LAION checkpoint holds none")
        if arguments.base is None:
            raise ValueError("--to laion needs --base, a LAION .pt of the same architecture, for its heads")
        written = to_laion(arguments.source, arguments.target, arguments.base)
        print(f"{written}: a checkpoint that laion_clap.CLAP_Module.load_ckpt reads")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from . import download

    if arguments.list:
        print(download.listing(arguments.to))
        return 0
    if arguments.name == "xacle":
        from .rated_sets import XACLE_REQUEST

        print(XACLE_REQUEST, file=sys.stderr)
        return 1
    if arguments.name is None:
        raise ValueError(f"what is to be fetched? {', '.join(download.SOURCES)} or all; --list says what each is")
    try:
        brought = download.fetch(
            arguments.name, arguments.to, progress=not arguments.quiet, keep_archive=arguments.keep_archive
        )
    except download.DownloadError as error:
        lines = str(error).splitlines()
        print("\n".join(f"humanclap fetch: error: {line}" for line in lines), file=sys.stderr)
        return 1
    for row in brought.itertuples():
        print(f"{row.piece}: {row.path}" + (f" ({row.note})" if row.note else ""))
    return 0 if (brought["state"] == "here").all() else 1


# --- what they share ------------------------------------------------------------------------------------


def _report(table: pd.DataFrame, path: str) -> int:
    """Print what came out; the exit status: 0 if every pair has a score, else 1."""
    scored = table[table["status"] == "ok"]
    print(f"{len(scored):,} of {len(table):,} pairs scored -> {path}")
    if len(scored):
        print(f"mean CLAPScore {scored['clap_score'].mean():.4f}{_interval(scored)}")
    failed = table[table["status"] != "ok"].drop_duplicates("audio")
    if len(failed):
        print(f"{len(failed):,} file(s) have no score:")
        for row in failed.head(_SHOWN).itertuples():
            print(f"  {row.audio}: {row.status}")
        if len(failed) > _SHOWN:
            print(f"  ... and {len(failed) - _SHOWN:,} more, in column status of {path}")
    return 1 if len(failed) else 0


def _interval(scored: pd.DataFrame) -> str:
    """The 95 % percentile bootstrap interval of the mean score, captions resampled."""
    import numpy as np

    groups = scored.groupby("text", sort=True)["clap_score"].agg(["sum", "count"]).to_numpy()
    if len(groups) < 2:
        return " (no interval: one caption)"
    rng = np.random.default_rng(0)
    means = []
    for _ in range(_N_RESAMPLES):
        total, count = groups[rng.integers(len(groups), size=len(groups))].sum(axis=0)
        means.append(total / count)
    low, high = np.quantile(means, [0.025, 0.975])
    return f", 95 % interval {low:.4f} to {high:.4f} (bootstrap over {len(groups):,} captions)"


def _below(root: str | None, audio: pd.Series) -> list[str]:
    """The files' paths. Raises ValueError for a root that is no folder or a path that would leave it."""
    if root is None:
        return audio.tolist()
    if not Path(root).is_dir():
        raise ValueError(f"--audio-root {root} is no folder")
    for path in audio:
        if os.path.isabs(path):
            raise ValueError(f"{path!r} is absolute: leave --audio-root out, or the leading /")
    return [os.path.join(root, path) for path in audio]


def _require_folder_of(path: str) -> None:
    """Before the work, not after it."""
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"--out {path} is a folder; give the name of a file")
    if not target.parent.is_dir():
        raise ValueError(f"--out {path}: there is no folder {target.parent}")


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "humanclap"


# --- the arguments --------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """argparse, with one line for a mistake in place of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help explains)\n")


def _parser() -> _Parser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="humanclap", description=cli_help.ABOUT, formatter_class=plain)
    parser.add_argument("--version", action="version", version=f"humanclap {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")

    def command(name, run, about, examples):
        short = about.partition("\n\n")[0].replace("\n", " ").partition(". ")[0].partition(":")[0]
        made = commands.add_parser(
            name, help=short, description=about, epilog=examples, formatter_class=plain
        )
        made.set_defaults(run=run)
        return made.add_argument

    _add_score_arguments(command("score", _score, cli_help.SCORE, cli_help.SCORE_EXAMPLES))
    add = command("merge", _merge, cli_help.MERGE, cli_help.MERGE_EXAMPLES)
    add("shards", nargs="+", metavar="PART.csv", help="what `score --shard i/n` wrote, all n of them")
    add("--out", required=True, metavar="CSV", help="the whole score table")
    add = command("screen", _screen, cli_help.SCREEN, cli_help.SCREEN_EXAMPLES)
    add("ratings", metavar="RATINGS.csv", help="single ratings in RELATE's format")
    add("--max-anchor-mean", type=float, default=2.0, metavar="R", help="0-10 (default: 2, the paper's)")
    add("--split", choices=("train", "test"), help="only this one (default: both)")
    add("--out", required=True, metavar="CSV", help="the rated pairs")
    add = command("convert", _convert, cli_help.CONVERT, cli_help.CONVERT_EXAMPLES)
    add("source", metavar="SRC", help="LAION's .pt, or the folder (or hub id) of a ClapModel")
    add("target", metavar="DST", help="what to make; must not be there yet")
    add("--to", required=True, choices=("clapmodel", "laion"), help="what SRC is to become")
    add("--base", metavar="PT", help="with --to laion: a LAION .pt of the same architecture")
    add("--tokenizer", metavar="DIR", help="with --to clapmodel: a folder (default: roberta-base's)")
    add = command("fetch", _fetch, cli_help.FETCH, cli_help.FETCH_EXAMPLES)
    add("name", nargs="?", metavar="NAME", help="relate, relate-audio, laion, msclap, human-clap or all")
    add("--list", action="store_true", help="what there is, how large, from where, under which licence")
    add("--to", metavar="DIR", help="a folder for all of it (default: data/ and the hub's cache)")
    add("--keep-archive", action="store_true", help="keep RELATE_wave.zip once it is unpacked")
    add("--quiet", action="store_true", help="no progress bars")
    return parser


def _add_score_arguments(add: Callable[..., argparse.Action]) -> None:
    names = "laion, laion-fusion, msclap-2022, msclap-2023, human-clap, a hub id, a folder, a .pt, a .pth"
    windows = "what is heard of a long clip: first, center, mean, fusion or upstream (default: the model's)"
    add("pairs", metavar="PAIRS.csv", help="columns audio and text; others are kept")
    add("--clap", required=True, metavar="NAME", help=names)
    add("--out", required=True, metavar="CSV", help="the score table")
    add("--checkpoint", metavar="FILE", help="a local copy of a named model, instead of a download")
    add("--audio-root", metavar="DIR", help="the folder that the paths in PAIRS.csv are below")
    add("--shard", metavar="i/n", help="only the i-th of n blocks of rows")
    add("--window", metavar="POLICY", help=windows)
    add("--precision", default="fp32", metavar="P", help="fp32, bf16 or fp16 (default: fp32)")
    add("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add("--batch-size", type=int, default=32, metavar="N", help="clips at a time (default: 32)")
    add("--seed", type=int, default=0, metavar="N", help="for --window upstream (default: 0)")
    add("--cache", metavar="DIR", help="where embeddings are kept (default: ~/.cache/humanclap)")
    add("--no-cache", action="store_true", help="keep none")
    add("--quiet", action="store_true", help="no progress bars")


def _version() -> str:
    from . import __version__

    return __version__
