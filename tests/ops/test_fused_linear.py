"""The linear map with its bias in one kernel, on the CPU as far as that has it; tests/test_gpu.py has the rest."""
import paddle.nn.functional as F

from passl_mixer.ops import products


def test_without_a_fused_product_the_plain_one_is_taken():
    """On the CPU there is none: either ``F.linear`` has the kernel itself, or the trial fails."""
    products.fused_linear.cache_clear()
    assert products.fused_linear() is F.linear
