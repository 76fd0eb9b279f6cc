"""The command line: score, screen, finetune, convert and fetch, a thin shell around the package."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import __version__
from .files import expanded, is_stream, write_text
from .tables import TableError, require_table_place, write_table

if TYPE_CHECKING:
    import pandas as pd

    from .layouts import Layout

_ERRORS = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (sys.argv's, if None) and return its exit status, which is decided here and nowhere else.

    0: all is well. 1: some files have no score or could not be fetched. 2: the input is wrong; at most three lines on
    stderr say what. 130: stopped.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with contextlib.redirect_stdout(_Forgiving(sys.stdout)), contextlib.redirect_stderr(_Forgiving(sys.stderr)):
        command = arguments[0] if arguments and arguments[0] in cli.commands else ""
        name = f"humanclap {command}".strip()
        try:
            with cli.make_context("humanclap", arguments) as context:
                return cli.invoke(context) or 0
        except click.exceptions.Exit as stopped:  # --help and --version
            return stopped.exit_code
        except click.ClickException as error:
            said = f"{error.format_message()} ({name} --help explains)"
        except _ERRORS as error:  # a traceback would hide the line that says what is wrong
            said = str(error) or type(error).__name__
        except (KeyboardInterrupt, click.Abort) as stop:
            print(f"{name}: stopped{f'; {stop}' if str(stop) else ''}", file=sys.stderr)
            return 130
        finally:
            sys.stdout.flush()
        print(f"{name}: error: {' '.join(line.strip() for line in said.splitlines()).strip()}", file=sys.stderr)
        return 2


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="humanclap %(version)s")
def cli() -> None:
    """Human-CLAP: does this sound match this text, as people hear it?

    \b
      humanclap screen REL.csv --out pairs.csv                        # which pairs people rated, and how
      humanclap score pairs.csv --clap human-clap --out scores.csv    # how well sound and text match
      humanclap evaluate scores.csv REL.csv                           # how well a score agrees with people
      humanclap finetune pairs.csv --audio-root clips --out my-clap   # a CLAP trained on your ratings
      humanclap convert 630k-audioset-best.pt folder --to clapmodel   # LAION's checkpoints, there and back
      humanclap fetch relate                                          # public data and weights, checked

    `humanclap COMMAND --help` explains a command. Tables are CSV, TSV or JSON lines (.jsonl), each also as .gz. Exit
    status: 0 all is well, 1 some files have no score or could not be fetched, 2 the input is wrong, 130 stopped.
    """


# --- score ----------------------------------------------------------------------------------------------


@cli.command(short_help="Score the pairs of a table with a CLAP.")
@click.argument("pairs", metavar="PAIRS")
@click.argument("captions", required=False, metavar="[CAPTIONS]")
@click.option("--clap", required=True, metavar="NAME", help="laion, laion-fusion, msclap-2022, msclap-2023, human-clap, a hub id, a folder, a .pt, a .pth")  # fmt: skip
@click.option("--out", required=True, metavar="TABLE", help="the score table")
@click.option("--checkpoint", metavar="FILE", help="a local copy of a named model, instead of a download")
@click.option("--audio-root", metavar="DIR", help="the folder that the paths in PAIRS are below")
@click.option("--audio", metavar="NAME", help="the column of the clips, or a template: '{id}.wav', 'output_{row}.wav'")
@click.option("--text", metavar="COLUMN", help="the column of the captions")
@click.option("--systems", metavar="DIR", help="every subfolder of DIR is a system, with a clip for each row of PAIRS")
@click.option("--system", multiple=True, metavar="NAME=DIR", help="one system and the folder of its clips; repeat it")
@click.option("--summary", metavar="JSON", help="mean, interval, n and failures of every system, and what made them")
@click.option("--window", metavar="POLICY", help="how a long clip is cropped: first, center, mean, fusion or upstream (default: the model's)")  # fmt: skip
@click.option("--precision", default="fp32", metavar="P", help="fp32, bf16 or fp16 (default: fp32)")
@click.option("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
@click.option("--batch-size", type=int, default=32, metavar="N", help="clips per batch (default: 32)")
@click.option("--seed", type=int, default=0, metavar="N", help="for --window upstream (default: 0)")
@click.option("--cache", metavar="DIR", help="where embeddings are kept (default: ~/.cache/humanclap)")
@click.option("--no-cache", is_flag=True, help="keep no embeddings")
@click.option("--quiet", is_flag=True, help="no progress bars")
def score(
    pairs,
    captions,
    clap,
    out,
    audio_root,
    audio,
    text,
    systems,
    system,
    summary,
    cache,
    no_cache,
    batch_size,
    quiet,
    **model,
) -> int:
    """Score every pair of a clip and a caption: CLAPScore = max(cosine, 0).

    PAIRS is a table with the columns audio and text, or another usual layout (docs/layouts.md): ids and a template, JSON
    lines, `clip|caption` lists, Kaldi's wav.scp with its text file as CAPTIONS, a folder with a .txt beside each clip.

    The table that comes out has the columns of PAIRS, letter for letter, and: cosine, clap_score, status ("ok", or why
    the file has no score), model, checkpoint_sha256, window, precision, device. Every file keeps its row.

    \b
    examples:
      humanclap score pairs.csv --clap human-clap --out scores.csv
          The authors' released model; fetched once, then found in the hub cache.
      humanclap score pairs.csv --clap my-clap/ --audio-root RELATE_wave --precision bf16 --out scores.jsonl.gz
          The folder of a transformers.ClapModel (or a .pt, a .pth, a hub id); paths in the table are below RELATE_wave.
      torchrun --nproc-per-node 2 -m humanclap score pairs.csv --clap laion --out scores.csv
          The clips are shared out over two processes, and one table is written.

    A run that was stopped goes on where it was when the same command is given again: embeddings are kept in the cache
    folder as they are made, by the content of the file, the weights and all settings.
    """
    named = _systems(systems, system)
    if named and audio_root:
        raise ValueError("--audio-root: the folders of the systems say where the clips are; leave it out")
    found = read_pairs(pairs, audio_root, captions, audio, text, named)
    frame, notes, root = found.pairs, found.notes, found.root
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun or accelerate started
        out = require_table_place(out, "--out")
        print("".join(f"note: {note}\n" for note in notes), end="", file=sys.stderr)
        summary = summary and require_table_place(summary, "--summary")
    if not root.is_dir():
        raise ValueError(f"--audio-root {audio_root} is no folder")
    absolute = [path for path in frame["audio"] if os.path.isabs(path) or path.startswith("~/")]
    if audio_root and absolute:
        raise ValueError(f"{absolute[0]!r} is absolute: leave --audio-root out, or make the path relative to it")
    paths = [os.fspath(root / expanded(path)) for path in frame["audio"]]
    cache = cache or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "humanclap")
    try:
        cache = None if no_cache else expanded(cache)
    except OSError as error:
        raise OSError(f"{error}, with --cache DIR, or keep no embeddings (--no-cache)") from error

    from .clap import load_clap
    from .score import COLUMNS, score_as_launched

    model["checkpoint"] = model["checkpoint"] and expanded(model["checkpoint"])
    open_clap = partial(load_clap, expanded(clap) if clap.startswith("~/") else clap, **model)
    settings = {"batch_size": batch_size, "cache_dir": cache, "progress": not quiet, "device": model["device"]}
    scores = score_as_launched(open_clap, paths, frame["text"].tolist(), **settings)
    if scores is None:  # the main process has them
        return 0
    for column in COLUMNS[2:]:
        frame[column] = scores[column].to_numpy()  # by position
    write_table(frame, out)
    if summary:
        from .report import score_summary

        write_text(summary, json.dumps(score_summary(frame), indent=2, ensure_ascii=False) + "\n")
    return _report(frame, out)


def _systems(folder: str | None, named: Sequence[str]) -> dict[str, str]:
    """The folder of each system by name, from --systems and --system."""
    from .layouts import subfolders

    found = subfolders(folder) if folder else {}
    for entry in named:
        name, equals, place = entry.partition("=")
        if not (name and equals and expanded(place).is_dir()):
            raise ValueError(f"--system {entry!r} must be NAME=FOLDER, and the folder must be there")
        if name in found:
            raise ValueError(f"the system {name!r} is there twice")
        found[name] = place
    return found


def read_pairs(source, root=None, captions=None, audio=None, text=None, systems=None) -> Layout:
    """Pairs as `layouts.read_layout` reads them. TableError, too, for a column called as one of the score table's own."""
    from .layouts import read_layout
    from .score import COLUMNS

    found = read_layout(source, root, captions, audio, text, systems)
    own = [column for column in COLUMNS[2:] if column in found.pairs]
    if own:
        raise TableError(
            f"{source}, line 1: {', '.join(own)} is what the score table itself has (are these scores already?); leave it "
            f"out, or rename it (for instance my_{own[0]})"
        )
    return found


def _report(table: pd.DataFrame, path: Path) -> int:
    """Print what came out; the exit status: 0 if every pair has a score, else 1."""
    from .report import system_means

    say = partial(print, file=sys.stderr if is_stream(path) else sys.stdout)  # which the table may go to
    scored, failed = table[table["status"] == "ok"], table[table["status"] != "ok"].drop_duplicates("audio")
    say(f"{len(scored):,} of {len(table):,} pairs scored -> {path}")
    if len(scored):
        mean = system_means(table.assign(system="all")).iloc[0]
        interval = (
            f"95 % interval {mean['low']:.4f} to {mean['high']:.4f} (bootstrap over {mean['prompts']:,} captions)"
        )
        say(f"mean CLAPScore {mean['mean']:.4f}, " + (f"no interval: {mean['note']}" if mean["note"] else interval))
        several = "system" in table and table["system"].nunique() > 1
        for row in system_means(table).to_dict("records") if several else ():
            ends = "" if row["note"] else f" [{row['low']:.4f}, {row['high']:.4f}]"
            counts = f"{row['clips']:,} clips, {row['failed']:,} without a score"
            say(f"  {row['system']}: {row['mean']:.4f}{ends}, {counts}, on shared captions {row['shared_mean']:.4f}")
    if len(failed):
        say(f"{len(failed):,} file(s) have no score (column status of {path}):")
        for row in failed.head(20).itertuples():
            say(f"  {row.audio}: {row.status}")
    return 1 if len(failed) else 0


@cli.command(short_help="Judge any scores against human ratings.")
@click.argument("scores", nargs=-1, required=True, metavar="SCORES... RATINGS")
@click.option("--baseline", metavar="NAME", help="the score that the others are compared with (default: the first)")
@click.option("--score", "score_column", metavar="COLUMN", help="the column of scores, where it has an unusual name")
@click.option("--swapped", metavar="TABLE", help="scores of the same clips with other captions")
@click.option(
    "--scale", nargs=2, type=float, default=(0, 10), metavar="LOW HIGH", help="of the ratings (default: 0 10)"
)
@click.option(
    "--max-anchor-mean", type=float, default=2.0, metavar="R", help="for RELATE's listeners, 0-10 (default: 2)"
)
@click.option(
    "--resamples", type=int, default=10_000, metavar="N", help="of captions, behind every interval (default: 10,000)"
)
@click.option("--seed", type=int, default=0, metavar="N", help="of the resamples (default: 0)")
@click.option("--out", metavar="DIR", help="the folder for all tables (CSV, Markdown, LaTeX, JSON) and a figure")
def evaluate(scores, resamples, out, **settings) -> int:
    """How well scores agree with people, between the floor of never listening and the ceiling of human agreement.

    SCORES are tables of any tool, plain or as name=table.csv: a column of clips (audio, file_name, path, ...), one of
    scores (clap_score, score, similarity, ...), and where there is one a caption (text, caption, prompt). RATINGS is
    RELATE's REL.csv, XACLE's folder, or a CSV with audio, text and rating or mean_rating; where it has a split, the test
    pairs are judged and the train pairs fit the floor. What does not join is counted.

    \b
    examples:
      humanclap evaluate scores.csv RELATE/scores/REL.csv
      humanclap evaluate clap=scores.csv llm=answers.jsonl ratings.csv --scale 1 5 --baseline clap --out judged/
    """
    from .judge import by_name, judge

    *given, ratings = scores
    if not given:
        raise ValueError("two tables are needed: SCORES and, last, RATINGS")
    parts = [("", "", entry) if "=" not in entry or Path(entry).exists() else entry.partition("=") for entry in given]
    named = by_name((name, expanded(path)) for name, _, path in parts)
    folder = expanded(out) if out else None
    if folder is not None and folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--out {out} is a file; a folder is needed")
    found = judge(named, ratings, n_resamples=resamples, **settings)
    for note in found.notes:
        print(f"note: {note}")
    print(f"\n{found.as_markdown()}")
    print("\n".join(found.verdicts()))
    if folder is not None:
        written = found.write(folder)
        print(f"{len(written)} files -> {folder}")
    return 1 if found.unscored else 0


# --- screen, finetune, convert, fetch -------------------------------------------------------------------


@cli.command(short_help="Remove listeners by their anchors, average the rest.")
@click.argument("ratings", metavar="RATINGS.csv")
@click.option("--max-anchor-mean", type=float, default=2.0, metavar="R", help="0-10 (default: 2, the paper's)")
@click.option("--out", required=True, metavar="TABLE", help="the rated pairs")
def screen(ratings, max_anchor_mean, out) -> int:
    """From single ratings in RELATE's format to rated pairs, as in the paper.

    Listeners who rate mismatched pairs (anchors) above the threshold on average are removed, with all they rated. Each
    pair left gets its mean rating (0-10), its standard deviation, the number of ratings, and target = mean / 10.

    \b
    examples:
      humanclap screen RELATE/scores/REL.csv --out pairs.csv
          The paper's threshold of 2: 2,892 pairs for training and 2,892 for testing.
      humanclap screen RELATE/scores/REL.csv --max-anchor-mean 1 --out strict.csv
    """
    from .relate import aggregate_pairs, load_ratings, screen_listeners

    out = require_table_place(out, "--out")
    screening = screen_listeners(load_ratings(ratings), max_anchor_mean)
    pairs = aggregate_pairs(screening.ratings)
    write_table(pairs, out)
    said = f"{screening}\n{len(pairs):,} pairs, {int(pairs['n_ratings'].sum()):,} ratings -> {out}"
    print(said, file=sys.stderr if is_stream(out) else sys.stdout)
    return 0


class _WithSettings(click.Command):
    """A command with an option for each setting of FinetuneConfig, which is imported when they are asked for."""

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        from .finetune import FinetuneConfig

        own, types = super().get_params(context), {"str": str, "int": int, "float": float, "bool": bool}
        for setting in fields(FinetuneConfig):
            kind, name = types.get(setting.type, _count_or_share), f"--{setting.name.replace('_', '-')}"
            own.insert(-1, click.Option([name, setting.name], type=kind, help=f"default: {setting.default}"))
        return own


def _count_or_share(text: str) -> int | float:
    return int(text) if text.isdecimal() else float(text)


@cli.command(cls=_WithSettings, short_help="Fine-tune a CLAP on rated pairs.")
@click.argument("pairs", metavar="PAIRS")
@click.option("--validation", metavar="TABLE", help="a second table, whose pairs validate")
@click.option("--scale", nargs=2, type=float, metavar="LOW HIGH", help="of the column rating (default: 0 10)")
@click.option("--audio-root", required=True, metavar="DIR", help="the folder that the column audio is relative to")
@click.option("--out", required=True, metavar="DIR", help="the folder of this run")
@click.option("--config", metavar="YAML", help="settings by name; options on the command line come before them")
@click.option("--resume", is_flag=True, help="go on with the run in --out, or begin it")
@click.option("--overwrite", is_flag=True, help="replace the run in --out")
@click.option("--cache", metavar="DIR", help="keep features there")
@click.option("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N (default: auto)")
@click.option("--quiet", is_flag=True, help="no progress bars")
def finetune(**arguments) -> int:
    """Fine-tune a CLAP on rated pairs, with the paper's settings unless others are given, and say what that reached.

    PAIRS is what `humanclap screen` writes, or a table of ratings: audio (below --audio-root), text, and target (0-1)
    or rating (0-10; another scale: --scale 1 5), and where known listener, system and split (train, validation, test).
    Several ratings of a pair are averaged; rows of the split "test" are left out. Without a split "validation" or
    --validation, captions are drawn that validate. --out gets the model of the best epoch (model/), history.csv,
    validation.csv and settings.json. `help(humanclap.finetune.FinetuneConfig)` explains the settings.

    \b
    examples:
      humanclap finetune pairs.csv --audio-root RELATE_wave --out runs/wsce+mae --resume
      humanclap finetune ratings.csv --audio-root clips --scale 1 5 --base human-clap --out my-clap
    """
    from .finetune import FinetuneConfig, finetune_table

    names = [setting.name for setting in fields(FinetuneConfig)]
    given = {name: value for name in names if (value := arguments.pop(name)) is not None}
    try:
        finetune_table(settings=given, progress=not arguments.pop("quiet"), **arguments)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("the same command with --resume goes on after the last whole epoch") from stop
    return 0


@cli.command(short_help="LAION's checkpoints to transformers, or back.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--to", required=True, type=click.Choice(["clapmodel", "laion"]), help="what SRC is to become")
@click.option("--base", metavar="PT", help="with --to laion: a LAION .pt of the same architecture")
@click.option("--tokenizer", metavar="DIR", help="with --to clapmodel: a folder (default: roberta-base's)")
def convert(source, target, to, base, tokenizer) -> int:
    """LAION's own checkpoint to the folder of a transformers.ClapModel, or back.

    SRC is LAION's .pt, or the folder (or hub id) of a ClapModel; DST must not be there yet. No weight is lost: a key
    that the table of names does not know stops the conversion. Embeddings agree to about 1e-7. The heads in LAION's
    checkpoints, which a ClapModel does not have and no score uses, are taken from --base.

    \b
    examples:
      humanclap convert 630k-audioset-best.pt laion-clap/ --to clapmodel
      humanclap convert my-human-clap/ my-human-clap.pt --to laion --base 630k-audioset-best.pt
    """
    from .clap.laion import to_clapmodel, to_laion

    if (to == "laion") != bool(base) or (to == "laion" and tokenizer):
        raise ValueError(
            "--to laion needs --base, a LAION .pt of the same architecture; --to clapmodel takes --tokenizer only"
        )
    source = expanded(source) if source.startswith("~/") else source
    if to == "clapmodel":
        written = to_clapmodel(source, expanded(target), tokenizer and expanded(tokenizer))
        print(f"{written}: a transformers.ClapModel with preprocessor and tokenizer")
    else:
        written = to_laion(source, expanded(target), expanded(base))
        print(f"{written}: a checkpoint that laion_clap.CLAP_Module.load_ckpt reads")
    return 0


@cli.command(short_help="Fetch public data and weights, checked.")
@click.argument("name", required=False)
@click.option("--list", "listing", is_flag=True, help="what there is, how large, from where, under which licence")
@click.option("--to", metavar="DIR", help="a folder for all of it (default: data/ and the hub's cache)")
@click.option("--keep-archive", is_flag=True, help="keep RELATE_wave.zip once it is unpacked")
@click.option("--quiet", is_flag=True, help="no progress bars")
def fetch(name, listing, to, keep_archive, quiet) -> int:
    """Fetch public data and weights at pinned revisions, checked by SHA-256.

    NAME is relate (the ratings, 10 MB), relate-audio (1.9 GB), xacle (some 4 GB unpacked), laion, msclap, human-clap, or
    all that the paper needs. RELATE goes to data/relate, weights to the hub's cache; with --to DIR, or HUMANCLAP_DATA, to
    DIR/relate and DIR/weights. What is here is not fetched again; files copied by hand to the same places count as well.

    \b
    examples:
      humanclap fetch --list
      humanclap fetch all --to /media/disk
          All of it into one folder, for a machine without a network: set HUMANCLAP_DATA to that folder there.
    """
    from . import download

    folder = expanded(to) if to else None
    if listing:
        print(download.listing(folder))
        return 0
    if name is None:
        raise ValueError(f"what is to be fetched? {', '.join(download.SOURCES)} or all; --list says what each is")
    try:
        fetched = download.fetch(name, folder, progress=not quiet, keep_archive=keep_archive)
    except download.DownloadError as error:
        print("\n".join(f"humanclap fetch: error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 1
    for row in fetched.itertuples():
        print(f"{row.piece}: {row.path}" + (f" ({row.note})" if row.note else ""))
    return 0 if (fetched["state"] == "here").all() else 1


# --- what they share ------------------------------------------------------------------------------------


class _Forgiving:
    """A stream whose reader may go away (`| head`): nothing is written then. Letters the console lacks are escaped."""

    def __init__(self, stream) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Callable, *arguments) -> None:
        try:
            action(*arguments)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str):
        return getattr(self._stream, name)
