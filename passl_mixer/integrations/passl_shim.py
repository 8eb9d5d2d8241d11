"""The names of ``paddle.fluid`` that PASSL 0.0.4 imports, in today's Paddle.

They are in ``sys.modules`` while PASSL's modules are imported and are removed again, so that ``import paddle.fluid``
fails for other packages as before. Two of PASSL's modules use ``paddle.fluid`` during training: they get a view of
``paddle`` that has it.

Shapes: those of ``paddle.fluid.layers`` in Paddle 2.1, which PASSL was written for.
"""
import contextlib
import importlib
import sys
import types

# Importing these imports every module of PASSL that imports ``paddle.fluid``.
IMPORTERS = ("passl", "passl.engine.trainer", "passl.modeling.backbones.transformer")
# They use ``paddle.fluid`` in functions, after their import.
LATE_READERS = ("passl.hooks.checkpoint_hook", "passl.solver.builder")
_ABSENT = object()


def fluid_modules() -> dict:
    """``{"paddle.fluid": module, "paddle.fluid.layers": module, ...}`` with the names that PASSL uses."""
    import paddle
    from paddle.incubate.optimizer import LarsMomentumOptimizer

    def norm(x, axis, epsilon=1e-12):
        return x / paddle.sqrt((x * x).sum(axis, keepdim=True) + epsilon)

    def scaled_product(x, y, transpose_x=False, transpose_y=False, alpha=1.0):
        return paddle.matmul(x, y, transpose_x, transpose_y) * alpha

    def accuracy(input, label, k=1):
        # A scalar: NumPy 2.4 does not convert shape [1] to a number, and PASSL's log needs one.
        return paddle.metric.accuracy(input, label, k).reshape([])

    tables = {
        "layers": {
            "accuracy": accuracy, "l2_normalize": norm, "matmul": scaled_product, "less_than": paddle.less_than,
            "cast": paddle.cast, "reshape": paddle.reshape,
            "reduce_mean": lambda input: paddle.mean(input), "reduce_sum": lambda input: paddle.sum(input),
            "split": lambda input, num_or_sections, dim: paddle.split(input, num_or_sections, axis=dim),
            "squeeze": lambda x, axes: paddle.squeeze(x, axes or None),
            "fill_constant": lambda shape, dtype, value: paddle.full(shape, value, dtype),
            "uniform_random": lambda shape, dtype, min, max: paddle.uniform(shape, dtype, min, max)},
        "data_feeder": {"convert_dtype": lambda dtype: str(dtype).rsplit(".", 1)[-1]},
        "dygraph": {"Layer": paddle.nn.Layer, "LayerList": paddle.nn.LayerList},
        "optimizer": {"LarsMomentum": LarsMomentumOptimizer},
        "framework": {"Variable": paddle.static.Variable},
        "core": {"VarBase": paddle.Tensor},
    }
    modules = {"paddle.fluid": types.ModuleType("paddle.fluid")}
    for part, names in tables.items():
        module = modules[f"paddle.fluid.{part}"] = types.ModuleType(f"paddle.fluid.{part}")
        module.__dict__.update(names)
        setattr(modules["paddle.fluid"], part, module)
    return modules


@contextlib.contextmanager
def fluid_in_place(modules: dict):
    """Context in which ``import paddle.fluid`` imports ``modules``; afterwards it does what it did before."""
    import paddle
    before = {name: sys.modules.get(name, _ABSENT) for name in modules}
    attribute = paddle.__dict__.get("fluid", _ABSENT)
    sys.modules.update(modules)
    paddle.fluid = modules["paddle.fluid"]
    try:
        yield
    finally:
        for name, module in before.items():
            if module is _ABSENT:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        if attribute is _ABSENT:
            del paddle.fluid
        else:
            paddle.fluid = attribute


def import_host():
    """Import PASSL with ``paddle.fluid`` in place for it alone; returns the package ``passl``.

    Packages that PASSL imports must be imported before (``REQUIRED`` in ``passl_mixer.integrations.passl``), or they
    would see our ``paddle.fluid`` too.
    """
    modules = fluid_modules()
    with fluid_in_place(modules):
        for name in IMPORTERS:
            importlib.import_module(name)
    for name in LATE_READERS:
        reader = sys.modules[name]
        if not isinstance(reader.paddle, _PaddleView):
            reader.paddle = _PaddleView(reader.paddle, fluid=modules["paddle.fluid"])
    return sys.modules["passl"]


class _PaddleView(types.ModuleType):
    """A module with some names replaced, for one module that uses it."""

    def __init__(self, module, **replaced):
        super().__init__(module.__name__)
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name):
        return getattr(self._module, name)


def replace_in_view(reader, **replaced) -> None:
    """Replace names of ``paddle`` for one module of PASSL.

    Args:
        reader: the module of PASSL.
        **replaced: name -> replacement.
    """
    reader.paddle = _PaddleView(reader.paddle, **replaced)
