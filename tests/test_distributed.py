"""Identity on one process; on two, gathers with the gradient of the whole batch."""
import numpy as np
import paddle
import pytest
from helpers.two_processes import assert_two_are_one

from passl_mixer import distributed


def test_one_process_is_identity():
    distributed.init()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    x = paddle.rand([3, 2])
    x.stop_gradient = False
    assert distributed.all_gather(x) is x
    y = distributed.all_gather_no_grad(x)
    assert y.stop_gradient
    assert np.array_equal(y.numpy(), x.numpy())
    assert distributed.broadcast(x) is x


# Each process holds half a batch; its parameters' averaged gradients must be those of the whole batch on one.
WORKER = """
import sys
import numpy as np, paddle
from paddle import nn
paddle.set_device("cpu")
from passl_mixer import build_method, distributed
from passl_mixer.heads import build_head

class Tiny(nn.Layer):
    num_features = 6
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 6)
    def forward(self, images):
        return self.fc(images.flatten(1))

distributed.init()
distributed.BUCKET = 30     # of these tiny networks some gradients travel together, some alone
rank, size = distributed.rank(), distributed.world_size()
views = np.random.default_rng(0).normal(size=[2, 8, 3, 2, 2]).astype("float32")
rows = slice(rank * 8 // size, (rank + 1) * 8 // size)
mine = [paddle.to_tensor(v[rows]) for v in views]
ids = np.array([[6, 1, 7, 0], [6, 2, 3, 7], [6, 4, 7, 0], [6, 5, 5, 7],
                [6, 1, 2, 7], [6, 7, 0, 0], [6, 3, 1, 7], [6, 4, 4, 7]], "int32")[rows]
text = {"vocab_size": 8, "context_length": 4, "width": 8, "num_layers": 1, "num_heads": 2}
out = {}
for name, cfg in (("simclr", {"name": "simclr"}), ("moco", {"name": "moco", "queue_size": 16}),
                  ("simsiam", {"name": "simsiam"}), ("moco_v3", {"name": "moco_v3"}),
                  ("clip", {"name": "clip", "text": text})):
    paddle.seed(3 if rank == 0 else 4)
    method = build_method(cfg, Tiny(), build_head({"name": "mlp", "norm": None, "out": 4}, 6))
    for p in method.state_dict().values():
        distributed.broadcast(p)
    result = method(mine[:1], paddle.to_tensor(ids)) if name == "clip" else method(mine)
    result["loss"].backward()
    for key in {"loss", "accuracy"} & set(result):
        out[f"{name}.{key}"] = distributed.all_gather_no_grad(result[key].reshape([1])).mean().numpy()
    distributed.average_gradients([p for _, p in method.trainable_parameters()])
    for n, p in method.trainable_parameters():
        out[f"{name}.{n}"] = p.grad.numpy()
    method.after_step(0, 2)
    if name == "moco":
        out["moco.queue"] = method.queue.numpy()
np.savez(sys.argv[1] + str(rank) + "of" + str(size), **out)
"""


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    names = assert_two_are_one(WORKER, tmp_path)
    assert {f"{name}.loss" for name in ("simclr", "moco", "simsiam", "moco_v3", "clip")} <= names
    assert {"clip.logit_scale", "clip.text.token.weight", "clip.backbone.fc.weight", "moco.queue"} <= names
