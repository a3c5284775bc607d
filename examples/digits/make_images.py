"""Write scikit-learn's 1,797 handwritten digits as PNG files, one folder per class, and hold out every fifth image.

python examples/digits/make_images.py [FOLDER]      (default: images/ beside this file)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

HERE = Path(__file__).parent


def main(folder: Path) -> None:
    """Write the images into `folder`/train and `folder`/test."""
    digits = load_digits()
    counts = {"train": 0, "test": 0}
    for number, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        part = "test" if number % 5 == 4 else "train"
        path = folder / part / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(values * 255 / 16).astype(np.uint8)).save(path)  # 8 x 8 pixels, 17 shades of gray
        counts[part] += 1
    print(f"{counts['train']} images in {folder / 'train'}, {counts['test']} in {folder / 'test'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "images")
