"""Images through the whole pipeline: a folder of images, some of them unusable, and a csv file of their paths."""

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

import raymill
from cluster.errors import DataError
from trainer.data.prepare import prepare
from trainer.registry.registry import Registry
from trainer.tasks.load_spec import load_spec

COLORS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
CONFIG = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}


def picture(color, seed):
    draw = np.random.default_rng(seed)
    noise = draw.integers(-40, 40, (12, 16, 3)) + np.array(COLORS[color])
    sink = io.BytesIO()
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 40), ("test", 10)):
        for label, color in enumerate(COLORS):
            (root / part / color).mkdir(parents=True)
            for number in range(count):
                raw = picture(color, [count, label, number])
                (root / part / color / f"{number:02}.png").write_bytes(raw)
    (root / "train/red/zz_text.png").write_text("no image")
    (root / "train/red/zz_cut.png").write_bytes(picture("red", 0)[:-50])
    return root


def spec_of(pictures, storage, **sections):
    data = {"train": str(pictures / "train"), "test": str(pictures / "test"), "max_bad_fraction": 0.1}
    return {
        "name": "colors",
        "task": "image-classification",
        "data": {**data, "image": {"size": 12}, **sections.pop("data", {})},
        "model": {"config": CONFIG},
        "train": {
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 1e-2,
            "augment": {"crop": 1, "flip": True, "mixup": 0.1},
        },
        "storage": str(storage),
        **sections,
    }


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def outcome(pictures, storage):
    return raymill.run(spec_of(pictures, storage))


def test_the_outcome_and_its_files(outcome, storage):
    assert outcome.metrics["test"]["accuracy"] > 0.9
    folder = Registry(storage).find("colors").folder
    golden = json.loads((folder / "golden.json").read_text())
    assert golden["library"].startswith("the same pixels as transformers")
    assert base64.b64decode(golden["rows"][0]["raw"]).startswith(b"\x89PNG")
    assert json.loads((folder / "profile.json").read_text())["pixels"]["channels"][2]["mean"] > 0.2
    model = AutoModelForImageClassification.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=Image.open(io.BytesIO(picture("blue", 1))), return_tensors="pt")["pixel_values"]
    assert model.config.id2label[int(model(pixels).logits.argmax())] == "blue"


def test_bad_images_are_listed(outcome, storage):
    prepared = prepare.find_prepared(load_spec(storage / "runs" / Path(outcome.report).parent.name / "spec.yaml"))
    assert prepared.summary["quarantined"] == {
        "not an image in a known format (PNG, JPEG, WEBP, BMP, GIF, TIFF, AVIF)": 1,
        "truncated or damaged image": 1,
    }


def test_a_loaded_model_predicts(outcome, storage):
    raws = [picture("red", 7), picture("green", 8)]
    model = raymill.load("colors", storage=storage)
    assert [answer["label"] for answer in model.predict([base64.b64encode(raw).decode() for raw in raws])] == [
        "red",
        "green",
    ]
    assert [answer["label"] for answer in model.predict(raws)] == ["red", "green"]


def test_files_are_predicted_in_order_with_reasons(outcome, storage, tmp_path):
    (tmp_path / "flat").mkdir()
    for number, color in enumerate(["red", "blue", "green"]):
        (tmp_path / f"flat/{number}.png").write_bytes(picture(color, number))
    (tmp_path / "flat/1a.png").write_bytes(b"")
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image"], ["flat/2.png"], ["flat/none.png"], ["flat/0.png"]])
    predictions = {}
    for name in ("flat", "rows.csv"):
        raymill.predict("colors", str(tmp_path / name), str(tmp_path / "out.csv"), storage=storage)
        with (tmp_path / "out.csv").open(newline="") as file:
            predictions[name] = [
                (Path(row["path"]).name, row["prediction"], row["error"]) for row in csv.DictReader(file)
            ]
    assert predictions["flat"] == [
        ("0.png", "red", ""),
        ("1.png", "blue", ""),
        ("1a.png", "", "empty image"),
        ("2.png", "green", ""),
    ]
    assert predictions["rows.csv"] == [
        ("2.png", "green", ""),
        ("none.png", "", f"no file '{tmp_path / 'flat/none.png'}'"),
        ("0.png", "red", ""),
    ]


def csv_of(pictures, path):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "label"])
        for image in sorted((pictures / "train").rglob("*.png")):
            writer.writerow([image.relative_to(pictures), image.parent.name])
    return path


def test_ray_data_makes_the_same_shards_of_a_csv_of_paths(pictures, tmp_path):
    rows = csv_of(pictures, pictures / "rows.csv")
    shards = {}
    for with_ray in (False, True):
        data = {"train": str(rows), "columns": {"image": "photo"}}
        spec = load_spec(spec_of(pictures, tmp_path / str(with_ray), data=data))
        prepared = prepare.prepare_rows(spec, lambda _: None, tmp_path / "bad.parquet", with_ray=with_ray)
        shards[with_ray] = {path.name: path.read_bytes() for path in sorted(prepared.folder.rglob("*.arrow"))}
        assert prepared.part("train").inputs(0).dtype == np.uint8 and len(prepared.part("train").inputs(0)) == 432
    assert shards[False] == shards[True] and len(shards[True]) > 1


def test_a_changed_image_under_the_same_path_is_prepared_again(pictures, tmp_path):
    rows = csv_of(pictures, pictures / "again.csv")
    spec = load_spec(spec_of(pictures, tmp_path, data={"train": str(rows), "columns": {"image": "photo"}}))
    prepare.prepare_rows(spec, lambda _: None, tmp_path / "bad.parquet", with_ray=False)
    assert prepare.find_prepared(spec) is not None
    changed = pictures / "train/blue/00.png"
    before = changed.read_bytes()
    changed.write_bytes(picture("blue", 99))
    assert prepare.find_prepared(spec) is None
    changed.write_bytes(before)


def test_too_many_bad_images_stop_a_run(pictures, tmp_path):
    spec = load_spec(spec_of(pictures, tmp_path, data={"max_bad_fraction": 0.0}))
    with pytest.raises(DataError, match="not an image in a known format|truncated"):
        prepare.prepare_rows(spec, lambda _: None, tmp_path / "bad.parquet", with_ray=False)
