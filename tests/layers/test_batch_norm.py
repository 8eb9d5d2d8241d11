"""BatchNorm over the batch of all processes: two with half the images each are one with all of them."""
import numpy as np
import paddle
import pytest
from helpers.two_processes import arrays_of_two_and_one
from paddle import nn

from passl_mixer.layers.batch_norm import BatchNorm1D, SyncBatchNorm, synchronise
from passl_mixer.methods.moco import has_batch_norm
from passl_mixer.training.run import build_run

# Every layout, with scale and shift or without, and whole runs built from a configuration.
WORKER = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, paddle
from paddle import nn
paddle.set_device("cpu")
from passl_mixer import distributed, get_config
from passl_mixer.layers.batch_norm import BatchNorm1D, SyncBatchNorm, synchronise
from passl_mixer.training.run import build_run
from passl_mixer.errors import BadInput
from passl_mixer.images import to_images
from passl_mixer.training.step import train_step

distributed.init()
rank, size = distributed.rank(), distributed.world_size()
rng, out = np.random.default_rng(0), {{}}

def whole(x):
    return distributed.all_gather_no_grad(x).numpy()

LAYERS = (("rows", nn.BatchNorm1D(3), [8, 3]), ("bare", nn.BatchNorm1D(3, weight_attr=False, bias_attr=False), [8, 3]),
          ("scale", BatchNorm1D(3, bias_attr=False), [8, 3]), ("NCHW", nn.BatchNorm2D(3), [8, 3, 2, 5]),
          ("NHWC", nn.BatchNorm2D(3, momentum=0.7, epsilon=1e-3, data_format="NHWC"), [8, 2, 5, 3]))
for name, norm, shape in LAYERS:
    holder = nn.Sequential(norm)
    if size > 1:
        synchronise(holder)
    images, weights = (rng.normal(3, 2, shape).astype("float32") for _ in range(2))
    mine = slice(rank * 8 // size, (rank + 1) * 8 // size)
    x = paddle.to_tensor(images[mine], stop_gradient=False)
    y = holder(x)
    (y * y * paddle.to_tensor(weights[mine])).sum().backward()      # a sum over processes
    out[name + ".y"], out[name + ".dx"] = whole(y), whole(x.grad)
    for key, value in holder.state_dict().items():
        out[name + "." + key] = value.numpy()
        if value.grad is not None:
            out[name + ".grad." + key] = whole(value.grad.unsqueeze(0)).sum(0)
    # the gradients of a gradient penalty, of Paddle's own norm on one process
    x, scales = paddle.to_tensor(images[mine], stop_gradient=False), [p for p in holder.parameters() if p.trainable]
    y = holder(x)
    (slope,) = paddle.grad((y * y * paddle.to_tensor(weights[mine])).sum(), x, create_graph=True)
    found = paddle.grad((slope * slope * paddle.to_tensor(weights[mine])).sum(), [x, *scales], allow_unused=True)
    out[name + ".twice.dx"] = whole(found[0])
    if scales:
        out[name + ".twice.scale"] = whole(found[1].unsqueeze(0)).sum(0)
    holder.eval()
    out[name + ".eval"] = whole(holder(x))

for name, options in {runs}.items():
    run = build_run(get_config(sys.argv[1] + "tiny.yaml", options))
    batches = list(run.loader.epoch(0))
    loss = run.method([to_images(view, run.views.mean, run.views.std) for view in batches[0][0]])["loss"]
    loss.backward()
    parameters = [p for _, p in run.method.trainable_parameters()]
    distributed.average_gradients(parameters)
    out[name + ".loss"] = whole(loss.reshape([1])).mean()
    for key, parameter in run.method.trainable_parameters():
        out[name + ".grad." + key] = parameter.grad.numpy()
    run.optimizer.clear_grad()
    for step, batch in enumerate(batches[1:]):
        train_step(run, batch, step)
    for key, value in run.method.state_dict().items():
        out[name + ".after." + key] = value.numpy()

for options in ([], {moco}, ["train.sync_batch_norm=false"]):
    method = build_run(get_config(sys.argv[1] + "tiny.yaml", options)).method
    assert any(isinstance(part, SyncBatchNorm) for part in method.sublayers()) == (size > 1 and not options), options
if size > 1:
    try:
        build_run(get_config(sys.argv[1] + "tiny.yaml", {compiled}))
        raise AssertionError("not refused")
    except BadInput as error:
        assert "set train.sync_batch_norm=false or train.compile=false" in str(error)
np.savez(sys.argv[1] + str(rank) + "of" + str(size), **out)
"""
CONV = "model.backbone={name: ConvMLP, stem_channels: 4, num_conv_blocks: 1, embed_dims: [4, 8], depths: [1, 1], " \
       "mlp_ratios: [1, 1]}"
HIRE = "model.backbone={name: HireMLP, embed_dims: [4, 8], depths: [1, 1], mlp_ratios: [1, 1], region_sizes: [2, 2], " \
       "shifts: [[0, 1], [0, 1]]}"
SGD = "optim={name: sgd, lr: 0.1, weight_decay: 0.0}"
RUNS = {
    "simclr": [SGD, CONV, "model.head.last_norm=true", "train.recompute=true"],
    "byol": [SGD, CONV, "model.method={name: byol, momentum: 0.5}"],
    "simsiam": [SGD, HIRE, "model.method={name: simsiam}", "model.head.last_norm=true", "model.head.last_affine=false"],
    "moco_v3": [SGD, HIRE, "model.method={name: moco_v3, momentum: 0.5}"],
}
MOCO = ["model.method={name: moco, queue_size: 16, bn_splits: 2}"]

LAYOUTS = [(nn.BatchNorm1D, {"weight_attr": False, "bias_attr": False}, [6, 3]),
           (BatchNorm1D, {"bias_attr": False}, [6, 3]), (nn.BatchNorm2D, {}, [4, 3, 2, 5]),
           (nn.BatchNorm2D, {"data_format": "NHWC", "momentum": 0.5, "epsilon": 1e-3}, [4, 2, 5, 3])]


@pytest.mark.parametrize(("kind", "options", "shape"), LAYOUTS, ids=["bare", "scale", "NCHW", "NHWC"])
def test_on_one_process_it_is_paddles(kind, options, shape):
    rng = np.random.default_rng(1)
    given, direction, other = (rng.normal(2, 3, shape).astype("float32") for _ in range(3))
    found = []
    for synced in (False, True):
        model = nn.Sequential(kind(3, **options))
        if synced:
            synchronise(model)
            assert isinstance(model[0], SyncBatchNorm)
        x = paddle.to_tensor(given, stop_gradient=False)
        y = model(x)
        (y * paddle.to_tensor(direction)).sum().backward()
        model.eval()
        found.append([y, x.grad, model(paddle.to_tensor(other)), *model.state_dict().values(),
                      *(p.grad for p in model.parameters() if p.trainable)])
    for theirs, ours in zip(*found):
        assert np.abs(ours.numpy() - theirs.numpy()).max() <= 1e-6 * np.abs(theirs.numpy()).max()


def test_names_shapes_and_modes_stay(tiny):
    method = build_run(tiny(CONV, "model.method={name: byol}")).method
    method.backbone.eval()
    before = {name: id(value) for name, value in method.state_dict().items()}
    trained = [name for name, _ in method.trainable_parameters()]
    norms = {name: part.training for name, part in method.named_sublayers() if has_batch_norm(part)}
    synchronise(method)
    assert "SyncBatchNorm(num_features=16, momentum=0.9" in repr(method)
    assert {name: id(value) for name, value in method.state_dict().items()} == before
    assert [name for name, _ in method.trainable_parameters()] == trained
    assert {name: part.training for name, part in method.named_sublayers() if has_batch_norm(part)} == norms
    assert {type(part) for part in method.sublayers() if isinstance(part, nn.layer.norm._BatchNormBase)} \
        == {SyncBatchNorm}


@pytest.mark.slow
def test_two_processes_normalise_as_one(tmp_path, tiny):
    tiny()          # writes the configuration
    script = WORKER.format(runs=RUNS, moco=MOCO, compiled=[CONV, "train.compile=true"])
    first, second, whole = arrays_of_two_and_one(script, tmp_path)
    assert {"bare.dx", "scale.grad.0.weight", "NHWC.twice.scale", "NHWC.grad.0.weight", "simclr.loss",
            "simclr.grad.head.mlp.4.weight", "byol.after.target_backbone.tokenizer.1._mean"} <= set(whole.files)
    assert set(first.files) == set(whole.files)         # no name of a state dictionary is new
    largest, worst = {}, {}
    for name in whole.files:        # some gradients are 0 but for rounding: a norm takes their shift away again
        kind = name[:name.index(".", name.index(".") + 1)] if name.count(".") > 1 else name
        largest[kind] = max(largest.get(kind, 0.0), np.abs(whole[name]).max())
        assert np.array_equal(first[name], second[name]), name
        worst[kind] = max(worst.get(kind, 0.0), np.abs(first[name] - whole[name]).max())
    off = {kind: float(worst[kind] / largest[kind]) for kind in worst}
    assert all(value < (1e-4 if kind.endswith(".after") else 1e-5) for kind, value in off.items()), off
