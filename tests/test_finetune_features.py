"""Features computed once and kept, windows drawn anew, and what LAION's package adds in training."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from finetune_small import CLIP_SECONDS, SAMPLE_RATE, make_clap, make_corpus

from humanclap.clap import load_clap
from humanclap.finetune import FinetuneConfig, Trainer, finetune, prepare
from humanclap.finetune.augment import MEL_WIDTH, TIME_WIDTH, DropPath, DropPaths, SpecAugment, kept
from humanclap.finetune.feature_cache import ArraySets
from humanclap.finetune.placement import take
from humanclap.finetune.repeat import reproducible
from humanclap.finetune.windows import DrawnWindows

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """48 rated tones; every third clip is longer than the models' window."""
    root = tmp_path_factory.mktemp("corpus")
    pairs = make_corpus(root)
    rng = np.random.default_rng(1)
    for name in pairs["audio"][::3]:
        samples = 0.2 * rng.standard_normal(int((CLIP_SECONDS + 1) * SAMPLE_RATE)).clip(-3, 3)
        soundfile.write(root / name, samples, SAMPLE_RATE, subtype="PCM_16")
    return pairs, root


@pytest.fixture(scope="module", params=["plain", "fused"])
def clap(request, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clap") / request.param
    return load_clap(make_clap(folder, corpus[0]["text"], fused=request.param == "fused"), device="cpu")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- the cache
# ----------------------------------------------------------------------------------------------------


def test_what_is_cached_is_what_was_computed(corpus, clap, tmp_path, monkeypatch):
    pairs, root = corpus
    plain = prepare(clap, pairs, root, progress=False)
    first = prepare(clap, pairs, root, progress=False, cache_dir=tmp_path / "cache")
    heard = []
    monkeypatch.setattr(type(clap), "audio_features", lambda self, paths: heard.append(paths))
    monkeypatch.setattr(type(clap), "text_tokens", lambda self, texts: heard.append(texts))
    again = prepare(clap, pairs, root, progress=False, cache_dir=tmp_path / "cache")
    assert not heard
    for data in (first, again):
        assert same(data.features, plain.features) and same(data.tokens, plain.tokens)
        assert data.sha256 == plain.sha256 and data.features["input_features"].dtype == torch.float32
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_the_cache_is_by_content(corpus, clap, tmp_path, monkeypatch):
    """Other names for the same clips are the same set; another clip, order or window is another one."""
    pairs, root = corpus
    made = []
    honest = ArraySets.get_or_make

    def counted(self, key, names, fill):
        def counting(allocate):
            made.append(names)
            fill(allocate)

        return honest(self, key, names, counting)

    monkeypatch.setattr(ArraySets, "get_or_make", counted)

    def features_made(pairs, root):
        made.clear()
        prepare(clap, pairs, root, progress=False, cache_dir=tmp_path / "cache")
        return sum("input_features" in names for names in made)

    pairs = pairs[:6]
    assert features_made(pairs, root) == 1 and features_made(pairs.assign(target=0.5), root) == 0
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in pairs["audio"]:
        shutil.copy(root / name, moved / f"x{name}")
    assert features_made(pairs.assign(audio="x" + pairs["audio"]), moved) == 0
    shutil.copy(root / "20.wav", moved / "x00.wav")
    assert features_made(pairs.assign(audio="x" + pairs["audio"]), moved) == 1
    assert features_made(pairs[::-1], root) == 1
    monkeypatch.setattr(clap._front_end, "window", "center")
    assert features_made(pairs, root) == 1


def test_a_damaged_set_is_made_again(corpus, clap, tmp_path, caplog):
    pairs, root = corpus
    cache = tmp_path / "cache"
    plain = prepare(clap, pairs[:4], root, progress=False, cache_dir=cache)
    expected = plain.features["input_features"].clone()
    file = next(cache.rglob("input_features.npy"))
    content = file.read_bytes()
    for damage in (content[: len(content) // 2], b"", None):
        file.unlink()
        if damage is not None:
            file.write_bytes(damage)
        data = prepare(clap, pairs[:4], root, progress=False, cache_dir=cache)
        assert torch.equal(data.features["input_features"], expected)
        assert "it is made again" in caplog.text
        caplog.clear()
    assert file.read_bytes() == content


def test_what_fails_halfway_leaves_nothing(tmp_path):
    cache = ArraySets(tmp_path)

    def fill(allocate):
        allocate("a", (3,), np.dtype("float32"))[:] = 1
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cache.get_or_make("ab12", ("a",), fill)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(ValueError, match="is a file; give a folder"):
        (tmp_path / "file").touch()
        ArraySets(tmp_path / "file")


def test_no_room_for_the_features_is_an_error_and_no_crash(tmp_path):
    """A mapped file whose pages find no room would end the process with SIGBUS."""
    cache = ArraySets(tmp_path)
    with pytest.raises(OSError, match=r"No space left|too large|Errno"):
        cache.get_or_make("ab12", ("a",), lambda allocate: allocate("a", (2**44,), np.dtype("float64")))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_features_are_kept_where_room_can_not_be_asked_for(tmp_path, monkeypatch):
    """macOS has no posix_fallocate."""
    monkeypatch.delattr("os.posix_fallocate", raising=False)

    def fill(allocate):
        allocate("a", (3,), np.dtype("float32"))[:] = 1

    assert ArraySets(tmp_path).get_or_make("ab12", ("a",), fill)["a"].tolist() == [1, 1, 1]


def test_two_that_make_one_set_at_once_both_get_it(tmp_path):
    cache, barrier, found = ArraySets(tmp_path), threading.Barrier(2), []

    def fill(allocate):
        array = allocate("a", (1000,), np.dtype("float32"))
        barrier.wait(timeout=30)
        array[:] = 7

    def work():
        found.append(cache.get_or_make("ab12", ("a",), fill)["a"])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and all((array == 7).all() for array in found)
    found[0][0] = 1  # copy on write: the file stays
    assert cache.get_or_make("ab12", ("a",), fill)["a"][0] == 7
    assert [path.name for path in (tmp_path / "ab").iterdir()] == ["ab12"]


def test_training_from_the_cache_is_the_same_training(corpus, clap, tmp_path):
    pairs, root = corpus
    config = FinetuneConfig(epochs=1, learning_rate=1e-3)
    settings = {"base": clap, "progress": False}
    plain = finetune(config, pairs[:24], pairs[24:], root, **settings)
    cached = finetune(config, pairs[:24], pairs[24:], root, cache_dir=tmp_path, **settings)
    pd.testing.assert_frame_equal(plain.history, cached.history, check_exact=True)
    assert same(plain.model.state_dict(), cached.model.state_dict())


def test_rows_are_taken_where_they_lie():
    values, rows = torch.arange(12.0).view(6, 2), torch.tensor([4, 0, 4])
    assert torch.equal(take(values, rows, CPU), values[rows])


# --- windows drawn in each epoch
# ----------------------------------------------------------------------------------------------------


def test_drawn_windows_follow_from_seed_and_epoch(corpus, clap):
    pairs, root = corpus
    data = prepare(clap, pairs[:9], root, progress=False)
    windows = DrawnWindows(clap, data)
    assert windows.clips.tolist() == [0, 3, 6]
    fixed = data.features["input_features"][windows.clips]
    first = windows.draw(seed=0, epoch=1)
    assert first.shape == fixed.shape and not torch.equal(first, fixed)
    assert torch.equal(windows.draw(0, 1), first)
    assert not torch.equal(windows.draw(0, 2), first) and not torch.equal(windows.draw(1, 1), first)
    if first.shape[1] == 4:  # the whole clip, shrunk, is not drawn; the chunks are
        assert torch.equal(first[:, 0], fixed[:, 0]) and not torch.equal(first[:, 1], fixed[:, 1])
    # A clip's draw does not depend on the others.
    alone = DrawnWindows(clap, prepare(clap, pairs[:1], root, progress=False))
    assert torch.equal(alone.draw(0, 1)[0], first[0])


def test_training_draws_anew_and_leaves_the_caller_s_features(corpus, clap):
    pairs, root = corpus
    sets = [prepare(clap, part, root, progress=False) for part in (pairs[:24], pairs[24:])]
    before = [data.features["input_features"].clone() for data in sets]
    settings = {"base": clap, "progress": False}
    config = FinetuneConfig(epochs=2, learning_rate=1e-3, windows="drawn")
    drawn, again = finetune(config, *sets, **settings), finetune(config, *sets, **settings)
    fixed = finetune(FinetuneConfig(epochs=2, learning_rate=1e-3), *sets, **settings)
    assert same(drawn.model.state_dict(), again.model.state_dict())
    assert not same(drawn.model.state_dict(), fixed.model.state_dict())
    assert drawn.history["validation_loss"][0] == fixed.history["validation_loss"][0]
    assert all(torch.equal(data.features["input_features"], old) for data, old in zip(sets, before, strict=True))


def test_windows_that_can_not_be_drawn_are_told(corpus, clap):
    pairs, root = corpus
    data = prepare(clap, pairs[:4], root, progress=False)
    from dataclasses import replace

    with pytest.raises(ValueError, match="do not say where they lie"):
        DrawnWindows(clap, replace(data, audio_root=None))
    with pytest.raises(TypeError, match="needs a base that draws windows"):
        DrawnWindows(object(), data)
    with pytest.raises(ValueError, match="config.windows is 'drawn'"):
        Trainer(FinetuneConfig(windows="drawn"), clap.model, data, data, CPU)


# --- SpecAugment and DropPath
# ----------------------------------------------------------------------------------------------------


def test_stripes_are_torchlibrosa_s():
    """Each place is as often left, and each number of places as often lost, as with the package LAION trains with."""
    from torchlibrosa.augmentation import DropStripes

    n, length, width = 4000, 100, 16
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = kept(n, length, width, 2, CPU)
        package = DropStripes(dim=2, drop_width=width, stripes_num=2).train()
        theirs = package(torch.ones(n, 1, length, 1))[:, 0, :, 0] > 0
    by_place = (ours.float().mean(0) - theirs.float().mean(0)).abs()
    assert by_place.max() < 5 * np.sqrt(2 * 0.25 / n)
    lost = [np.bincount((~mask).sum(1).numpy(), minlength=2 * width) for mask in (ours, theirs)]
    expected = np.maximum((lost[0] + lost[1]) / 2, 1)
    assert (np.abs(lost[0] - lost[1]) < 5 * np.sqrt(2 * expected)).all()
    assert lost[0].argmax() <= 2 * (width - 1) and len(lost[0]) == 2 * width


def test_spec_augment_is_on_in_training_only(corpus, clap):
    pairs, root = corpus
    data = prepare(clap, pairs[:8], root, progress=False)
    config = FinetuneConfig(spec_augment=True, dropout=False, learning_rate=1e-3)
    trainer = Trainer(config, clap.model, data, data, CPU)
    seen = []
    norm = trainer.model.audio_model.audio_encoder.batch_norm
    norm.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    with reproducible(CPU):
        trainer.train_epoch(1)
        trainer.validate(1)
    augmented, plain = seen[0], seen[-1]  # [clips, mels, frames, channels]
    lost = (augmented == 0).all(dim=3)
    assert not (plain == 0).any() and lost.any()
    frames, mels = lost.all(dim=1).sum(1), lost.all(dim=2).sum(1)
    assert frames.max() <= 2 * (TIME_WIDTH - 1) and mels.max() <= 2 * (MEL_WIDTH - 1)
    assert len({tuple(row.tolist()) for row in lost.flatten(1)}) == len(lost)  # each clip has stripes of its own
    model = trainer.finish()
    owners = [getattr(hook, "__self__", None) for hook in norm._forward_hooks.values()]
    assert not [owner for owner in owners if isinstance(owner, SpecAugment)]
    assert not model.training


def test_drop_path_rises_to_its_rate_and_comes_off(clap):
    blocks = [block for layer in clap.model.audio_model.audio_encoder.layers for block in layer.blocks]
    own = [block.drop_path for block in blocks]
    paths = DropPaths(clap.model, 0.3)
    assert isinstance(blocks[-1].drop_path, DropPath) and blocks[-1].drop_path.rate == pytest.approx(0.3)
    assert isinstance(blocks[0].drop_path, torch.nn.Identity)
    paths.train(True)
    ones = torch.ones(2000, 3, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = blocks[-1].drop_path(ones)
    per_clip = out.flatten(1)
    assert (per_clip == per_clip[:, :1]).all()  # a whole branch of a clip, or nothing of it
    assert sorted(set(per_clip[:, 0].tolist())) == pytest.approx([0, 1 / 0.7])  # as much as before, on average
    assert (per_clip[:, 0] == 0).float().mean().item() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / 2000))
    paths.train(False)
    assert torch.equal(blocks[-1].drop_path(ones), ones)
    paths.remove()
    assert [block.drop_path for block in blocks] == own


@pytest.mark.parametrize("setting", [{"spec_augment": True}, {"drop_path": 0.5}])
def test_augmented_training_is_repeatable_and_another(corpus, clap, setting):
    pairs, root = corpus
    sets = [prepare(clap, part, root, progress=False) for part in (pairs[:24], pairs[24:])]

    def trained(**settings):
        config = FinetuneConfig(epochs=1, learning_rate=1e-3, dropout=False, **settings)
        return finetune(config, *sets, base=clap, progress=False).model.state_dict()

    first = trained(**setting)
    assert same(first, trained(**setting)) and not same(first, trained())
    assert same(trained(**setting, towers="text"), trained(towers="text"))  # nothing to augment there
