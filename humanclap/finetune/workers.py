"""Several trainings at the same time, each in a process of its own: `python -m humanclap.finetune.workers FOLDER`.

The processes are started as commands, not through multiprocessing, which would import the caller's `__main__`
again: a notebook has none, and a script may train in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_ERROR_LINES = 15


@dataclass
class Pool:
    """`n_workers` processes that work on what lies in `folder`, and take jobs one after the other.

    A job is a dict of plain values, given to `work(job)` of the worker, which returns nothing: what comes out lies
    on disk.
    """

    folder: Path
    n_workers: int
    _processes: list[subprocess.Popen] = field(default_factory=list)

    def run(self, jobs: Sequence[dict], on_done: Callable[[dict], object]) -> dict[int, str]:
        """Do all `jobs`; `on_done(job)` after each, in this thread. Returns what went wrong, by place in `jobs`.

        After a failure no other job is begun, and those that run come to their end. An interrupt ends all.
        """
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        for place in range(len(jobs)):
            waiting.put(place)
        finished: queue.SimpleQueue = queue.SimpleQueue()
        failed: dict[int, str] = {}
        threads = [
            threading.Thread(target=self._serve, args=(number, jobs, waiting, finished, failed), daemon=True)
            for number in range(min(self.n_workers, len(jobs)))
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) or not finished.empty():
                with contextlib.suppress(queue.Empty):
                    on_done(jobs[finished.get(timeout=0.2)])
        finally:
            for process in self._processes:
                process.kill()  # only an interrupt finds one alive
                process.wait()
        return failed

    def _serve(self, number: int, jobs, waiting, finished, failed: dict[int, str]) -> None:
        log = self.folder / f"worker{number}.log"
        with log.open("wb") as errors:
            process = self._start(errors)
            with process.stdin, process.stdout:
                while not failed:
                    try:
                        place = waiting.get_nowait()
                    except queue.Empty:
                        break
                    wrong = _ask(process, jobs[place])
                    if wrong is None:
                        finished.put(place)
                    else:
                        last = log.read_text("utf-8", errors="replace").splitlines()[-_ERROR_LINES:]
                        failed[place] = wrong or "\n".join([_death(process), *last])
            process.wait()

    def _start(self, errors: IO[bytes]) -> subprocess.Popen:
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-m", "humanclap.finetune.workers", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # an interrupt is for the caller, who then ends the workers
        )
        self._processes.append(process)
        return process


def _ask(process: subprocess.Popen, job: dict) -> str | None:
    """Give a worker a job and wait: None if it is done, what went wrong, or "" if the process is gone."""
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except (BrokenPipeError, ValueError):
        answer = ""
    return json.loads(answer)["error"] if answer else ""


def _death(process: subprocess.Popen) -> str:
    code = process.wait()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return f"the process {how}; its last lines:"


def main(folder: Path) -> None:
    """The worker: a line of JSON in for each job, one out when it is done. It ends when nobody asks any more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    jobs: queue.SimpleQueue = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            jobs.put(json.loads(line))
        os._exit(0)  # the caller is done, or gone: then what is half done can be resumed

    threading.Thread(target=listen, daemon=True).start()
    from humanclap.finetune.variants import Worker

    worker = None
    while True:
        job, error = jobs.get(), None
        try:
            worker = worker or Worker(folder)
            worker.work(job)
        except Exception as problem:
            traceback.print_exc()
            error = f"{type(problem).__name__}: {problem}"
        print(json.dumps({"error": error}), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
