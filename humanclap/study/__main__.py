"""`python -m humanclap.study run|summary|figures [profile]`, for the Makefile and for a rerun with other parameters."""

from __future__ import annotations

import argparse
import sys

from . import PROFILES, StudyError, copy_figures, run_notebooks, summary


def _main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m humanclap.study", description=__doc__)
    parser.add_argument("action", choices=("run", "summary", "figures"))
    parser.add_argument("profile", choices=PROFILES, nargs="?", default="demo")
    parser.add_argument("--only", nargs="+", default=(), metavar="NN", help="run: the notebooks that begin with these")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="run: as papermill's"
    )
    options = parser.parse_args(arguments)
    try:
        if options.action == "run":
            _run(options)
        elif options.action == "summary":
            print(summary(options.profile))
        else:
            print("\n".join(map(str, copy_figures(options.profile))))
    except StudyError as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    import yaml
    from papermill.exceptions import PapermillExecutionError

    overrides = {name: yaml.safe_load(value) for name, value in options.parameter}
    try:
        run_notebooks(options.profile, options.only, overrides)
    except PapermillExecutionError as error:
        # Our own errors say all in their message; of others the whole traceback is needed.
        whole = error.ename not in ("StudyError", "ParameterError")
        raise StudyError(str(error) if whole else f"{error.ename}: {error.evalue}") from None
    print(summary(options.profile))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
