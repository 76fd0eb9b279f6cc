"""Fine-tuning against a loop written from the equations, and the promises of its documentation.

The CLAP is a tiny random ClapModel and the clips are synthetic tones; no number here says anything about
sound."""

from __future__ import annotations

import copy
import json
import math
import os
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from clap_folders import save_clap
from finetune_small import SAMPLE_RATE, make_clap, make_corpus
from naive_loop import equations
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel, ClapProcessor

from humanclap import losses
from humanclap.audio import AudioError
from humanclap.clap import load_clap
from humanclap.cli import main as humanclap
from humanclap.finetune import CONTROL_KIND, KINDS, FinetuneConfig, NonFiniteLoss, PairData, finetune, prepare
from humanclap.finetune.data import draw_batches, repeated_captions
from humanclap.finetune.train import Trainer, reproducible

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """48 rated tones, three to a caption, and the folder they lie in."""
    root = tmp_path_factory.mktemp("corpus")
    return make_corpus(root), root


@pytest.fixture(scope="module")
def clap(corpus, tmp_path_factory):
    folder = make_clap(tmp_path_factory.mktemp("clap") / "tiny", corpus[0]["text"])
    return load_clap(folder, device="cpu")


@pytest.fixture(scope="module")
def sets(corpus, clap):
    """24 pairs that train and 24 that validate, prepared, no caption on both sides."""
    pairs, root = corpus
    return prepare(clap, pairs[:24], root, progress=False), prepare(clap, pairs[24:], root, progress=False)


@pytest.fixture(scope="module")
def eight(corpus, clap):
    """Eight pairs with eight captions: one batch is all of them."""
    pairs, root = corpus
    return prepare(clap, pairs[::3][:8], root, progress=False)


def rated(data, value):
    """The same pairs, all rated `value`."""
    return replace(data, pairs=data.pairs.assign(target=value), target=torch.full((len(data),), float(value)))


def run(clap, sets, output_dir=None, **settings):
    config = FinetuneConfig(**{"epochs": 2, "learning_rate": 1e-3, **settings})
    return finetune(config, *sets, base=clap, output_dir=output_dir, progress=False)


def same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- the configuration ----------------------------------------------------------------------------------


def test_the_defaults_are_the_paper_s():
    config = FinetuneConfig()
    assert (config.kind, config.learning_rate, config.batch_size, config.epochs) == ("wsce+mae", 1e-5, 8, 50)
    assert (config.contrastive_weight, config.regression_weight) == (0.1, 1.0)
    assert (config.n_train, config.split_by, config.precision) == (1925, "caption", "auto")
    assert (*KINDS, CONTROL_KIND) == ("wsce+mse", "wsce+mae", "wsce", "mse", "mae", "sce")
    assert json.loads(json.dumps(asdict(FinetuneConfig(seed=np.int64(3)))))["seed"] == 3


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"kind": "mse+mae"}, "kind must be one of wsce.mse.*sce, not 'mse.mae'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ({"seed": True}, "seed must be a whole number"),
        ({"n_train": 1.5}, "a whole number of pairs or a share below 1, not 1.5"),
        ({"learning_rate": np.float64("nan")}, "learning_rate must be a number of at least 0, not nan"),
        ({"dropout": 0.1}, "dropout must be True or False, not 0.1"),
        ({"kind": "wsce", "batch_size": 1}, "zero for a single pair"),
        ({"contrastive_weight": 0, "regression_weight": 0}, "no loss left"),
    ],
)
def test_a_wrong_setting_is_named(setting, says):
    with pytest.raises(ValueError, match=says):
        FinetuneConfig(**setting)


# --- the data -------------------------------------------------------------------------------------------


def test_each_clip_and_caption_is_prepared_once(corpus, clap):
    pairs, root = corpus
    other = pairs[:6].assign(text=pairs["text"][10])
    data = prepare(clap, pd.concat([pairs[:6], other]).sample(frac=1, random_state=0), root, progress=False)
    assert len(data) == 12
    assert len(data.features["input_features"]) == 6 and len(data.tokens["input_ids"]) == 3
    assert list(data.pairs.columns) == ["audio", "text", "target"]
    extractor, tokenizer = ClapFeatureExtractor(**clap.front_end_parts.settings), clap.tokenizer
    for row, pair in data.pairs.iterrows():
        samples, _ = soundfile.read(root / pair["audio"], dtype="float32")
        expected = extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_features"][0]
        torch.testing.assert_close(data.features["input_features"][data.clip[row]], expected, atol=1e-3, rtol=0)
        ids, mask = (data.tokens[name][data.caption[row]] for name in ("input_ids", "attention_mask"))
        assert ids[mask.bool()].tolist() == tokenizer(pair["text"])["input_ids"]
        assert data.target[row].item() == pytest.approx(pair["target"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda pairs: pairs.drop(columns="target"), "pairs has no column target"),
        (lambda pairs: pairs[:0], "no pairs"),
        (lambda pairs: pairs.assign(target=np.nan), "4 of 4 rows have no target"),
        (lambda pairs: pairs.assign(target="high"), "such as 'high'"),
        (lambda pairs: pairs.assign(audio=[None, "b", "c", "d"]), "1 of 4 rows have no audio"),
    ],
)
def test_unfit_pairs_are_refused(corpus, clap, change, says):
    pairs, root = corpus
    with pytest.raises(ValueError, match=says):
        prepare(clap, change(pairs[:4]), root, progress=False)


def test_clips_that_can_not_be_used_are_all_named_before_training(corpus, clap, tmp_path):
    pairs, root = corpus
    with pytest.raises(FileNotFoundError, match=r"1 of 3 audio files are not there, the first is .*absent\.wav"):
        prepare(clap, pairs[:3].assign(audio=["00.wav", "absent.wav", "01.wav"]), root, progress=False)
    names = ["00.wav", "letter.wav", "02.wav", "empty.wav"]
    for name in ("00.wav", "02.wav"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (tmp_path / "letter.wav").write_text("Dear Sir or Madam")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match=r"letter\.wav: .*\(2 of 4 clips can't be used, also empty\.wav\)"):
        prepare(clap, pairs[:4].assign(audio=names), tmp_path, progress=False)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match=r"pipe\.wav: is a named pipe; it must be a file"):
        prepare(clap, pairs[:2].assign(audio=["00.wav", "pipe.wav"]), tmp_path, progress=False)


def test_a_clip_that_changes_while_it_is_read_is_not_used(corpus, clap, tmp_path, monkeypatch):
    pairs, root = corpus
    (tmp_path / "00.wav").write_bytes((root / "00.wav").read_bytes())
    honest = type(clap).audio_features

    def replaced(self, paths):
        found = honest(self, paths)
        (tmp_path / "00.wav").write_bytes((root / "07.wav").read_bytes())
        return found

    monkeypatch.setattr(type(clap), "audio_features", replaced)
    with pytest.raises(AudioError, match="it changed while it was read"):
        prepare(clap, pairs[:1], tmp_path, progress=False, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_cached_features_are_those_computed_and_found_by_content(corpus, tmp_path, monkeypatch):
    """Other names, ratings and orders of the same clips need no new features; another clip or window does."""
    pairs, root = corpus[0][:4], tmp_path / "clips"
    root.mkdir()
    clap = load_clap(make_clap(tmp_path / "clap", corpus[0]["text"], fused=True), device="cpu")
    for name in pairs["audio"]:
        (root / name).write_bytes((corpus[1] / name).read_bytes())
    soundfile.write(root / "00.wav", np.random.default_rng(0).uniform(-0.2, 0.2, 3 * SAMPLE_RATE), SAMPLE_RATE)
    plain, heard = prepare(clap, pairs, root, progress=False), []
    honest = type(clap).audio_features
    monkeypatch.setattr(type(clap), "audio_features", lambda self, paths: heard.extend(paths) or honest(self, paths))

    def n_heard(pairs):
        heard.clear()
        data = prepare(clap, pairs, root, progress=False, cache_dir=tmp_path / "cache")
        return len(heard), data

    for expected in (4, 0):
        n, data = n_heard(pairs)
        assert n == expected and data.sha256 == plain.sha256
        for name, values in plain.features.items():
            assert torch.equal(data.features[name], values) and data.features[name].dtype == values.dtype
    assert plain.features["is_longer"].flatten().tolist()[:2] == [True, False]
    n, data = n_heard(pairs[::-1].assign(target=0.5))
    assert n == 0 and torch.equal(data.features["input_features"], plain.features["input_features"].flip(0))
    renamed = pairs.assign(audio=pairs["audio"].replace("01.wav", "x.wav"))
    (root / "01.wav").rename(root / "x.wav")
    assert n_heard(renamed)[0] == 0
    (root / "x.wav").write_bytes((corpus[1] / "20.wav").read_bytes())
    assert n_heard(renamed)[0] == 1


def test_the_data_hash_covers_ratings_and_audio(corpus, clap, tmp_path):
    pairs, root = corpus
    pairs = pairs[:2]
    for name in pairs["audio"]:
        (tmp_path / name).write_bytes((root / name).read_bytes())
    first = prepare(clap, pairs, root, progress=False).sha256
    assert prepare(clap, pairs, tmp_path, progress=False).sha256 == first
    assert prepare(clap, pairs.assign(target=0.5), tmp_path, progress=False).sha256 != first
    (tmp_path / "00.wav").write_bytes((root / "07.wav").read_bytes())
    assert prepare(clap, pairs, tmp_path, progress=False).sha256 != first


# --- batches --------------------------------------------------------------------------------------------


def captions_only(captions):
    """PairData of which only the captions count."""
    ids = torch.ones(max(captions) + 1, 3, dtype=torch.long)
    index = torch.tensor(captions)
    blank = torch.zeros(len(captions))
    tokens = {"input_ids": ids, "attention_mask": ids}
    return PairData(pd.DataFrame(), {}, tokens, torch.arange(len(captions)), index, blank, "", "")


def batches_of(captions, batch_size=8, seed=0, distinct=True, drop_last=False):
    generator = torch.Generator().manual_seed(seed)
    return draw_batches(captions_only(captions), batch_size, generator, distinct, drop_last)


@pytest.mark.parametrize(
    "captions", [[i // 3 for i in range(60)], [i // 3 for i in range(29)], [0] * 5 + list(range(1, 36))]
)
def test_no_caption_stands_twice_in_a_batch(captions):
    plain_repeats = 0
    for seed in range(20):
        batches = batches_of(captions, seed=seed)
        assert sorted(torch.cat([batch.pairs for batch in batches]).tolist()) == list(range(len(captions)))
        assert [len(batch.pairs) for batch in batches[:-1]] == [8] * (len(batches) - 1)
        assert len(batches) == math.ceil(len(captions) / 8)
        for batch in batches:
            held = [captions[pair] for pair in batch.pairs]
            assert len(set(held)) == len(held)
            assert batch.captions[batch.caption_of].tolist() == held
            assert batch.clips.tolist() == batch.pairs.tolist()
        plain_repeats += repeated_captions(batches_of(captions, seed=seed, distinct=False))
    assert plain_repeats > 0  # without the switch it does happen


@pytest.mark.parametrize(
    ("captions", "batch_size", "unavoidable"),
    [([0] * 16, 8, 14), ([0] * 6 + list(range(1, 11)), 8, 4), ([0, 1] * 8, 8, 12), ([0, 0, 0, 1], 2, 1)],
)
def test_what_cannot_be_parted_stays_and_is_counted(captions, batch_size, unavoidable):
    for seed in range(10):
        batches = batches_of(captions, batch_size, seed)
        assert len(batches) == math.ceil(len(captions) / batch_size)
        assert sorted(torch.cat([batch.pairs for batch in batches]).tolist()) == list(range(len(captions)))
        assert repeated_captions(batches) == unavoidable


def test_every_pair_is_as_likely_to_meet_every_other():
    """The exchange must not leave a pattern: 12 captions of two clips, in batches of 4, met over 3,000
    draws."""
    captions = [i // 2 for i in range(24)]
    met = np.zeros((24, 24))
    for seed in range(3000):
        for batch in batches_of(captions, 4, seed):
            met[np.ix_(batch.pairs, batch.pairs)] += 1
    apart = met[np.not_equal.outer(captions, captions)]
    expected = 3000 * 3 / 22
    assert abs(apart.mean() - expected) < 1e-9
    assert np.abs(apart - expected).max() < 5 * math.sqrt(expected)  # counts within chance


def test_drop_last_leaves_out_only_a_short_batch():
    assert [len(batch.pairs) for batch in batches_of(list(range(20)), drop_last=True)] == [8, 8]
    assert [len(batch.pairs) for batch in batches_of(list(range(16)), drop_last=True)] == [8, 8]
    assert [len(batch.pairs) for batch in batches_of(list(range(5)), drop_last=True)] == [5]


def test_the_order_follows_from_seed_and_epoch(clap, sets):
    def order(trainer, epoch):
        return torch.cat([batch.pairs for batch in trainer.batches(epoch)]).tolist()

    one, again, other = (Trainer(FinetuneConfig(seed=seed), clap.model, *sets, CPU) for seed in (0, 0, 1))
    assert order(one, 3) == order(again, 3)
    assert order(one, 3) != order(one, 4) and order(one, 3) != order(other, 3)
    fixed = [torch.cat([batch.pairs for batch in trainer.validation_batches]).tolist() for trainer in (one, other)]
    assert fixed[0] == fixed[1]  # validation: the same batches for every seed, and no caption twice in one
    assert repeated_captions(one.validation_batches) == 0


# --- selection and history ------------------------------------------------------------------------------


def test_a_fused_model_trains_with_one_long_clip_in_the_batch(corpus, tmp_path):
    """The fusion block's batch norm could not take statistics of a single clip; frozen, it need not."""
    pairs, root = corpus
    clap = load_clap(make_clap(tmp_path / "fused", pairs["text"], fused=True), device="cpu")
    soundfile.write(tmp_path / "long.wav", 0.1 * np.sin(np.arange(3 * SAMPLE_RATE) * 0.3), SAMPLE_RATE)
    for name in pairs["audio"][:4]:
        (tmp_path / name).write_bytes((root / name).read_bytes())
    data = prepare(clap, pairs[:4].assign(audio=["long.wav", *pairs["audio"][1:4]]), tmp_path, progress=False)
    assert data.features["is_longer"].flatten().tolist() == [True, False, False, False]
    trainer = Trainer(FinetuneConfig(learning_rate=1e-3), clap.model, data, data, CPU)
    fusion = trainer.model.audio_model.audio_encoder.patch_embed.fusion_model
    before = copy.deepcopy(fusion.state_dict())
    with reproducible(CPU):
        trainer.train_epoch(1)
    after = fusion.state_dict()
    assert not torch.equal(before["local_att.0.weight"], after["local_att.0.weight"])
    assert torch.equal(before["local_att.1.running_mean"], after["local_att.1.running_mean"])


def test_the_lowest_validation_loss_wins_and_is_what_the_checkpoint_has(clap, corpus, sets, tmp_path):
    pairs, root = corpus
    result = run(clap, sets, tmp_path, kind="mae", epochs=6, learning_rate=3e-3)
    history = result.history
    assert (
        history["epoch"].tolist() == list(range(7)) and history.iloc[0][["train_loss", "negative_share"]].isna().all()
    )
    trained = history[history["epoch"] > 0].set_index("epoch")["validation_loss"]
    assert result.best_epoch == trained.idxmin() and trained.nunique() == 6
    assert [result.settings["data"][name]["pairs"] for name in ("train", "validation")] == [24, 24]

    reloaded = load_clap(result.checkpoint, device="cpu")
    validation = pairs[24:]
    for opened, epoch in ((clap, 0), (reloaded, result.best_epoch)):
        audio = opened.embed_audio([root / name for name in validation["audio"]])
        text = opened.embed_text(list(validation["text"]))
        cosine = (audio * text).sum(axis=1)
        score, target = np.maximum(cosine, 0), validation["target"]
        row = history.loc[epoch]
        assert (
            row["validation_loss"]
            == row["validation_regression"]
            == pytest.approx(abs(target - score).mean(), abs=1e-6)
        )
        assert row["validation_srcc"] == pytest.approx(pd.Series(score).corr(target.reset_index(drop=True), "spearman"))
        assert row["validation_negative_share"] == pytest.approx((cosine < 0).mean())
        assert np.isnan(row["validation_contrastive"])
    assert same_weights(result.model, reloaded.model)
    written = pd.read_csv(tmp_path / "history.csv")
    pd.testing.assert_frame_equal(written, history)


@pytest.mark.parametrize("kind", ["wsce", "sce", "wsce+mae"])
def test_the_validation_loss_is_that_of_batches_of_batch_size(clap, sets, kind):
    """Against the paper's equations, written out in naive_loop."""
    history = run(clap, sets, kind=kind, epochs=1, batch_size=8).history
    data, means = sets[1], []
    with torch.no_grad():
        for batch in Trainer(FinetuneConfig(), clap.model, *sets, CPU).validation_batches:
            clips, captions = data.clip[batch.pairs], data.caption[batch.pairs]
            audio = clap.encode_audio({name: values[clips] for name, values in data.features.items()})
            text = clap.encode_text({name: values[captions] for name, values in data.tokens.items()})
            tau = 1 / clap.model.logit_scale_a.exp()
            means.append(equations(audio, text, data.target[batch.pairs], tau, kind).item())
    assert len(means) == 3
    assert history["validation_loss"][0] == pytest.approx(np.mean(means), abs=1e-6)


def test_the_base_cannot_win(clap, sets):
    """Training towards 1 where validation wants 0 makes every epoch worse, and the result says so."""
    with pytest.warns(UserWarning, match="all 24 ratings of the validation pairs are 0: there is no validation SRCC"):
        result = run(clap, (rated(sets[0], 1.0), rated(sets[1], 0.0)), kind="mae", epochs=3)
    loss = result.history["validation_loss"]
    assert (loss[1:] > loss[0]).all() and not result.improved
    assert result.best_epoch == loss[1:].idxmin() >= 1
    assert result.history["validation_srcc"].isna().all()  # constant ratings have no ranks


# --- switches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_statistics_stay_when_frozen(clap, sets, frozen):
    norm = run(clap, sets, freeze_batch_norm=frozen, epochs=1).model.audio_model.audio_encoder.batch_norm
    base = clap.model.audio_model.audio_encoder.batch_norm
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(norm, name), getattr(base, name)) == frozen
    assert not torch.equal(norm.weight, base.weight)  # scale and shift train in both cases


@pytest.mark.parametrize(("towers", "still"), [("audio", "text"), ("text", "audio")])
def test_only_the_chosen_tower_trains(clap, sets, towers, still):
    trained, base = run(clap, sets, towers=towers).model.state_dict(), clap.model.state_dict()
    assert all(torch.equal(trained[name], base[name]) for name in base if name.startswith(still))
    assert not torch.equal(trained[f"{towers}_projection.linear1.weight"], base[f"{towers}_projection.linear1.weight"])


@pytest.mark.parametrize(("start", "learnt"), [(150.0, True), (0.5, True), (150.0, False)])
def test_a_logit_scale_that_is_learnt_is_kept_within_1_to_100(clap, sets, start, learnt):
    """A base may come with a scale outside; the first step takes it to the bound, and one that is fixed stays."""
    model = copy.deepcopy(clap.model)
    model.logit_scale_a.data.fill_(math.log(start))
    config = FinetuneConfig(kind="wsce", learning_rate=1e-9, learn_temperature=learnt)
    trainer = Trainer(config, model, *sets, CPU)
    assert trainer.temperature == pytest.approx(1 / start, rel=1e-6)
    with reproducible(CPU):
        trainer.train_epoch(1)
    expected = min(max(start, 1.0), 100.0) if learnt else start
    assert trainer.temperature == pytest.approx(1 / expected, rel=1e-6)
    assert torch.equal(trainer.model.logit_scale_t, model.logit_scale_t)  # it has no part in the loss
    assert learnt or torch.equal(trainer.model.logit_scale_a, model.logit_scale_a)


@pytest.mark.parametrize(
    ("settings", "where", "step"),
    [
        ({}, "logit_scale_a", 1),
        ({"kind": "mae"}, "audio_projection.linear2.weight", 2),
        ({"learn_temperature": False}, "audio_projection.linear2.weight", 2),
    ],
)
def test_a_finite_loss_with_a_broken_gradient_stops_at_that_step_or_the_next(clap, sets, settings, where, step):
    """At the next one where it passes by the temperature."""
    trainer = Trainer(FinetuneConfig(learning_rate=1e-3, **settings), clap.model, *sets, CPU)
    trainer.model.get_parameter(where).register_hook(lambda gradient: gradient * math.nan)
    with reproducible(CPU), pytest.raises(NonFiniteLoss, match=f"epoch 1, step {step} of 3"):
        trainer.train_epoch(1)


def test_weight_decay_reaches_matrices_only(clap, sets):
    trainer = Trainer(FinetuneConfig(weight_decay=0.5), clap.model, *sets, CPU)
    name_of = {id(values): name for name, values in trainer.model.named_parameters()}
    decayed, plain = (
        {name_of[id(values)] for values in group["params"]}
        for group in sorted(trainer.optimizer.param_groups, key=lambda group: -group["weight_decay"])
    )
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.5, 0.0}
    assert {"text_projection.linear1.weight", "audio_model.audio_encoder.patch_embed.proj.weight"} <= decayed
    encoder = "audio_model.audio_encoder"
    position_bias = f"{encoder}.layers.0.blocks.0.attention.self.relative_position_bias_table"
    assert {"logit_scale_a", f"{encoder}.norm.weight", f"{encoder}.batch_norm.weight", position_bias} <= plain
    assert not any(name.endswith(".bias") for name in decayed)
    assert decayed | plain == set(name_of.values()) - {"logit_scale_t"}


# --- the same again, and nothing disturbed --------------------------------------------------------------


def test_two_runs_are_equal_to_the_last_bit(clap, corpus, sets, tmp_path):
    pairs, root = corpus
    first = run(clap, sets, tmp_path / "first")
    torch.rand(3)
    config = FinetuneConfig(epochs=2, learning_rate=1e-3)
    second = finetune(config, pairs[:24], pairs[24:], root, tmp_path / "second", base=clap, progress=False)
    assert first.checkpoint == tmp_path / "first" / "model"
    for name in ("history.csv", "model/model.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    other = run(clap, sets, seed=1)
    assert not same_weights(first.model, other.model) and same_weights(first.model, second.model)


def test_gradients_are_summed_in_one_order_whatever_the_threads():
    """The gradient of a position bias of HTSAT's size, 64 x 64 places and 32 heads, which threads would
    share."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(225, 32, generator=generator, requires_grad=True)
    places, weight = (
        torch.randint(0, 225, (4096,), generator=generator),
        torch.randn(4096, 32, generator=generator),
    )
    torch.set_num_threads(2)
    try:
        with reproducible(CPU):
            grads = [torch.autograd.grad((table[places] * weight).sum(), table)[0] for _ in range(20)]
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(grad, grads[0]) for grad in grads)


def test_random_state_settings_and_base_stay_as_they_were(clap, sets):
    weights, mode = copy.deepcopy(clap.model.state_dict()), clap.model.training
    torch.manual_seed(5), np.random.seed(5)
    torch.set_num_threads(2)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert run(clap, sets).settings["threads"] == 1  # a small model uses one
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), torch_state) and (np.random.get_state()[1] == numpy_state).all()
    assert not torch.are_deterministic_algorithms_enabled() and torch.is_grad_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert clap.model.training == mode
    assert all(torch.equal(weights[name], values) for name, values in clap.model.state_dict().items())


# --- what is written ------------------------------------------------------------------------------------


def test_the_checkpoint_opens_in_transformers(clap, corpus, sets, tmp_path):
    pairs, root = corpus
    result = run(clap, sets, tmp_path, epochs=1)
    model = ClapModel.from_pretrained(result.checkpoint)
    processor = ClapProcessor.from_pretrained(result.checkpoint)
    assert same_weights(model, result.model)
    ids = AutoTokenizer.from_pretrained(result.checkpoint)(pairs["text"][0])["input_ids"]
    assert processor.tokenizer(pairs["text"][0])["input_ids"] == ids == clap.tokenizer(pairs["text"][0])["input_ids"]
    assert load_clap(result.checkpoint, device="cpu").front_end == clap.front_end
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock")
    assert left == ["history.csv", "model", "settings.json", "validation.csv"]
    assert "Human-CLAP, wsce+mae" in (result.checkpoint / "README.md").read_text()
    mode = (tmp_path / "history.csv").stat().st_mode
    assert {path.stat().st_mode for path in result.checkpoint.iterdir()} == {mode}  # as the umask says
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings == result.settings
    assert settings["base"]["checkpoint_sha256"] == clap.checkpoint_sha256
    assert settings["data"]["train"] == {"pairs": 24, "sha256": sets[0].sha256}
    assert settings["status"] == "finished" and settings["best_epoch"] == 1


def test_a_run_is_not_overwritten_unasked(clap, sets, tmp_path):
    first = run(clap, sets, tmp_path, epochs=1)
    with pytest.raises(FileExistsError, match="already holds a fine-tuning .*overwrite=True"):
        run(clap, sets, tmp_path, epochs=1, seed=1)
    assert same_weights(load_clap(tmp_path / "model", device="cpu").model, first.model)
    config = FinetuneConfig(epochs=1, learning_rate=1e-3, seed=1)
    second = finetune(config, *sets, base=clap, output_dir=tmp_path, progress=False, overwrite=True)
    assert same_weights(load_clap(tmp_path / "model", device="cpu").model, second.model)
    assert not same_weights(first.model, second.model)


def test_nan_in_the_features_stops_at_once(clap, sets):
    train, validation = sets
    broken = train.features["input_features"].clone()
    broken[7, 0, 3, 2] = math.nan
    train = PairData(**{**vars(train), "features": {**train.features, "input_features": broken}})
    trainer = Trainer(FinetuneConfig(learning_rate=1e-3), clap.model, train, validation, CPU)
    step = next(i for i, batch in enumerate(trainer.batches(1), start=1) if 7 in batch.pairs)
    with pytest.raises(
        NonFiniteLoss, match=rf"the loss is nan in epoch 1, step {step} of 3 .*no model to keep"
    ) as stop:
        run(clap, (train, validation))
    assert stop.value.result is None


def test_a_loss_that_becomes_nan_keeps_the_best_model(clap, eight, sets, tmp_path, monkeypatch):
    calls, honest = [], losses.human_clap_loss

    def loss_of(*args):
        calls.append(args)
        terms = honest(*args)
        # One step and three validation batches an epoch, and epoch 0 only validates: this is the step of
        # epoch 3.
        return {**terms, "loss": terms["loss"] * (math.nan if len(calls) == 3 + 4 + 4 + 1 else 1)}

    monkeypatch.setattr(losses, "human_clap_loss", loss_of)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # shared captions are no matter here
        with pytest.raises(NonFiniteLoss, match=r"nan in epoch 3, step 1 of 1 .*of epoch [12], is in .*model") as stop:
            run(clap, (eight, sets[1]), tmp_path, epochs=9)
    kept = stop.value.result
    assert len(pd.read_csv(tmp_path / "history.csv")) == 3
    assert same_weights(load_clap(tmp_path / "model", device="cpu").model, kept.model)
    assert "stopped: the loss is nan" in json.loads((tmp_path / "settings.json").read_text())["status"]


# --- what is asked of the caller ------------------------------------------------------------------------


def test_unfit_arguments_are_named(clap, corpus, sets):
    pairs, _ = corpus
    with pytest.raises(ValueError, match="audio_root is None"):
        finetune(FinetuneConfig(), pairs[:4], pairs[4:], base=clap, progress=False)
    with pytest.raises(ValueError, match="precision 'fp16' needs a GPU; allowed here: 'auto', 'fp32' and 'bf16'"):
        run(clap, sets, precision="fp16")
    with pytest.raises(TypeError, match="only a transformers ClapModel can be fine-tuned"):
        finetune(FinetuneConfig(), *sets, base=object(), progress=False)
    other = PairData(**{**vars(sets[0]), "front_end": "another"})
    with pytest.raises(ValueError, match="train_pairs were prepared with another front end"):
        finetune(FinetuneConfig(), other, sets[1], base=clap, progress=False)


def test_captions_on_both_sides_and_repeated_in_a_batch_warn(clap, sets):
    train, validation = sets
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(clap, sets, epochs=1).settings["data"]["shared"] == {"pairs": 0, "captions": 0, "clips": 0}
    moved_pairs = validation.pairs.assign(text=train.pairs["text"][0])
    mixed = PairData(**{**vars(validation), "pairs": moved_pairs})
    with pytest.warns(UserWarning, match="0 pairs and 1 captions are in both the training and the validation set"):
        result = run(clap, (train, mixed), epochs=1)
    assert result.settings["data"]["shared"]["captions"] == 1
    with pytest.warns(UserWarning, match="of 24 training pairs have to share a batch of 16"):
        run(clap, sets, epochs=1, batch_size=16)


def test_a_window_policy_without_fixed_features_is_refused(corpus, clap, monkeypatch):
    monkeypatch.setattr(clap, "window", "mean")
    with pytest.raises(ValueError, match="window='mean'.*open the base with"):
        prepare(clap, *corpus, progress=False)


# --- precision, and LAION's format ----------------------------------------------------------------------


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


def test_float32_is_not_rounded_to_tf32_and_the_flags_come_back(clap, sets):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    seen = []
    with reproducible(CPU):
        trainer = Trainer(FinetuneConfig(), clap.model, *sets, CPU)
        trainer.train_epoch(1, lambda step, loss: seen.append((cudnn.allow_tf32, matmul.allow_tf32)))
    assert set(seen) == {(False, False)} and (cudnn.allow_tf32, matmul.allow_tf32) == before


@pytest.mark.extra("laion")
def test_a_laion_checkpoint_is_fine_tuned_and_goes_back_to_laion(tmp_path):
    """.pt -> ClapModel -> fine-tuning -> .pt -> ClapModel, by `humanclap convert`: all trained weights are there."""
    from full_size import save_clips
    from laion_small import save_laion, small_laion

    tokenizer = save_clap(tmp_path / "tokenizer")
    checkpoint = save_laion(small_laion(False), tmp_path / "laion.pt")
    to_transformers = ["--to", "clapmodel", "--tokenizer", str(tokenizer)]
    assert humanclap(["convert", str(checkpoint), str(tmp_path / "base"), *to_transformers]) == 0
    clips = save_clips(tmp_path, seconds=(0.5, 1.0, 1.5, 2.0))
    pairs = pd.DataFrame({"audio": [Path(clip).name for clip in clips], "target": [0.1, 0.9, 0.4, 0.6]})
    pairs["text"] = ["a dog", "rain", "a bell", "a train"]
    config = FinetuneConfig(epochs=1, learning_rate=1e-3, batch_size=2, base=str(tmp_path / "base"))
    root = Path(clips[0]).parent
    result = finetune(config, pairs[:2], pairs[2:], root, tmp_path / "run", device="cpu", progress=False)
    back = ["convert", str(result.checkpoint), str(tmp_path / "back.pt"), "--to", "laion", "--base", str(checkpoint)]
    assert humanclap(back) == 0
    assert humanclap(["convert", str(tmp_path / "back.pt"), str(tmp_path / "again"), *to_transformers]) == 0
    before, again = (load_clap(tmp_path / name, device="cpu").model.state_dict() for name in ("base", "again"))
    trained = result.model.state_dict()
    assert all(torch.equal(again[name], values) for name, values in trained.items())
    changed = [name for name in trained if not torch.equal(trained[name], before[name])]
    assert len(changed) > len(trained) / 2
