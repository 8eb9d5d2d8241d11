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
import sys, warnings
warnings.simplefilter("ignore")
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
mine = [paddle.to_tensor(v[rank * 8 // size:(rank + 1) * 8 // size]) for v in views]
out = {}
for name, cfg in (("simclr", {"name": "simclr"}), ("moco", {"name": "moco", "queue_size": 16}),
                  ("simsiam", {"name": "simsiam"}), ("moco_v3", {"name": "moco_v3"})):
    paddle.seed(3 if rank == 0 else 4)
    method = build_method(cfg, Tiny(), build_head({"name": "mlp", "norm": None, "out": 4}, 6))
    for p in method.state_dict().values():
        distributed.broadcast(p)
    loss = method(mine)["loss"]
    loss.backward()
    out[name + ".loss"] = distributed.all_gather_no_grad(loss.reshape([1])).mean().numpy()
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
    assert len(assert_two_are_one(WORKER, tmp_path)) > 6
