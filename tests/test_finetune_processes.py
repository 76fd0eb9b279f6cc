"""Two processes with half of each batch are one process with all of it (CPU, gloo, loopback)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from humanclap.finetune import FinetuneConfig
from humanclap.finetune.accelerated import Engine, choose_precision, state_kept

SCRIPT = Path(__file__).with_name("finetune_two.py")
PROJECT = SCRIPT.parent.parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(PROJECT), str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def run_processes(folder: Path, world: int, *arguments: str) -> None:
    port, processes = str(free_port()), []
    for rank in range(world):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        launched = {} if world == 1 else {name: str(value) for name, value in names.items()}
        launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder), *arguments]
        processes.append(
            subprocess.Popen(command, env=environment(**launched), stderr=subprocess.PIPE, text=True)
        )
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * world, "\n".join(errors)


@pytest.mark.parametrize(
    ("kind", "architecture"), [("wsce+mae", "plain"), pytest.param("mse", "fused", marks=pytest.mark.slow)]
)
def test_two_processes_are_one(tmp_path, kind, architecture):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, world in ((one, 1), (two, 2)):
        folder.mkdir()
        run_processes(folder, world, kind, architecture)
    single = json.loads((one / "facts0-of1.json").read_text())
    expected = load_file(one / "gradients0-of1.safetensors")
    assert single["processes"] == 1 and len(single["losses"]) == 3
    for rank in (0, 1):
        facts = json.loads((two / f"facts{rank}-of2.json").read_text())
        assert facts["processes"] == 2
        torch.testing.assert_close(facts["losses"], single["losses"], rtol=0, atol=1e-6)
        gradients = load_file(two / f"gradients{rank}-of2.safetensors")
        # What no process reaches has no gradient in either: AdamW then leaves it alone, weight decay included.
        assert gradients.keys() == expected.keys()
        for step in (1, 2, 3):
            of_step = [name for name in expected if name.startswith(f"{step}|")]
            difference = torch.cat([(gradients[name] - expected[name]).flatten() for name in of_step])
            assert difference.norm() <= 1e-5 * torch.cat([expected[name].flatten() for name in of_step]).norm()
            if "wsce" in kind:
                scale = f"{step}|logit_scale_a"
                torch.testing.assert_close(gradients[scale], expected[scale], rtol=1e-4, atol=1e-7)
        assert facts["files"] == single["files"] == ["history.csv", "manifest.json", "model", "times.csv"]
    histories = [pd.read_csv(folder / "history.csv") for folder in (one / "run-of1", two / "run-of2")]
    pd.testing.assert_frame_equal(*histories, rtol=0, atol=1e-5)
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (one / "run-of1", two / "run-of2")]
    moved = torch.cat([(weights[0][name] - weights[1][name]).flatten().float() for name in weights[0]])
    assert moved.abs().max() < 1e-3  # a step is at most the learning rate, and there were six


def test_shares_are_neighbours_as_equal_as_can_be():
    engine = Engine(FinetuneConfig(precision="fp32"), torch.device("cpu"))
    for world in (1, 2, 3, 8):
        engine.world = world
        for n_rows in range(20):
            shares = engine.shares(n_rows)
            assert [row for share in shares for row in share] == list(range(n_rows))
            sizes = [len(share) for share in shares]
            assert len(sizes) == world and max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def test_batch_statistics_of_several_processes_are_refused(monkeypatch):
    from accelerate.state import PartialState

    state = PartialState(cpu=True)
    monkeypatch.setitem(state.__dict__, "num_processes", 2)
    monkeypatch.setattr("humanclap.finetune.accelerated.launched", lambda: True)
    with pytest.raises(ValueError, match="each of 2 processes would take its own"):
        Engine(FinetuneConfig(freeze_batch_norm=False), torch.device("cpu"))


def test_accelerate_s_own_settings_stay_as_they_were():
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(True)
    theirs = Accelerator(cpu=True, mixed_precision="bf16")
    with state_kept():
        assert Engine(FinetuneConfig(precision="fp32"), torch.device("cpu")).accelerator.mixed_precision == "no"
    assert theirs.mixed_precision == AcceleratorState().mixed_precision == "bf16"
    AcceleratorState._reset_state(True)
    with state_kept():
        Engine(FinetuneConfig(), torch.device("cpu"))
    assert not PartialState._shared_state


def test_what_auto_means():
    cpu = torch.device("cpu")
    assert [choose_precision(name, cpu) for name in ("auto", "fp32", "bf16")] == ["fp32", "fp32", "bf16"]
    with pytest.raises(ValueError, match="'fp16' needs a GPU"):
        choose_precision("fp16", cpu)
