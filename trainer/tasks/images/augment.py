"""Images changed at random while training. Letters in shapes: B rows, C classes, K channels, H and W pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainer.spec.train import Augment

if TYPE_CHECKING:
    import torch


def augment(
    pixels_BKHW: torch.Tensor, targets_B: torch.Tensor, how: Augment, n_classes: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return shifted, mirrored and blended images and their targets, the same for the same `seed` on every device.

    Targets stay int64 (B,); with mixup they are shares of the classes, float (B, C).
    """
    draw = np.random.default_rng(seed)  # of numpy, as torch's generators differ by device
    if how.crop or how.flip:
        pixels_BKHW = _moved(pixels_BKHW, how, draw)
    if how.mixup:
        return _blended(pixels_BKHW, targets_B, how.mixup, n_classes, draw)
    return pixels_BKHW, targets_B


def _moved(pixels_BKHW: torch.Tensor, how: Augment, draw: np.random.Generator) -> torch.Tensor:
    """Each pixel is taken from the place that the shift and the mirror put there; beyond the edge, from the edge."""
    import torch

    n_rows, _, height, width = pixels_BKHW.shape
    down, right = draw.integers(-how.crop, how.crop + 1, size=(2, n_rows, 1))
    ys_BH = np.clip(np.arange(height) + down, 0, height - 1)
    xs_BW = np.clip(np.arange(width) + right, 0, width - 1)
    if how.flip:
        xs_BW = np.where(draw.random((n_rows, 1)) < 0.5, xs_BW[:, ::-1], xs_BW)
    device = pixels_BKHW.device
    rows = torch.arange(n_rows, device=device)[:, None, None]
    ys, xs = torch.from_numpy(ys_BH).to(device), torch.from_numpy(xs_BW).to(device)
    moved_BHWK = pixels_BKHW.permute(0, 2, 3, 1)[rows, ys[:, :, None], xs[:, None, :]]
    return moved_BHWK.permute(0, 3, 1, 2)


def _blended(
    pixels_BKHW: torch.Tensor, targets_B: torch.Tensor, mixup: float, n_classes: int, draw: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    device = pixels_BKHW.device
    n_rows = len(pixels_BKHW)
    partner = torch.from_numpy(draw.permutation(n_rows)).to(device)
    share_B = torch.from_numpy(draw.beta(mixup, mixup, n_rows)).to(device, pixels_BKHW.dtype)
    share = share_B[:, None, None, None]
    classes_BC = torch.nn.functional.one_hot(targets_B, n_classes).to(pixels_BKHW.dtype)
    return (
        pixels_BKHW * share + pixels_BKHW[partner] * (1 - share),
        classes_BC * share_B[:, None] + classes_BC[partner] * (1 - share_B[:, None]),
    )
