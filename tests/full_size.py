"""Full-size checkpoints with random weights in the published formats, and a local hub for what they need.

The arithmetic of a random model is that of a trained one, so what upstream computes from these files is the
oracle for what we do. Everything is made once a session, in `session_folder`, and removed when it ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import struct
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

REVISIONS = {
    "roberta-base": "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
    "bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
    "facebook/bart-base": "aadd2ab0ae0c8268c7c9693540e9904811f36177",
    "gpt2": "0" * 40,  # no revision of it is known
}
LAION_FILES = {
    (False, False): "630k-audioset-best.pt",
    (True, False): "630k-audioset-fusion-best.pt",
    (False, True): "music_audioset_epoch_15_esc_90.14.pt",
}


def session_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for a session's big files, removed at its end."""
    folder = tmp_path_factory.getbasetemp() / "full-size"
    if not folder.exists():
        folder.mkdir()
        request.config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    return folder


# --- checkpoints ----------------------------------------------------------------------------------------


def laion_checkpoint(folder: Path, fused: bool = False, base: bool = False, seed: int = 0) -> Path:
    """A LAION `.pt` as published: training state with numpy scalars around a `module.`-prefixed state_dict.

    Needs `hub`. Built from laion_clap's own classes, about 0.6 GB (base 0.8 GB); once for each folder.
    """
    path = folder / f"laion-{seed}" / LAION_FILES[fused, base]
    if path.exists():
        return path
    module = upstream_laion(fused=fused, base=base)
    state = randomised(module.model, seed).state_dict()
    # Saved by the transformers of its time, where this was a buffer with a place in the file.
    state["text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    content = {
        "epoch": 15,
        "name": "random weights",
        "state_dict": OrderedDict((f"module.{key}", value) for key, value in state.items()),
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(1e-4), "params": [0, 1]}]},
        "scaler": {"scale": 65536.0, "_growth_tracker": np.int64(7)},
    }
    return _saved(content, path)


def msclap_checkpoint(folder: Path, version: str, seed: int = 0) -> Path:
    """An msclap `.pth` of version "2022" or "2023" as published: the weights under "model". Needs `hub`."""
    path = folder / f"msclap-{seed}" / f"CLAP_weights_{version}.pth"
    if path.exists():
        return path
    import yaml

    with upstream_packages():
        import msclap
        from msclap.models.clap import CLAP

    args = yaml.safe_load((Path(msclap.__file__).parent / "configs" / f"config_{version}.yml").read_text())
    names = ("audioenc_name", "window_size", "hop_size", "mel_bins", "fmin", "fmax", "out_emb", "text_model")
    settings = {name: args[name] for name in (*names, "transformer_embed_dim", "d_proj")}
    model = CLAP(**settings, sample_rate=args["sampling_rate"], classes_num=args["num_classes"])
    return _saved({"model": OrderedDict(randomised(model, seed).state_dict())}, path)


def clapmodel_folder(folder: Path, fused: bool = False, seed: int = 0) -> Path:
    """A `ClapModel` of LAION's size as `save_pretrained` writes it, with its front end. Needs `hub`."""
    target = folder / f"clapmodel-{'fused' if fused else 'unfused'}-{seed}"
    if (target / "model.safetensors").exists():
        return target
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizerFast

    audio = {"enable_fusion": fused, "fusion_type": "aff_2d" if fused else None, "enable_patch_layer_norm": True}
    model = ClapModel(ClapConfig(text_config={"layer_norm_eps": 1e-5}, audio_config=audio))
    extractor = ClapFeatureExtractor(
        feature_size=64, sampling_rate=48_000, hop_length=480, max_length_s=10, fft_window_size=1024,
        frequency_min=50, frequency_max=14_000, truncation="fusion" if fused else "rand_trunc",
    )  # fmt: skip
    extractor.save_pretrained(target)
    RobertaTokenizerFast.from_pretrained("roberta-base").save_pretrained(target)
    randomised(model, seed).save_pretrained(target)
    return target


def randomised(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """`model` with other weights in every layer, so that no clip, caption or statistic is alike another.

    As initialised, biases are 0, norms 1 and attention is flat: a mistake there would not show.
    """
    generator = torch.Generator().manual_seed(seed)
    fixed = ("spectrogram_extractor", "logmel_extractor", "position_ids", "token_type_ids", "_index", "mask")
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if not value.is_floating_point() or any(name in key for name in fixed):
                continue
            noise = torch.empty_like(value).normal_(generator=generator)
            if key.endswith("logit_scale") or "logit_scale_" in key:
                value.fill_(3.0)
            elif key.endswith("running_var"):
                value.copy_((1 + 0.3 * noise).clamp_min(0.2) * (300 if _is_first_norm(key) else 1))
            elif key.endswith("running_mean"):
                value.copy_(5 * noise - 30 if _is_first_norm(key) else 0.1 * noise)
            elif value.ndim > 1:
                value.copy_(noise / max(1, value[0].numel()) ** 0.5 * 1.5)
            elif key.endswith("weight"):
                value.copy_(1 + 0.2 * noise)
            else:
                value.copy_(0.2 * noise)
    return model.eval()


def _is_first_norm(key: str) -> bool:
    return ".bn0." in key or "audio_encoder.batch_norm." in key  # over mel bins, in dB


def _saved(content: dict, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


# --- the upstream packages, as a test needs them --------------------------------------------------------


@contextlib.contextmanager
def upstream_packages() -> Iterator[None]:
    """Import laion_clap or msclap in here: their changes to sys.path and the warnings filters are undone."""
    path = list(sys.path)
    with warnings.catch_warnings():
        yield
    sys.path[:] = path


def upstream_laion(checkpoint: Path | None = None, fused: bool = False, base: bool = False):
    """laion_clap's own CLAP_Module on the CPU, `checkpoint` loaded by its own `load_ckpt`. Needs `hub`."""
    with upstream_packages():
        from laion_clap import CLAP_Module

        module = CLAP_Module(enable_fusion=fused, device="cpu", amodel="HTSAT-base" if base else "HTSAT-tiny")
        if checkpoint is not None:
            module.load_ckpt(str(checkpoint), verbose=False)
    return module.eval()


def upstream_msclap(checkpoint: Path, version: str):
    """msclap's own CLAPWrapper on the CPU. It reads no file without torchcodec: see `soundfile_load`."""
    with upstream_packages():
        from msclap.CLAPWrapper import CLAPWrapper

        return CLAPWrapper(checkpoint, version=version, use_cuda=False)


def soundfile_load(path) -> tuple[torch.Tensor, int]:
    """What torchaudio.load returned when it could read files: `[channels, T]` and the rate."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(np.ascontiguousarray(samples.T)), rate


# --- a hub cache on disk --------------------------------------------------------------------------------


def hub(folder: Path, captions: Sequence[str]) -> Path:
    """A hub cache with roberta-base, bert-base-uncased, bart-base and gpt2, their tokenizers of `captions`.

    Their weights are zeros in files with holes: upstream opens them and then overwrites every one.
    """
    # Tests share the session's folder: other captions make other tokenizers, and so another cache.
    root = folder / f"hub-{hashlib.sha256(chr(10).join(captions).encode()).hexdigest()[:12]}"
    if root.exists():
        return root
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, RobertaConfig, RobertaModel

    roberta = RobertaConfig(max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
    models = {
        "roberta-base": (roberta, RobertaModel),
        "bert-base-uncased": (BertConfig(), BertModel),
        "gpt2": (GPT2Config(), GPT2Model),
    }
    for repository, revision in REVISIONS.items():
        place = root / f"models--{repository.replace('/', '--')}"
        snapshot = place / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(revision)
        limit = 1024 if repository == "gpt2" else 512
        (snapshot / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
        if repository == "bert-base-uncased":
            _save_wordpieces(snapshot, captions)
        else:
            _save_byte_pairs(snapshot, captions, gpt2=repository == "gpt2")
        if repository in models:
            config, kind = models[repository]
            config.save_pretrained(snapshot)
            with torch.device("meta"):
                shapes = {key: value.shape for key, value in kind(config).state_dict().items()}
            _save_zeros(snapshot / "model.safetensors", shapes)
    return root


@contextlib.contextmanager
def serving(root: Path) -> Iterator[None]:
    """Let huggingface_hub and transformers find `root` as their cache, offline, in this process."""
    import transformers.utils.hub
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(root))
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setattr(transformers.utils.hub, "TRANSFORMERS_CACHE", str(root), raising=False)
        yield


def _save_byte_pairs(folder: Path, captions: Sequence[str], gpt2: bool) -> None:
    from tokenizers import ByteLevelBPETokenizer

    specials = [] if gpt2 else ["<s>", "<pad>", "</s>", "<unk>"]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(captions, vocab_size=4_000, special_tokens=specials, show_progress=False)
    bpe.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    if gpt2 and vocabulary["!"] != 0:
        raise RuntimeError("gpt2 has '!' at id 0, which msclap counts tokens by")
    vocabulary["<|endoftext|>" if gpt2 else "<mask>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")


def _save_wordpieces(folder: Path, captions: Sequence[str]) -> None:
    from tokenizers import BertWordPieceTokenizer

    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(captions, vocab_size=4_000, show_progress=False)
    pieces.save_model(str(folder))


def _save_zeros(path: Path, shapes: dict[str, Sequence[int]]) -> None:
    """A safetensors file of float32 zeros that takes hardly any room on disk."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for key, shape in shapes.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


# --- comparing ------------------------------------------------------------------------------------------


def worst_angle(one: np.ndarray, other: np.ndarray) -> float:
    """The largest 1 - cosine of two sets of vectors, row by row, in float64."""
    one, other = (np.asarray(rows, dtype=np.float64) for rows in (one, other))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.max(1 - (one * other).sum(axis=1) / lengths))


def mean_direction(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors of one clip's windows `[W, D]` -> their mean's direction `[D]`."""
    total = np.asarray(vectors, dtype=np.float64).sum(axis=0)
    return total / np.linalg.norm(total)


# --- clips ----------------------------------------------------------------------------------------------


def save_clips(folder: Path, seconds: Sequence[float] = (0.5, 7, 10, 10.24, 25), rate: int = 16_000) -> list[Path]:
    """Clips of tones and noise that change all the time, so that no two windows of one sound alike."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, length in enumerate(seconds):
        rng = np.random.default_rng(number)
        time = np.arange(round(length * rate)) / rate
        tone = np.sin(2 * np.pi * (200 + 60 * number + 90 * time) * time)
        noise = rng.standard_normal(len(time)) * (0.5 + 0.5 * np.sin(2 * np.pi * 0.7 * time))
        paths.append(folder / f"{length}s.wav")
        soundfile.write(paths[-1], (0.3 * tone + 0.1 * noise).clip(-1, 1), rate)
    return paths
