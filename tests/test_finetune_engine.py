"""What the engine offers besides the training itself: precision, compiling, TensorBoard, the command line."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from clap_folders import save_clap
from finetune_small import make_clap, make_corpus
from full_size import save_clips
from laion_small import save_laion, small_laion
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import ClapModel, ClapProcessor

from humanclap import relate
from humanclap.clap import load_clap
from humanclap.clap.checkpoints import read_weights
from humanclap.clap.convert import clapmodel_state, to_clapmodel
from humanclap.cli import main as humanclap
from humanclap.finetune import FinetuneConfig, Trainer, finetune, prepare, split_pairs
from humanclap.finetune.__main__ import main
from humanclap.finetune.repeat import reproducible

CPU = torch.device("cpu")
PROJECT = Path(__file__).resolve().parent.parent


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    pairs = make_corpus(root)
    pairs.to_csv(root / "pairs.csv", index=False)
    make_clap(root / "clap", pairs["text"])
    return pairs, root


@pytest.fixture(scope="module")
def clap(corpus):
    return load_clap(corpus[1] / "clap", device="cpu")


@pytest.fixture(scope="module")
def sets(corpus, clap):
    pairs, root = corpus
    return [prepare(clap, part, root, progress=False) for part in (pairs[:24], pairs[24:])]


def run(clap, sets, output_dir=None, **settings):
    config = FinetuneConfig(**{"epochs": 2, "learning_rate": 1e-3, **settings})
    return finetune(config, *sets, base=clap, output_dir=output_dir, progress=False)


# --- settings
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "error", "says"),
    [
        ({"split_by": "clip"}, ValueError, "split_by is 'clip'; allowed: caption, pair"),
        ({"windows": "random"}, ValueError, "windows is 'random'; allowed: fixed, drawn"),
        ({"precision": "int8"}, ValueError, "precision is 'int8'; allowed: auto, fp32, bf16, fp16"),
        ({"n_train": 0}, ValueError, "n_train is 0"),
        ({"n_train": 1.5}, ValueError, "n_train is 1.5; it must be a whole number or a share"),
        ({"n_train": "all"}, TypeError, "n_train is 'all'"),
        ({"n_train": True}, TypeError, "n_train is True"),
        ({"drop_path": 1}, ValueError, "drop_path is 1.0; it must be below 1"),
        ({"drop_path": -0.1}, ValueError, "drop_path is -0.1"),
        ({"spec_augment": 1}, TypeError, "spec_augment is 1; allowed: True or False"),
        ({"compile": None}, TypeError, "compile is None"),
        ({"split_seed": -1}, ValueError, "split_seed is -1"),
    ],
)
def test_a_wrong_setting_is_named(setting, error, says):
    with pytest.raises(error, match=says):
        FinetuneConfig(**setting)


def test_the_new_defaults_are_the_paper_s_or_transformers():
    config = FinetuneConfig()
    assert (config.n_train, config.split_by, config.windows) == (1925, "caption", "fixed")
    assert (config.spec_augment, config.drop_path, config.compile, config.precision) == (False, 0, False, "auto")


@pytest.mark.parametrize("by", ["caption", "pair"])
def test_pairs_are_split_as_the_settings_say(corpus, by):
    pairs = corpus[0].assign(split=["train"] * 40 + ["test"] * 8)
    config = FinetuneConfig(n_train=30, split_by=by, split_seed=4, seed=9)
    expected = relate.split_train_validation(pairs, n_train=30, by=by, seed=4)
    for ours, theirs in zip(split_pairs(pairs, config), expected, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


# --- precision and compilation
# --------------------------------------------------------------------------------------


def test_bf16_autocast_trains_float32_weights(clap, sets):
    full, half = run(clap, sets, dropout=False), run(clap, sets, dropout=False, precision="bf16")
    assert (full.settings["precision"], half.settings["precision"]) == ("fp32", "bf16")
    assert {values.dtype for values in half.model.parameters()} == {torch.float32}
    for name in ("train_loss", "validation_loss"):
        ours, theirs = half.history[name].dropna(), full.history[name].dropna()
        assert not np.array_equal(ours, theirs)
        np.testing.assert_allclose(ours, theirs, rtol=0.02)  # 8 bits of mantissa in the towers


def test_validation_is_in_float32_whatever_the_precision(clap, sets):
    """It chooses the epoch, and whoever opens the checkpoint scores in float32."""
    config, seen = FinetuneConfig(precision="bf16", learning_rate=1e-3), []
    with reproducible(CPU):
        trainer = Trainer(config, clap.model, *sets, CPU)
        for tower in (trainer.model.audio_model, trainer.model.text_model):
            tower.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
        trainer.train_epoch(1)
        assert seen and all(seen)
        seen.clear()
        means, score = trainer.validate(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # of a caller
            again = trainer.validate(1)
        assert seen and not any(seen)
        full = Trainer(FinetuneConfig(precision="fp32"), trainer.model, *sets, CPU)
        expected = full.validate(1)
    assert means == expected[0] == again[0]
    assert np.array_equal(score, expected[1]) and np.array_equal(score, again[1])


def test_fp16_without_a_gpu_is_told(clap, sets):
    with pytest.raises(ValueError, match="precision 'fp16' needs a GPU; allowed on a CPU: 'auto', 'fp32' and 'bf16'"):
        run(clap, sets, precision="fp16")


def test_float32_is_not_rounded_to_tf32_and_the_flags_come_back(clap, sets):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    seen = []
    with reproducible(CPU):
        trainer = Trainer(FinetuneConfig(), clap.model, *sets, CPU)
        trainer.train_epoch(1, lambda step, loss: seen.append((cudnn.allow_tf32, matmul.allow_tf32)))
    assert set(seen) == {(False, False)} and (cudnn.allow_tf32, matmul.allow_tf32) == before


def test_compiled_towers_are_the_same_towers(clap, sets, monkeypatch):
    from humanclap.finetune import trainer

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(trainer, "COMPILE_BACKEND", backend)
    torch._dynamo.reset()
    plain, compiled = (run(clap, sets, dropout=False, compile=on) for on in (False, True))
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(compiled.history[name], plain.history[name], rtol=0, atol=1e-5)
    weights, base = plain.model.state_dict(), clap.model.state_dict()
    names = [name for name in weights if weights[name].is_floating_point() and not name.endswith(".key.bias")]
    moved = torch.cat([(weights[name] - base[name]).flatten() for name in names])
    other = torch.cat([(compiled.model.state_dict()[name] - base[name]).flatten() for name in names])
    assert (other - moved).norm() <= 1e-2 * moved.norm()
    assert graphs  # it was compiled, not passed by


@pytest.mark.parametrize(("fused", "dynamic"), [(False, False), (True, None)])
def test_shapes_are_compiled_as_they_are_but_for_the_number_of_long_clips(
    clap, sets, tmp_path, monkeypatch, corpus, fused, dynamic
):
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: asked.append(how["dynamic"]))
    base = load_clap(make_clap(tmp_path / "fused", corpus[0]["text"], fused=True), device="cpu") if fused else clap
    Trainer(FinetuneConfig(compile=True), base.model, *sets, CPU)
    assert asked == [dynamic]


def test_a_short_last_batch_is_compiled_once_and_no_size_becomes_dynamic(clap, sets, monkeypatch):
    from humanclap.finetune import trainer

    symbolic = []

    def backend(graph, inputs):
        symbolic.append([value for value in inputs if not isinstance(value, torch.Tensor)])
        return graph

    monkeypatch.setattr(trainer, "COMPILE_BACKEND", backend)
    torch._dynamo.reset()
    with reproducible(CPU):
        compiled = Trainer(FinetuneConfig(compile=True, batch_size=7, dropout=False), clap.model, *sets, CPU)
        compiled.train_epoch(1)  # 24 = 3 x 7 + 3
        assert symbolic == [[], []]
        compiled.train_epoch(2)
    assert len(symbolic) == 2


# --- progress
# ------------------------------------------------------------------------------------------------------


def test_each_step_is_reported_with_its_loss(clap, sets):
    seen = []
    with reproducible(CPU):
        trainer = Trainer(FinetuneConfig(learning_rate=1e-3), clap.model, *sets, CPU)
        means = trainer.train_epoch(1, lambda step, loss: seen.append((step, loss.item())))
    assert [step for step, _ in seen] == [1, 2, 3]
    assert np.mean([loss for _, loss in seen]) == pytest.approx(means["loss"], rel=1e-6)


def test_times_stand_apart_from_the_history(clap, sets, tmp_path):
    result = run(clap, sets, tmp_path)
    assert list(result.times.columns) == ["epoch", "train_seconds", "validation_seconds", "peak_memory_bytes"]
    assert result.times["epoch"].tolist() == [0, 1, 2] and np.isnan(result.times["train_seconds"][0])
    assert (result.times["validation_seconds"] > 0).all() and (result.times["train_seconds"][1:] > 0).all()
    assert result.times["peak_memory_bytes"].isna().all()  # of a GPU only
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "times.csv"), result.times)
    assert not [name for name in result.history if "second" in name or "memory" in name]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_shows_the_history(clap, sets, tmp_path):
    config = FinetuneConfig(epochs=2, learning_rate=1e-3)
    result = finetune(config, *sets, base=clap, output_dir=tmp_path, progress=False, tensorboard=True)
    shown = scalars(tmp_path / "tensorboard")
    for column, tag in (("validation_srcc", "validation/srcc"), ("train_loss", "train/loss"), ("temperature",) * 2):
        expected = [(int(epoch), value) for epoch, value in result.history[["epoch", column]].dropna().to_numpy()]
        assert [step for step, _ in shown[tag]] == [step for step, _ in expected]
        np.testing.assert_allclose([value for _, value in shown[tag]], [value for _, value in expected], rtol=1e-6)


def test_tensorboard_that_is_not_installed_is_told(clap, sets, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = FinetuneConfig(epochs=1, learning_rate=1e-3)
    with pytest.raises(ImportError, match="tensorboard=True needs the package tensorboard.*pip install tensorboard"):
        finetune(config, *sets, base=clap, output_dir=tmp_path, progress=False, tensorboard=True)
    with pytest.raises(ValueError, match="tensorboard=True needs an output_dir"):
        finetune(config, *sets, base=clap, progress=False, tensorboard=True)


# --- nothing grows
# -----------------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_neither_memory_nor_the_work_of_a_step_grows_over_epochs(clap, sets):
    with reproducible(CPU):
        trainer = Trainer(FinetuneConfig(learning_rate=1e-4), clap.model, *sets, CPU)

        def epoch(number):
            trainer.train_epoch(number)
            trainer.validate(number)

        def measured(number):
            with Operations() as operations:
                epoch(number)
            gc.collect()
            tensors = [value for value in gc.get_objects() if issubclass(type(value), torch.Tensor)]
            return operations.count, len(tensors), sum(tensor.nbytes for tensor in tensors)

        for number in range(1, 4):
            epoch(number)
        first, resident = measured(4), resident_bytes()
        for number in range(5, 25):
            epoch(number)
        grown = resident_bytes() - resident
        assert measured(25) == first  # operations of an epoch, tensors alive after it, and their bytes
    # What one epoch's graphs hold is some 10 MB: 20 of them, kept, would be far more.
    assert grown < 30_000_000


def test_a_result_that_is_released_is_read_again(clap, sets, tmp_path):
    result = run(clap, sets, tmp_path)
    weights = {name: values.clone() for name, values in result.model.state_dict().items()}
    assert result.release() is result and not result.held
    assert all(torch.equal(values, weights[name]) for name, values in result.model.state_dict().items())
    alone = run(clap, sets)
    model = alone.model
    assert alone.release().model is model  # nowhere else to read it from


# --- for everyone else
# --------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_transformers_alone_scores_with_it(corpus, clap, sets, tmp_path):
    """ClapModel and ClapProcessor, as anybody would use them, against the model in memory."""
    import soundfile

    pairs, root = corpus
    result = run(clap, sets, tmp_path)
    model = ClapModel.from_pretrained(result.checkpoint)
    processor = ClapProcessor.from_pretrained(result.checkpoint)
    samples = [soundfile.read(root / name, dtype="float32")[0] for name in pairs["audio"][:4]]
    inputs = processor.feature_extractor(samples, sampling_rate=8000, return_tensors="pt")
    tokens = processor.tokenizer(list(pairs["text"][:4]), padding=True, return_tensors="pt")
    theirs = model.get_audio_features(**inputs), model.get_text_features(**tokens)
    theirs = [getattr(output, "pooler_output", output) for output in theirs]
    trained = load_clap(result.checkpoint, device="cpu")
    clips, captions = [root / name for name in pairs["audio"][:4]], list(pairs["text"][:4])
    ours = trained.embed_audio(clips), trained.embed_text(captions)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, torch.nn.functional.normalize(other, dim=1).numpy(), atol=1e-5)


def test_a_laion_checkpoint_is_fine_tuned_and_goes_back_to_laion(tmp_path):
    """.pt -> ClapModel -> fine-tuning -> `humanclap convert --to laion`: the .pt then has the trained weights."""
    tokenizer = save_clap(tmp_path / "tokenizer")
    checkpoint = save_laion(small_laion(False), tmp_path / "laion.pt")
    folder = to_clapmodel(checkpoint, tmp_path / "base", tokenizer)
    clips = save_clips(tmp_path, seconds=(0.5, 1.0, 1.5, 2.0))
    pairs = pd.DataFrame({"audio": [Path(clip).name for clip in clips], "target": [0.1, 0.9, 0.4, 0.6]})
    pairs["text"] = ["a dog", "rain", "a bell", "a train"]
    config = FinetuneConfig(epochs=1, learning_rate=1e-3, batch_size=2, base=str(folder))
    root = Path(clips[0]).parent
    result = finetune(config, pairs[:2], pairs[2:], root, tmp_path / "run", device="cpu", progress=False)
    trained = tmp_path / "run" / "model"
    command = ["convert", str(trained), str(tmp_path / "back.pt"), "--to", "laion", "--base", str(checkpoint)]
    assert humanclap(command) == 0
    back, ours = clapmodel_state(read_weights([tmp_path / "back.pt"])[0]), result.model.state_dict()
    before = load_clap(folder, device="cpu").model.state_dict()
    shared = [name for name in ours if name in back and ours[name].is_floating_point()]
    assert all(torch.equal(back[name], ours[name]) for name in shared)
    changed = [name for name in shared if not torch.equal(ours[name], before[name])]
    assert len(changed) > len(shared) / 2


# --- the command line
# ---------------------------------------------------------------------------------------------


def arguments(corpus, out: Path, *more: str) -> list[str]:
    root = corpus[1]
    base = ["--base", str(root / "clap"), "--device", "cpu", "--epochs", "2", "--learning-rate", "1e-3"]
    return [str(root / "pairs.csv"), "--audio-root", str(root), "--out", str(out), *base, "--n-train", "24", *more]


def test_the_command_line_trains_what_finetune_trains(corpus, clap, tmp_path, capsys):
    pairs, root = corpus
    (tmp_path / "settings.yaml").write_text("kind: mse\nbatch_size: 6\ndropout: false\nseed: 5\n")
    more = ("--quiet", "--config", str(tmp_path / "settings.yaml"), "--seed", "3", "--cache", str(tmp_path / "cache"))
    assert main(arguments(corpus, tmp_path / "cli", *more)) == 0
    said = capsys.readouterr().out
    config = FinetuneConfig(
        kind="mse", batch_size=6, dropout=False, seed=3, epochs=2, learning_rate=1e-3, n_train=24,
        base=str(root / "clap"),
    )  # fmt: skip
    result = finetune(config, *split_pairs(pairs, config), root, tmp_path / "api", base=clap, progress=False)
    for name in ("history.csv", "model/model.safetensors"):
        assert (tmp_path / "cli" / name).read_bytes() == (tmp_path / "api" / name).read_bytes()
    assert json.loads((tmp_path / "cli" / "manifest.json").read_text())["config"] == config.to_dict()
    assert f"epoch {result.best_epoch} of 2 is the best" in said and "24 pairs train, 24 validate" in said
    assert main(arguments(corpus, tmp_path / "cli", *more)) == 2
    assert "already holds a fine-tuning" in capsys.readouterr().err
    assert main(arguments(corpus, tmp_path / "cli", *more, "--resume")) == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--kind", "nse"), "kind is 'nse'; allowed"),
        (("--validation", "nowhere.csv"), "there is no file nowhere.csv"),
        (("--config", "bad.yaml"), "bad.yaml: epoch; allowed: .*epochs"),
        (("--resume", "--overwrite"), "give one of them"),
    ],
)
def test_the_command_line_names_what_is_wrong(corpus, tmp_path, monkeypatch, capsys, more, says):
    import re

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("epoch: 3\n")
    assert main(arguments(corpus, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert re.search(says, error) and error.count("\n") == 1


@pytest.mark.slow
def test_accelerate_launches_it_in_two_processes(corpus, tmp_path):
    path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    # Accelerate has no launcher of several processes on CPUs without MPI; its launcher for GPUs starts any.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0", "-m", "humanclap.finetune"]
    settings = ("--quiet", "--dropout", "false")
    command = [*launch, *arguments(corpus, tmp_path / "two", *settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is the best") == 1  # the first process speaks
    assert main(arguments(corpus, tmp_path / "one", *settings)) == 0
    histories = [pd.read_csv(tmp_path / name / "history.csv") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*histories, rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["processes"] == 2
    assert not math.isnan(histories[0]["validation_loss"].iloc[-1])
