"""`python -m humanclap.study summary|figures [profile]`, for the Makefile."""

from __future__ import annotations

import argparse
import sys

from . import PROFILES, StudyError, copy_figures, summary


def _main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m humanclap.study", description=__doc__)
    parser.add_argument("action", choices=("summary", "figures"))
    parser.add_argument("profile", choices=PROFILES, nargs="?", default="demo")
    options = parser.parse_args(arguments)
    try:
        print(
            summary(options.profile)
            if options.action == "summary"
            else "\n".join(map(str, copy_figures(options.profile)))
        )
    except StudyError as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
