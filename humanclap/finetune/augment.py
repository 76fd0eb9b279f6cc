"""What LAION's package adds to a CLAP in training and transformers leaves out: SpecAugment and DropPath."""

from __future__ import annotations

import torch

TIME_WIDTH, TIME_STRIPES = 64, 2
MEL_WIDTH, MEL_STRIPES = 8, 2


class SpecAugment:
    """Stripes of 0 over frames and over mel bins, after the first batch norm, as in laion_clap's HTSAT.

    Each clip of a batch gets two stripes of 0 to 63 frames and two of 0 to 7 mel bins, the same in all channels
    (of fused features, the whole clip and its chunks). A stripe's width and place are uniform, drawn from the
    default generator of the features' device. Nothing is done while `active` is False.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.active = False
        self._handle = model.audio_model.audio_encoder.batch_norm.register_forward_hook(self._hook)

    def remove(self) -> None:
        """Take it off the model."""
        self._handle.remove()

    def _hook(self, module: torch.nn.Module, inputs: tuple, normalised: torch.Tensor) -> torch.Tensor | None:
        if not self.active:
            return None
        n_clips, n_mels, n_frames, _ = normalised.shape  # the batch norm sees mel bins as channels
        frames = kept(n_clips, n_frames, TIME_WIDTH, TIME_STRIPES, normalised.device)
        mels = kept(n_clips, n_mels, MEL_WIDTH, MEL_STRIPES, normalised.device)
        return normalised * (mels[:, :, None, None] & frames[:, None, :, None])


def kept(n_clips: int, length: int, width: int, stripes: int, device: torch.device) -> torch.Tensor:
    """Which of `length` places no stripe covers, bool `[n_clips, length]`.

    A stripe is 0 to `width` - 1 places wide and starts where it ends inside, as in torchlibrosa's DropStripes.
    """
    drawn = torch.rand(2, n_clips, stripes, 1, device=device)
    widths = (drawn[0] * min(width, length)).floor()
    starts = (drawn[1] * (length - widths)).floor()
    places = torch.arange(length, device=device)
    return ~((places >= starts) & (places < starts + widths)).any(dim=1)


class DropPath(torch.nn.Module):
    """In training, a residual branch `[N, ...]` is left out for a clip with probability `rate`, else scaled up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        """`[N, ...]` -> the same shape."""
        if not self.training:
            return branch
        shape = (len(branch), *[1] * (branch.ndim - 1))
        stays = torch.rand(shape, device=branch.device) >= self.rate
        return branch * stays / (1 - self.rate)


class DropPaths:
    """Rates of DropPath for the Swin blocks of the audio tower: from 0 in the first to `rate` in the last.

    So would `drop_path_rate` in the model's configuration do it, which stays as it is.
    """

    def __init__(self, model: torch.nn.Module, rate: float) -> None:
        blocks = [block for layer in model.audio_model.audio_encoder.layers for block in layer.blocks]
        self._before = [(block, block.drop_path) for block in blocks]
        for block, share in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
            block.drop_path = DropPath(share) if share > 0 else torch.nn.Identity()

    def train(self, active: bool) -> None:
        """Leave branches out from now on, or not."""
        for block, _ in self._before:
            block.drop_path.train(active)

    def remove(self) -> None:
        """Give the model's own back."""
        for block, own in self._before:
            block.drop_path = own
