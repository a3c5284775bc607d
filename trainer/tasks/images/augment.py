"""Random changes of images in training (`train.augment`, see `AugmentSpec` in trainer/spec/train.py).

Letters in shapes: B rows, C classes, K channels, H and W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainer.spec.train import AugmentSpec

if TYPE_CHECKING:
    import torch


def augment_images(
    pixels_BKHW: torch.Tensor, targets_B: torch.Tensor, spec: AugmentSpec, n_classes: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return shifted, mirrored and blended images and their targets. A `seed` has the same result on every device.

    Targets stay int64 (B,); with mixup they are shares of the classes, float (B, C).
    """
    rng = np.random.default_rng(seed)  # numpy's, because torch's generators differ by device
    if spec.crop or spec.flip:
        pixels_BKHW = _shift_and_mirror(pixels_BKHW, spec, rng)
    if spec.mixup:
        return _blend(pixels_BKHW, targets_B, spec.mixup, n_classes, rng)
    return pixels_BKHW, targets_B


def _shift_and_mirror(pixels_BKHW: torch.Tensor, spec: AugmentSpec, rng: np.random.Generator) -> torch.Tensor:
    """Return images shifted by up to `spec.crop` pixels and mirrored; pixels beyond the edge repeat the edge."""
    import torch

    n_rows, _, height, width = pixels_BKHW.shape
    down, right = rng.integers(-spec.crop, spec.crop + 1, size=(2, n_rows, 1))
    ys_BH = np.clip(np.arange(height) + down, 0, height - 1)
    xs_BW = np.clip(np.arange(width) + right, 0, width - 1)
    if spec.flip:
        xs_BW = np.where(rng.random((n_rows, 1)) < 0.5, xs_BW[:, ::-1], xs_BW)
    device = pixels_BKHW.device
    rows = torch.arange(n_rows, device=device)[:, None, None]
    ys, xs = torch.from_numpy(ys_BH).to(device), torch.from_numpy(xs_BW).to(device)
    moved_BHWK = pixels_BKHW.permute(0, 2, 3, 1)[rows, ys[:, :, None], xs[:, None, :]]
    return moved_BHWK.permute(0, 3, 1, 2)


def _blend(
    pixels_BKHW: torch.Tensor, targets_B: torch.Tensor, mixup: float, n_classes: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each image blended with another image of the batch, and the targets in the same shares (mixup)."""
    import torch

    device = pixels_BKHW.device
    n_rows = len(pixels_BKHW)
    partner = torch.from_numpy(rng.permutation(n_rows)).to(device)
    share_B = torch.from_numpy(rng.beta(mixup, mixup, n_rows)).to(device, pixels_BKHW.dtype)
    share = share_B[:, None, None, None]
    classes_BC = torch.nn.functional.one_hot(targets_B, n_classes).to(pixels_BKHW.dtype)
    return (
        pixels_BKHW * share + pixels_BKHW[partner] * (1 - share),
        classes_BC * share_B[:, None] + classes_BC[partner] * (1 - share_B[:, None]),
    )
