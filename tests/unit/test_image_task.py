"""The task of images: contract, inputs, models, augmentation."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from cluster.errors import DataError, ModelError, SpecError
from trainer.models.new_model import as_new_model
from trainer.spec.data import ImageSpec
from trainer.spec.run import RunSpec
from trainer.spec.train import AugmentSpec
from trainer.tasks import catalog as task_catalog
from trainer.tasks import load_spec
from trainer.tasks.encoder import list_offsets
from trainer.tasks.fitting import fit_target
from trainer.tasks.images.augment import augment_images
from trainer.tasks.images.preprocessor import step_params

RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
VIT = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
       "patch_size": 8}  # fmt: skip
CONVNEXT = {"model_type": "convnext", "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}


def spec_of(**sections):
    data = {"train": "pictures", **sections.pop("data", {})}
    return RunSpec.model_validate({"name": "x", "task": "image-classification", "data": data, **sections})


def picture(seed, size=(50, 40)):
    values = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).save(sink, "PNG")
    return sink.getvalue()


def make_task(spec, folder):
    task = task_catalog.get_task("image-classification")
    task.check_spec(spec)
    return task, fit_target(task, task.make_contract(spec, folder), {"cat": 2, "dog": 3})


@pytest.mark.parametrize("config", [RESNET, VIT, CONVNEXT], ids=lambda config: config["model_type"])
@pytest.mark.parametrize("mode", ["rgb", "gray"])
def test_models_from_a_config_train_and_are_read_by_transformers(config, mode, tmp_path):
    spec = spec_of(data={"image": {"size": 32, "mode": mode}}, model={"config": config})
    task, contract = make_task(spec, tmp_path)
    encoder = task.encoder(contract, tmp_path)
    raws = [picture(seed) for seed in range(4)]
    inputs, reasons = encoder.encode_block(pa.table({"image": pa.array(raws, pa.large_binary())}))
    assert reasons is None and inputs.type.value_type == pa.uint8()
    rows = [np.asarray(row.values) for row in inputs]
    torch.manual_seed(0)
    model = as_new_model(task.new_model(contract, spec)).module
    batch = task.collate(contract, rows)
    assert batch["pixel_values"].shape == (4, 3 if mode == "rgb" else 1, 32, 32)
    targets = torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = task.target.loss_sum(model(**batch).logits, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    task.save_model(model, contract, tmp_path)
    ours = task.forward(task.load_model(tmp_path), contract, rows, 2, "cpu")
    theirs = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert theirs.config.id2label == {0: "cat", 1: "dog"}
    with torch.inference_mode():
        assert np.allclose(theirs(**batch).logits.numpy(), ours, atol=1e-5)


@pytest.mark.parametrize(
    "image", [{"size": 32}, {"size": 32, "resize": "stretch", "mean": [0.4, 0.5, 0.6], "std": [0.2]}]
)
def test_the_librarys_processor_gives_the_same_pixels(image, tmp_path):
    task, contract = make_task(spec_of(data={"image": image}, model={"config": RESNET}), tmp_path)
    columns = {"image": [picture(1), picture(2, (31, 77)), picture(3, (32, 32))]}
    inputs = task.encoder(contract, tmp_path)(columns).inputs
    assert task.check_against_library(contract, tmp_path, columns, inputs).startswith("the same pixels as transformers")
    inputs[1] = inputs[1] + 5
    with pytest.raises(ModelError, match="golden row 1: pixels differ"):
        task.check_against_library(contract, tmp_path, columns, inputs)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    values = processor(images=Image.open(io.BytesIO(picture(1))), return_tensors="pt")["pixel_values"]
    assert values.shape == (1, 3, 32, 32)


def test_a_block_keeps_its_order_and_gives_reasons(tmp_path):
    task, contract = make_task(
        spec_of(data={"image": {"size": 8, "max_pixels": 2000}}, model={"config": RESNET}), tmp_path
    )
    raws = [picture(1), b"a text", picture(2, (50, 41)), picture(3)[:-40], picture(4)]
    inputs, reasons = task.encoder(contract, tmp_path).encode_block(
        pa.table({"image": pa.array(raws, pa.large_binary())})
    )
    assert [len(row) for row in inputs] == [192, 0, 0, 0, 192]
    assert [reason and reason.split(" (")[0] for reason in reasons] == [
        None, "not an image in a known format", "image over 2,000 pixels", "truncated or damaged image", None,
    ]  # fmt: skip


def test_a_block_of_more_numbers_than_a_list_column_holds_is_an_error():
    assert list(list_offsets([b"ab", b"", b"c"])) == [0, 2, 2, 3]
    with pytest.raises(DataError, match=r"3 rows have 3,221,225,472 numbers[\s\S]*smaller `data.image.size`"):
        list_offsets([range(2**30)] * 3)


def test_requests_there_and_back(tmp_path):
    task, contract = make_task(spec_of(model={"config": RESNET}), tmp_path)
    columns = {"image": [picture(1), picture(2)]}
    assert task.parse(contract, task.as_request(contract, columns)) == columns
    raw = task.parse(contract, [task.example(contract)])
    assert len(task.encoder(contract, tmp_path)(raw).inputs[0]) == 224 * 224 * 3
    for shown in task.show(contract, {"image": [picture(1), picture(1, (4, 4)), b"no image"]})[:2]:
        assert shown.startswith('<img src="data:image/png;base64,') and "56" in shown


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, "model.base and model.config are missing"),
        ({"model": {"config": {}}}, "no model_type"),
        ({"model": {"config": {"model_type": "resnt"}}}, "did you mean 'resnet'"),
        ({"model": {"config": {"model_type": "bert"}}}, "is not a model for images"),
        ({"model": {"config": {**RESNET, "dephts": [1]}}}, "did you mean 'depths'"),
        (
            {"model": {"config": {**RESNET, "depths": "many"}}},
            "model.config is not a valid config of transformers' resnet",
        ),
        ({"model": {"config": {**RESNET, "layer_type": "odd"}}}, "layer_type=odd"),
        ({"model": {"config": {**RESNET, "depths": [1]}}}, "cannot take images"),
        ({"model": {"config": {**RESNET, "num_labels": 3}}}, "comes from the training rows' labels"),
        ({"model": {"config": {**VIT, "image_size": 32}}}, "comes from data.image.size"),
        ({"model": {"config": CONVNEXT}, "data": {"image": {"size": 16}}}, "cannot take images of 16 x 16"),
        ({"model": {"config": RESNET, "dropout": 0.1}}, "model.dropout is for texts"),
        ({"model": {"config": RESNET}, "data": {"steps": ["strip_html"]}}, "strip_html, which is for texts"),
        (
            {"model": {"config": RESNET}, "data": {"image": {"mean": [0.1, 0.2]}}},
            "2 values, but images have 3 channels",
        ),
        (
            {"model": {"config": RESNET}, "data": {"image": {"size": 16}}, "train": {"augment": {"crop": 16}}},
            "out of view",
        ),
    ],
)
def test_wrong_specs_are_errors_before_anything_is_read(sections, message):
    with pytest.raises((SpecError, ModelError)) as caught:
        task_catalog.get_task("image-classification").check_spec(spec_of(**sections))
    assert message in str(caught.value)


def save_base(folder, config, processor=None, size=32):
    from trainer.tasks.images.models import ImageShape, model_from_config

    model_from_config(config, ImageShape(3, size, size), ["a", "b", "c"]).save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_a_base_model_gets_a_new_head_and_keeps_its_preparation(tmp_path):
    base = tmp_path / "base"
    processor = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 28}, "crop_pct": 0.875,
                 "resample": 3, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.2, 0.2, 0.2]}  # fmt: skip
    save_base(base, RESNET, processor)
    spec = spec_of(model={"base": str(base)})
    task, contract = make_task(spec, tmp_path)
    params = contract.step_params("image")
    assert (params["height"], params["short"], params["resize"], params["resample"]) == (28, 32, "crop", "bicubic")
    assert params["mean"] == [0.485, 0.456, 0.406]
    model = task.new_model(contract, spec).module
    assert model.config.num_labels == 2
    body = AutoModelForImageClassification.from_pretrained(base).state_dict()[
        "resnet.embedder.embedder.convolution.weight"
    ]
    assert torch.equal(model.state_dict()["resnet.embedder.embedder.convolution.weight"], body)


def test_a_base_model_that_takes_other_images_is_refused(tmp_path):
    task = task_catalog.get_task("image-classification")
    vit = str(save_base(tmp_path / "vit", VIT))
    task.check_spec(spec_of(model={"base": vit}))  # its own 32 pixels
    with pytest.raises(SpecError, match="takes only images of 32 pixels"):
        task.check_spec(spec_of(model={"base": vit}, data={"image": {"size": 64}}))
    convnext = str(save_base(tmp_path / "convnext", CONVNEXT))
    task.check_spec(spec_of(model={"base": convnext}, data={"image": {"size": 64}}))  # takes any
    with pytest.raises(SpecError, match="takes 3 channels"):
        task.check_spec(spec_of(model={"base": convnext}, data={"image": {"mode": "gray"}}))


def test_a_base_model_of_texts_is_refused(tiny_base):
    with pytest.raises(ModelError, match="'bert', which is not for images"):
        task_catalog.get_task("image-classification").check_spec(spec_of(model={"base": str(tiny_base)}))


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": 224, "feature_extractor_type": "ViTFeatureExtractor"}, (224, 224, "stretch", 224)),
        ({"size": {"height": 384, "width": 384}}, (384, 384, "stretch", 384)),
        ({"size": 224, "crop_pct": 0.875}, (224, 224, "crop", 256)),
        ({"size": 384, "crop_pct": 1.0}, (384, 384, "stretch", 384)),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, (224, 224, "crop", 256)),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, (224, 224, "crop", 256)),
        ({"size": {"shortest_edge": 64}}, (64, 64, "crop", 64)),
    ],
)
def test_every_form_of_a_processors_config(processor, expected, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    params = step_params(ImageSpec(), tmp_path)
    assert tuple(params[name] for name in ("height", "width", "resize", "short")) == expected
    assert params["mean"] == [0.5, 0.5, 0.5]
    smaller = step_params(ImageSpec(size=32), tmp_path)
    assert (smaller["height"], smaller["resize"]) == (32, expected[2])
    assert step_params(ImageSpec(resize="pad"), tmp_path)["resize"] == "pad"


def test_a_processor_that_raymill_does_not_support_is_refused(tmp_path):
    for broken in ({"do_flip_channel_order": True}, {"rescale_factor": 1 / 127.5}, {"size": {"height": 3}}, []):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(broken))
        with pytest.raises(ModelError, match="preprocessor_config.json"):
            step_params(ImageSpec(), tmp_path)


def pixels(rows=6, side=8):
    return torch.arange(rows * 3 * side * side, dtype=torch.float32).reshape(rows, 3, side, side)


def test_shifts_fill_with_the_edge_and_are_the_same_for_a_seed():
    batch, targets = pixels(), torch.arange(6) % 3
    moved, same = augment_images(batch, targets, AugmentSpec(crop=2), 3, seed=5)
    again, _ = augment_images(batch, targets, AugmentSpec(crop=2), 3, seed=5)
    other, _ = augment_images(batch, targets, AugmentSpec(crop=2), 3, seed=6)
    assert torch.equal(moved, again) and not torch.equal(moved, other) and torch.equal(same, targets)
    padded = torch.nn.functional.pad(batch, (2, 2, 2, 2), mode="replicate")
    for row in range(6):
        windows = [padded[row, :, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
        assert any(torch.equal(moved[row], window) for window in windows)


def test_some_images_are_mirrored():
    batch = pixels(rows=40)
    moved, _ = augment_images(batch, torch.zeros(40, dtype=torch.int64), AugmentSpec(flip=True), 2, seed=1)
    mirrored = [torch.equal(moved[row], batch[row].flip(2)) for row in range(40)]
    assert 10 < sum(mirrored) < 30
    assert all(was or torch.equal(moved[row], batch[row]) for row, was in enumerate(mirrored))


def test_mixup_blends_images_and_classes_alike():
    batch, targets = pixels(), torch.tensor([0, 1, 2, 0, 1, 2])
    mixed, shares = augment_images(batch, targets, AugmentSpec(mixup=0.5), 3, seed=4)
    assert shares.shape == (6, 3) and torch.allclose(shares.sum(dim=1), torch.ones(6))
    means = batch.mean(dim=(1, 2, 3))
    assert not torch.equal(mixed, batch) and means.min() <= mixed.mean(dim=(1, 2, 3)).min()
    loss = task_catalog.get_task("image-classification").target.loss_sum(torch.zeros(6, 3), shares)
    assert float(loss) == pytest.approx(6 * np.log(3), rel=1e-5)


def test_nothing_is_changed_unless_asked_for():
    batch, targets = pixels(), torch.zeros(6, dtype=torch.int64)
    assert augment_images(batch, targets, AugmentSpec(), 2, seed=1) == (batch, targets)


def test_the_example_of_a_hub_model_is_a_spec():
    spec = load_spec.load_spec("examples/resnet_finetune/run.yaml")
    assert (spec.task, spec.model.base) == ("image-classification", "microsoft/resnet-50")
    many = load_spec.load_spec("examples/resnet_finetune/run.yaml", ["cluster.workers=8", "cluster.gpus_per_worker=1"])
    assert many.cluster.workers == 8
