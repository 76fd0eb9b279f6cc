"""A training that is killed again and again, for test_finetune_faults: `python finetune_drill.py MODE FOLDER`.

Everything is imported and prepared once; each attempt is a fork of that, killed with SIGKILL from outside at a
random moment ("random"), or by itself at its n-th change to the file system, for every n ("everywhere"), or hit by
a limit on the size of files, which a full disk resembles ("full"). Prints one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from finetune_small import make_clap, make_corpus

from humanclap.clap import load_clap
from humanclap.finetune import FinetuneConfig, finetune, prepare

CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate")
ATTEMPTS = 10


class Drill:
    def __init__(self, folder: Path, epochs: int, n_pairs: int) -> None:
        torch.set_num_threads(1)
        self.folder = folder
        pairs = make_corpus(folder)
        clap = load_clap(make_clap(folder / "clap", pairs["text"]), device="cpu")
        sets = [prepare(clap, part[:n_pairs], folder, progress=False) for part in (pairs[:24], pairs[24:])]
        config = FinetuneConfig(epochs=epochs, learning_rate=1e-3, batch_size=4)
        self.train = lambda output, **more: finetune(
            config, *sets, base=clap, output_dir=output, progress=False, **more
        )

    def child(self, work) -> int:
        """A fork that does `work` and ends; its id."""
        pid = os.fork()
        if pid == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        return pid

    def whole(self, output: Path) -> dict[str, str]:
        """What is left of a finished run: the hash of every file that must be equal to the last byte."""
        result = self.train(output, resume=True)
        files = [output / "history.csv", output / "validation.csv", *sorted(result.checkpoint.iterdir())]
        left = sorted(path.name for path in output.iterdir() if path.name != ".lock")
        assert left == ["history.csv", "model", "settings.json", "validation.csv"], left
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ended(pid: int) -> int:
    """Wait for a fork: 0 if it finished, the signal's number if it was killed; else this fails."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "the training failed, see above"
    return 0


def readable(output: Path) -> None:
    """What somebody finds who looks at the folder of a killed run: a model that opens, or none."""
    if (output / "model").exists():
        load_clap(output / "model", device="cpu")


def random_moments(folder: Path) -> dict:
    drill = Drill(folder, epochs=30, n_pairs=24)
    started = time.monotonic()
    assert ended(drill.child(lambda: drill.train(folder / "whole"))) == 0
    seconds = time.monotonic() - started
    rng = np.random.default_rng(2025)
    kills, reached = 0, []
    while kills < ATTEMPTS:
        # On average an attempt gets a twentieth of the whole, so ten of them do not come to its end.
        pid = drill.child(lambda: drill.train(folder / "killed", resume=True))
        time.sleep(rng.uniform(0, seconds / 10))
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == signal.SIGKILL, "the training ended before the drill did"
        kills += 1
        readable(folder / "killed")
        checkpoint = folder / "killed" / "checkpoint.pt"  # whole, or not there
        reached.append(len(torch.load(checkpoint, weights_only=True)["rows"]) - 1 if checkpoint.exists() else 0)
    assert ended(drill.child(lambda: drill.train(folder / "killed", resume=True))) == 0
    resumed = json.loads((folder / "killed" / "settings.json").read_text())["resumed"]
    equal = drill.whole(folder / "killed") == drill.whole(folder / "whole")
    return {"kills": kills, "reached": reached, "resumed": resumed, "equal": equal, "seconds": seconds}


def everywhere(folder: Path) -> dict:
    drill = Drill(folder, epochs=2, n_pairs=8)
    output = folder / "killed"

    def train(kill_at: int | None, count: list[int], **more) -> None:
        def hook(event: str, arguments: tuple) -> None:
            if event not in CHANGES or not str(arguments[0]).startswith(str(output)):
                return
            if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
                return
            count[0] += 1
            if count[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        drill.train(output, **more)

    def counted() -> None:
        count = [0]
        train(None, count)
        (folder / "count").write_text(str(count[0]))

    assert ended(drill.child(counted)) == 0
    expected, n_changes = drill.whole(output), int((folder / "count").read_text())
    unequal = []
    for place in range(1, n_changes + 1):
        assert ended(drill.child(lambda place=place: train(place, [0], overwrite=True))) == signal.SIGKILL, place
        readable(output)
        assert ended(drill.child(lambda: drill.train(output, resume=True))) == 0, place
        if drill.whole(output) != expected:
            unequal.append(place)
    return {"changes": n_changes, "unequal": unequal}


def full_disk(folder: Path) -> dict:
    """No file may pass a size: below that of the checkpoint's, and then the rest of the run without the limit."""
    drill = Drill(folder, epochs=3, n_pairs=8)
    assert ended(drill.child(lambda: drill.train(folder / "whole"))) == 0
    output = folder / "full"

    def first_epoch_only() -> None:
        from humanclap.finetune import train

        save = train._Run._save

        def save_then_limit(self, epoch, better):
            save(self, epoch, better)
            if epoch == 1:
                size = (self.folder / train.CHECKPOINT).stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size * 2 // 3, resource.RLIM_INFINITY))

        train._Run._save = save_then_limit
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            drill.train(output)
        except OSError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            (folder / "said").write_text(str(error))

    assert ended(drill.child(first_epoch_only)) == 0
    left = sorted(path.name for path in output.iterdir() if path.name != ".lock")
    equal = drill.whole(output) == drill.whole(folder / "whole")
    return {"said": (folder / "said").read_text(), "left": left, "equal": equal}


if __name__ == "__main__":
    run = {"random": random_moments, "everywhere": everywhere, "full": full_disk}[sys.argv[1]]
    print(json.dumps(run(Path(sys.argv[2]))))
