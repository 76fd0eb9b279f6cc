"""Every backend at full size, random weights in the published format: our numbers are the upstream package's own."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import full_size
import numpy as np
import pytest
import soundfile
import torch
from transformers import ClapModel, ClapProcessor

from humanclap import audio, load_clap, score_pairs
from humanclap.audio import decode_mono, load_audio
from humanclap.clap import embedder
from humanclap.files import sha256_of

pytestmark = pytest.mark.slow

LIMIT = 1e-5
"""Of 1 - cosine. Measured on a CPU: at most 1e-10 for audio and for text, by FFT and in other batches."""


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    return full_size.session_folder(request, tmp_path_factory)


@pytest.fixture(scope="module")
def captions(real_ratings):
    return sorted(real_ratings["text"].unique())


@pytest.fixture(scope="module", autouse=True)
def hub(folder, captions):
    root = full_size.hub(folder, captions)
    with full_size.serving(root):
        yield root


@pytest.fixture(scope="module")
def clips(tmp_path_factory, recordings):
    """0.5 s, 7 s, 10.24 s and 25 s at 16 kHz, and a real recording of 5.4 s at 48 kHz."""
    made = full_size.save_clips(tmp_path_factory.mktemp("clips"), seconds=(0.5, 7, 10.24, 25))
    return [*made, recordings / "dog.wav"]


@pytest.fixture(scope="module", params=["laion", "laion-fusion"])
def laion(request, folder, hub):
    """Our model and laion_clap's, of one checkpoint."""
    checkpoint = full_size.laion_checkpoint(folder, fused=request.param == "laion-fusion")
    clap = load_clap(request.param, checkpoint=checkpoint, device="cpu")
    return clap, full_size.upstream_laion(checkpoint, fused=clap.fused), checkpoint


@pytest.fixture(scope="module", params=["msclap-2022", "msclap-2023"])
def microsoft(request, folder, hub):
    """Our model and msclap's, of one checkpoint."""
    version = request.param.removeprefix("msclap-")
    checkpoint = full_size.msclap_checkpoint(folder, version)
    clap = load_clap(request.param, checkpoint=checkpoint, device="cpu")
    return clap, full_size.upstream_msclap(checkpoint, version), checkpoint


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def clapmodel(request, folder, hub):
    """Our model, and transformers' processor and model, of one folder."""
    path = full_size.clapmodel_folder(folder, fused=request.param)
    upstream = ClapModel.from_pretrained(path).eval(), ClapProcessor.from_pretrained(path)
    return load_clap(path, device="cpu"), *upstream


def _with(clap, **settings):
    """`clap` under other settings, without loading half a gigabyte anew."""
    _ = clap.model
    other = object.__new__(type(clap))
    other.__dict__.update(clap.__dict__, **settings)
    return other


# --- laion_clap -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_laion_upstream_is_the_packages_own_call_under_the_same_seed(laion, clips):
    clap, upstream, _ = laion
    state = np.random.get_state()
    np.random.seed(3)
    expected = upstream.get_audio_embedding_from_filelist([str(path) for path in clips])
    np.random.set_state(state)
    assert full_size.worst_angle(_with(clap, window="upstream", seed=3).embed_audio(clips), expected) < LIMIT
    seeds = [_with(clap, window="upstream", seed=seed).embed_audio(clips[3:4]) for seed in (3, 4)]
    assert full_size.worst_angle(*seeds) > 10 * LIMIT


@torch.no_grad()
def test_laion_default_is_the_package_with_its_draws_fixed(laion, clips, monkeypatch):
    """With fusion, long clips are flagged and short ones are not, each by itself; without, the beginning is heard."""
    clap, upstream, _ = laion
    if clap.fused:
        monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])
        expected = [upstream.get_audio_embedding_from_filelist([str(path)])[0] for path in clips]
        assert clap.audio_features(clips)["is_longer"].flatten().tolist() == [False, False, True, True, False]
    else:
        cuts = [audio.windows(load_audio(path, 48_000), 480_000, "first") for path in clips]
        expected = [upstream.get_audio_embedding_from_data(cut.copy())[0] for cut in cuts]
    assert full_size.worst_angle(clap.embed_audio(clips), np.stack(expected)) < LIMIT


@torch.no_grad()
def test_laion_captions_are_the_packages(laion, captions):
    """Padded to the longest in the batch, where the package always pads to 77; also one that it cuts."""
    clap, upstream, _ = laion
    texts = [*captions[:6], "Dog!", "a man speaks and " * 30]
    assert full_size.worst_angle(clap.embed_text(texts), upstream.get_text_embedding(texts)) < LIMIT
    slow = upstream.tokenize(captions[:500], padding=True, truncation=True, max_length=77)["input_ids"]
    assert clap.text_tokens(captions[:500])["input_ids"].tolist() == slow


# --- msclap ---------------------------------------------------------------------------------------------


def test_msclap_upstream_is_the_packages_own_call_under_the_same_seed(microsoft, clips, monkeypatch):
    """Every clip over 5 s or 7 s is cropped at random; all but the reading of files is msclap's."""
    import torchaudio

    clap, upstream, _ = microsoft
    monkeypatch.setattr(torchaudio, "load", full_size.soundfile_load)
    state = random.getstate()
    random.seed(3)
    expected = upstream.get_audio_embeddings([str(path) for path in clips]).numpy()
    random.setstate(state)
    assert full_size.worst_angle(_with(clap, window="upstream", seed=3).embed_audio(clips), expected) < LIMIT
    seeds = [_with(clap, window="upstream", seed=seed).embed_audio(clips[3:4]) for seed in (3, 4)]
    assert full_size.worst_angle(*seeds) > 10 * LIMIT


def test_msclap_windows_are_what_the_package_gives_for_them(microsoft, clips):
    import torchaudio

    clap, upstream, _ = microsoft
    n_samples, vectors = {"2022": 5, "2023": 7}[clap.version] * 44_100, {}
    some = [clips[0], clips[3]]
    for window in ("first", "center", "mean"):
        expected = []
        for path in some:
            mono, rate = decode_mono(path)
            waveform = torchaudio.transforms.Resample(rate, 44_100)(torch.from_numpy(mono)).numpy()
            cuts = audio.windows(waveform, n_samples, window, fill="repeat")
            parts = upstream._get_audio_embeddings(torch.from_numpy(cuts)[:, None]).numpy()
            expected.append(full_size.mean_direction(parts / np.linalg.norm(parts, axis=1, keepdims=True)))
        vectors[window] = _with(clap, window=window).embed_audio(some)
        assert full_size.worst_angle(vectors[window], np.stack(expected)) < LIMIT, window
    for one, other in (("first", "center"), ("first", "mean"), ("center", "mean")):  # or equality would show nothing
        assert full_size.worst_angle(vectors[one][1:], vectors[other][1:]) > 10 * LIMIT


def test_msclap_captions_are_the_packages_and_one_that_breaks_it_is_cut(microsoft, captions, caplog):
    """Padded to the longest in the batch, where msclap pads to the limit; 2023 pads with "!"."""
    clap, upstream, _ = microsoft
    texts = [*captions[:6], "Dogs bark!", "!", "A loud!! bang! then silence"]
    assert full_size.worst_angle(clap.embed_text(texts), upstream.get_text_embeddings(texts).numpy()) < LIMIT
    long = "a man speaks and " * 60
    with pytest.raises(RuntimeError):
        upstream.get_text_embeddings([captions[0], long])
    tokens = clap.text_tokens([captions[0], long])
    ids, mask = tokens["input_ids"], tokens["attention_mask"].bool()
    assert ids.shape == (2, clap.max_tokens) and ids[1, -1] == ids[0][mask[0]][-1]  # the end token
    assert f"reads only the first {clap.max_tokens} tokens" in caplog.text
    together, alone = clap.embed_text([captions[0], long])[:1], clap.embed_text([captions[0]])
    assert full_size.worst_angle(together, alone) < 1e-6


# --- transformers ---------------------------------------------------------------------------------------


def _tensor(output):
    return (output if isinstance(output, torch.Tensor) else output.pooler_output).numpy()


@torch.inference_mode()
def test_a_clapmodel_is_transformers_own_call(clapmodel, clips, captions, monkeypatch):
    clap, model, processor = clapmodel

    def upstream(waveforms):
        inputs = processor.feature_extractor(waveforms, sampling_rate=48_000, return_tensors="pt")
        return _tensor(model.get_audio_features(**inputs))

    waveforms = [load_audio(path, 48_000) for path in clips]
    for some in (slice(1, None), slice(2)):  # short clips alone, one of which a fused model takes for long
        state = np.random.get_state()
        np.random.seed(3)
        expected = upstream(waveforms[some])
        np.random.set_state(state)
        found = _with(clap, window="upstream", seed=3).embed_audio(clips[some])
        assert full_size.worst_angle(found, expected) < LIMIT
    if clap.fused:  # with long clips in the list no short one is marked
        assert clap.window == "fusion"
        monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])
        expected = upstream(waveforms)
    else:
        expected = upstream([audio.windows(waveform, 480_000, "first")[0] for waveform in waveforms])
    assert full_size.worst_angle(clap.embed_audio(clips), expected) < LIMIT
    inputs = processor.tokenizer(captions[:8], padding=True, return_tensors="pt")
    assert full_size.worst_angle(clap.embed_text(captions[:8]), _tensor(model.get_text_features(**inputs))) < LIMIT


# --- what all promise -----------------------------------------------------------------------------------


def _check_settings(clap, checkpoint, clips, captions):
    some, texts = clips[1:4], captions[:3]
    scores = [score_pairs(clap, some, texts, batch_size=n, progress=False)["cosine"] for n in (1, 2, 32)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    np.testing.assert_allclose(scores[0], scores[2], atol=1e-6)
    alone, low = load_clap(checkpoint, device="cpu"), _with(clap, precision="bf16")
    assert (alone.name, alone.window, alone.front_end) == (checkpoint.name, clap.window, clap.front_end)
    assert alone.checkpoint_sha256 == clap.checkpoint_sha256 == sha256_of(checkpoint)
    assert 1e-7 < full_size.worst_angle(low.embed_audio(clips[:2]), clap.embed_audio(clips[:2])) < 1e-2


def test_laion_batches_order_precision_and_a_file_without_a_name(laion, clips, captions):
    _check_settings(laion[0], laion[2], clips, captions)


def test_msclap_batches_order_precision_and_a_file_without_a_name(microsoft, clips, captions):
    _check_settings(microsoft[0], microsoft[2], clips, captions)


def test_another_model_and_weights_that_do_not_fit_are_named(microsoft, monkeypatch):
    """msclap itself loads what is there and leaves the rest random."""
    clap, _, checkpoint = microsoft
    other = {"msclap-2022": "msclap-2023", "msclap-2023": "msclap-2022"}[clap.name]
    with pytest.raises(ValueError, match=f"is MS CLAP {other[-4:]}, and .* is {clap.version}"):
        load_clap(other, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="holds no LAION CLAP: .* its names are audio_encoder"):
        load_clap("laion", checkpoint=checkpoint)
    key, read = "caption_encoder.projection.linear1.weight", embedder.read_weights

    def lacking(path):
        return ({k: v for k, v in read(path)[0].items() if k != key}, "0" * 64)

    monkeypatch.setattr(embedder, "read_weights", lacking)
    with pytest.raises(ValueError, match=rf"1 missing weight\(s\): {key}"):
        _ = load_clap(clap.name, checkpoint=checkpoint, device="cpu").model


def _statuses(clap, folder):
    hour = np.zeros(3_600 * 8_000, dtype=np.float32)
    hour[::1_000] = 0.3
    noise = 0.1 * np.random.default_rng(0).standard_normal((96_000, 8)).clip(-3, 3)
    files = {"hour.flac": (hour, 8_000), "8 channels.wav": (noise, 96_000), "odd rate.wav": (noise[:, 0], 44_101)}
    for name, (samples, rate) in files.items():
        soundfile.write(folder / name, samples, rate)
    return score_pairs(clap, [folder / name for name in files], ["rain"] * 3, progress=False)["status"].tolist()


def test_what_people_have_is_scored_by_laion(laion, tmp_path):
    """With fusion, all of the hour is heard."""
    assert _statuses(laion[0], tmp_path) == ["ok"] * 3


def test_what_people_have_is_scored_or_refused_with_a_reason_by_msclap(microsoft, tmp_path):
    statuses = _statuses(microsoft[0], tmp_path)
    assert statuses[:2] == ["ok"] * 2 and "44101 Hz can't be resampled" in statuses[2]


SURROUNDINGS = """
import logging, random, sys, warnings
import numpy as np, torch, transformers
import torch._dynamo  # which adds a class of its own to torch's allow-list
from humanclap import load_clap
assert not {"laion_clap", "clap_module", "msclap"} & set(sys.modules)
def around():
    return (
        list(sys.path), list(warnings.filters), random.getstate(), torch.is_grad_enabled(),
        np.random.get_state()[1].tolist(), np.random.get_state()[2], torch.random.get_rng_state().tolist(),
        logging.root.level, list(logging.root.handlers), transformers.utils.logging.get_verbosity(),
        set(torch.serialization.get_safe_globals()), torch.backends.cudnn.allow_tf32,
    )
before = around()
clap = load_clap(sys.argv[1], checkpoint=sys.argv[2], device="cpu")
clap.embed_text(["rain"]), clap.embed_audio([sys.argv[3]])
assert around() == before, [i for i, (a, b) in enumerate(zip(around(), before)) if a != b]
print("as before")
"""


@pytest.mark.parametrize("name", ["laion", "msclap-2023"])
def test_nothing_around_a_model_changes(folder, clips, hub, name, tmp_path):
    """In a fresh process, without a network, that looks at what changed while a model was loaded and used."""
    path = full_size.laion_checkpoint(folder) if name == "laion" else full_size.msclap_checkpoint(folder, "2023")
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    command = [sys.executable, "-c", SURROUNDINGS, name, str(path), str(clips[0])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "as before\n"), done.stderr
