"""The engine against a naive loop (naive_loop.py): the same losses, the same movement of the weights.

The tiny models are random and their clips are bursts of noise; the full-size ones are as large as LAION's."""

from __future__ import annotations

import dataclasses
import gc
import os
import warnings

import full_size
import naive_loop
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from transformers import ClapModel, ClapProcessor

from humanclap import demo, load_clap, losses
from humanclap.audio import load_audio
from humanclap.finetune import FinetuneConfig, finetune, prepare
from humanclap.finetune.train import Trainer, epoch_seeds, reproducible

STEPS = 20
SLOW_STEPS = int(os.environ.get("HUMANCLAP_NAIVE_STEPS", "4"))
"""Full-size steps in the slow tier, where two cores need 8 to 10 s for each, twice. All 20: HUMANCLAP_NAIVE_STEPS=20."""

LOSS_LIMIT, WEIGHT_LIMIT = 1e-5, 1e-2
CPU = torch.device("cpu")


# --- material -------------------------------------------------------------------------------------------


def rated_clips(root, texts, lengths, rate=16_000, seed=0):
    """A clip of noise for each of `lengths` (seconds), three to a caption, with ratings drawn from 0 to 10."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, seconds in enumerate(lengths):
        n = round(seconds * rate)
        envelope = np.interp(np.arange(n), np.linspace(0, n, 9), rng.uniform(0.02, 1, 9))
        colour = np.convolve(rng.standard_normal(n), rng.standard_normal(5), mode="same")
        soundfile.write(root / f"{number:02d}.wav", (0.1 * envelope * colour).clip(-1, 1), rate)
        rows.append({"audio": f"{number:02d}.wav", "text": texts[number // 3], "target": int(rng.integers(11)) / 10})
    return pd.DataFrame(rows)


def fixed_draws(patch):
    """transformers cuts long clips at random; humanclap at the start, or with fusion in the middle of each third."""
    patch.setattr(np.random, "randint", lambda low, high=None, size=None: 0)
    patch.setattr(np.random, "choice", lambda places: places[len(places) // 2])


def processed(folder, pairs, root, monkeypatch):
    """The processor's own inputs of all pairs, in one call, truncated as the checkpoint says."""
    processor = ClapProcessor.from_pretrained(folder)
    rate = processor.feature_extractor.sampling_rate
    clips = [load_audio(root / name, rate) for name in pairs["audio"]]
    assert any(len(clip) > processor.feature_extractor.nb_max_samples for clip in clips)  # else one is marked as longer
    with monkeypatch.context() as patch:
        fixed_draws(patch)
        features = processor.feature_extractor(clips, sampling_rate=rate, return_tensors="pt")
    tokens = processor.tokenizer(list(pairs["text"]), padding=True, return_tensors="pt")
    return {**features, **tokens}


def rows_of(inputs, target, order):
    """The batches of a plain loop: for each list of rows, what the model takes, and the scores."""
    for rows in order:
        yield {name: inputs[name][rows] for name in inputs}, target[rows]


def engine(config, clap, data, n_epochs, monkeypatch):
    """The engine's trainer after `n_epochs`, the rows of each of its steps, and the loss of each."""
    seen, honest = [], losses.human_clap_loss

    def noted(*arguments):
        terms = honest(*arguments)
        seen.append(float(terms["loss"].detach()))
        return terms

    monkeypatch.setattr(losses, "human_clap_loss", noted)
    trainer, order, means = Trainer(config, clap.model, data, data, CPU), [], []
    with reproducible(CPU):
        for epoch in range(1, n_epochs + 1):
            order += [batch.pairs.tolist() for batch in trainer.batches(epoch)]
            means.append(trainer.train_epoch(epoch)["loss"])
    sizes = np.array([len(rows) for rows in order])
    assert len(seen) == len(order)
    weighted = np.split(seen * sizes, n_epochs)
    np.testing.assert_allclose(means, [part.sum() / len(data) for part in weighted], rtol=1e-6)
    return trainer.model, order, seen


def movement(before, after):
    """Δθ as one vector in float64. Attention key biases stay out: softmax does not see them, rounding moves them."""
    names = [name for name in before if before[name].is_floating_point() and not name.endswith(".key.bias")]
    assert len(before) > len(names) > 50
    return torch.cat([(after[name].double() - before[name].double()).flatten() for name in names])


def require_equal(trained, step_losses, naive, naive_losses, before):
    """Both training targets of this file, and that there was something to compare."""
    np.testing.assert_allclose(step_losses, naive_losses, rtol=0, atol=LOSS_LIMIT)
    expected = movement(before, naive.state_dict())
    difference = (movement(before, trained.state_dict()) - expected).norm() / expected.norm()
    print(f"losses {np.abs(np.subtract(step_losses, naive_losses)).max():.1e}, weights {float(difference):.1e}")
    assert expected.norm() > 0 and difference <= WEIGHT_LIMIT


def copied_state(model):
    return {name: values.clone() for name, values in model.state_dict().items()}


# --- tiny -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def one_thread(request):
    """Threads only get into each other's way in a model this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def small(request, tmp_path_factory):
    """A stand-in of the demo's shape with 37 pairs: their clips are shorter and longer than its window of 1 s.

    It is pretrained for a moment: as initialised, all clips fall on one point, the gradients vanish, and Adam, which
    divides by their size, makes steps of the rounding.
    """
    root = tmp_path_factory.mktemp("small")
    shape = demo.ARCHITECTURES["laion-standin"]
    if request.param:  # transformers' fusion has 64 mel bins written into it
        shape = dataclasses.replace(shape, mel_bins=64)
    settings = demo.Pretraining(n_clips=200, clip_seconds=1, epochs=10, batch_size=32)
    (folder,) = demo.make_standins(root, progress=False, settings=settings, architectures={"standin": shape}).values()
    if request.param:
        folder = demo.fused_twin(folder, root / "fused")
    sounds = ("dog barks", "bell rings", "train passes", "man speaks")
    texts = [f"a {sound}{then}" for sound in sounds for then in ("", " and rain falls", " twice")]
    return folder, rated_clips(root, [*texts, "wind"], np.linspace(0.3, 2.2, 37)), root


def run_both(small, monkeypatch, kind, n_epochs, batch_size=8, dropout=False):
    folder, pairs, root = small
    clap = load_clap(folder, device="cpu")
    config = FinetuneConfig(kind=kind, learning_rate=1e-3, batch_size=batch_size, dropout=dropout, seed=3)
    data = prepare(clap, pairs, root, progress=False)
    trained, order, step_losses = engine(config, clap, data, n_epochs, monkeypatch)
    naive = ClapModel.from_pretrained(folder)
    before, inputs = copied_state(naive), processed(folder, pairs, root, monkeypatch)
    target = torch.tensor(pairs["target"].to_numpy(), dtype=torch.float32)
    return trained, order, step_losses, naive, before, inputs, target


@pytest.mark.parametrize("kind", ["wsce+mae", "wsce+mse", "wsce", "mse", "mae", "sce"])
def test_twenty_steps_at_1e_3_equal_a_naive_loop(small, monkeypatch, kind):
    """Four epochs of 37 pairs in batches of 8, the last of 5."""
    trained, order, step_losses, naive, before, inputs, target = run_both(small, monkeypatch, kind, n_epochs=4)
    assert [len(rows) for rows in order] == [8, 8, 8, 8, 5] * 4 and len(order) == STEPS
    naive_losses = naive_loop.train(naive, rows_of(inputs, target, order), kind, learning_rate=1e-3)
    require_equal(trained, step_losses, naive, naive_losses, before)


def test_twenty_steps_with_dropout_equal_a_naive_loop_that_draws_from_the_same_seed(small, monkeypatch):
    """Dropout draws for the clips in their order, then for the distinct captions in the order of the pairs' table."""
    parts = run_both(small, monkeypatch, "wsce+mae", n_epochs=4, dropout=True)
    trained, order, step_losses, naive, before, inputs, target = parts
    numbers = pd.factorize(small[1]["text"])[0]
    assert all(len(set(numbers[rows])) == len(rows) for rows in order)
    honest = naive_loop.embed

    def sorted_captions(model, batch):
        """`embed` with the captions by their number, cut to the longest, and put back in the batch's order."""
        step_rows = order[sorted_captions.step]
        sorted_captions.step += 1
        by_number = np.argsort(numbers[step_rows])
        width = int(batch["attention_mask"].sum(dim=1).max())
        cut = {name: batch[name][by_number, :width] for name in ("input_ids", "attention_mask")}
        audio, text = honest(model, {**batch, **cut})
        return audio, text[np.argsort(by_number)]

    sorted_captions.step = 0
    monkeypatch.setattr(naive_loop, "embed", sorted_captions)

    def seed(step):
        if step % 5 == 0:
            torch.manual_seed(epoch_seeds(3, step // 5 + 1)[1])

    with torch.random.fork_rng(devices=[]):
        batches = rows_of(inputs, target, order)
        naive_losses = naive_loop.train(naive, batches, "wsce+mae", 1e-3, dropout=True, before_step=seed)
    require_equal(trained, step_losses, naive, naive_losses, before)


def living_tensors():
    """How many tensors Python holds, and their bytes."""
    gc.collect()
    held = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    return len(held), sum(tensor.numel() * tensor.element_size() for tensor in held)


def test_what_a_training_holds_does_not_grow_over_epochs(small, monkeypatch):
    """After the second epoch, by when the optimizer has its state, each leaves as many tensors and bytes as it found."""
    folder, pairs, root = small
    clap, found = load_clap(folder, device="cpu"), []
    validate = Trainer.validate

    def noted(self, epoch):
        result = validate(self, epoch)
        found.append(living_tensors())
        return result

    monkeypatch.setattr(Trainer, "validate", noted)
    config = FinetuneConfig(epochs=8, learning_rate=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a caption stands on both sides
        finetune(config, pairs[:24], pairs[23:], root, root / f"growth-{folder.name}", base=clap, progress=False)
    assert len(found) == 9 and found[0] < found[1]
    assert len(set(found[2:])) == 1


# --- full size ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_size_steps_at_1e_5_equal_a_naive_loop(request, tmp_path_factory, tmp_path, real_ratings, monkeypatch):
    """HTSAT-tiny with fusion and RoBERTa at LAION's size, batch 8, RELATE's captions and lengths of clips."""
    torch.set_num_threads(os.cpu_count() or 1)
    root = full_size.session_folder(request, tmp_path_factory)
    captions = sorted(real_ratings["text"].unique())
    with full_size.serving(full_size.hub(root, captions)):
        folder = full_size.clapmodel_folder(root, fused=True)
    n_epochs = -(-SLOW_STEPS // 2)
    pairs = rated_clips(tmp_path, captions[::300], np.tile([10.0, 10.06, 10.24, 7.0], 4))
    clap = load_clap(folder, device="cpu")
    data = prepare(clap, pairs, tmp_path, progress=False)
    assert 0 < int(data.features["is_longer"].sum()) < 16
    config = FinetuneConfig(dropout=False)
    assert (config.learning_rate, config.batch_size, config.kind) == (1e-5, 8, "wsce+mae")
    trained, order, step_losses = engine(config, clap, data, n_epochs, monkeypatch)
    del clap
    naive = ClapModel.from_pretrained(folder)
    before, inputs = copied_state(naive), processed(folder, pairs, tmp_path, monkeypatch)
    target = torch.tensor(pairs["target"].to_numpy(), dtype=torch.float32)
    naive_losses = naive_loop.train(naive, rows_of(inputs, target, order), "wsce+mae", learning_rate=1e-5)
    assert len(order) == 2 * n_epochs and {len(rows) for rows in order} == {8}
    require_equal(trained, step_losses, naive, naive_losses, before)
