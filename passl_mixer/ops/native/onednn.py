"""The oneDNN that Paddle brings, for products and convolutions in bfloat16: its functions go to the native kernels.

They are handed over by address. Nothing is linked, and no symbol becomes visible to the rest of the process, where
another library (PyTorch) may bring a oneDNN of its own.
"""
import ctypes
from pathlib import Path

FUNCTIONS = """engine_create stream_create memory_desc_create_with_strides memory_desc_create_with_tag
memory_desc_destroy memory_desc_get_size memory_create memory_destroy primitive_attr_create primitive_attr_destroy
primitive_attr_set_post_ops primitive_attr_set_scratchpad_mode post_ops_create post_ops_destroy
post_ops_append_eltwise post_ops_append_binary
matmul_primitive_desc_create convolution_forward_primitive_desc_create convolution_backward_data_primitive_desc_create
convolution_backward_weights_primitive_desc_create reorder_primitive_desc_create primitive_desc_query_md
primitive_desc_destroy primitive_create primitive_destroy primitive_execute get_effective_cpu_isa""".split()
MAJOR, OPENMP = 3, 2            # dnnl_version_t: the version of the interface, and the threads that it uses


class _Version(ctypes.Structure):
    _fields_ = [("major", ctypes.c_int), ("minor", ctypes.c_int), ("patch", ctypes.c_int), ("hash", ctypes.c_char_p),
                ("cpu_runtime", ctypes.c_uint), ("gpu_runtime", ctypes.c_uint)]


def connect(kernels: ctypes.CDLL, libraries: Path) -> str:
    """Give the native kernels oneDNN's functions.

    Args:
        kernels: the native kernels.
        libraries: folder of Paddle's libraries.
    Returns:
        Which oneDNN computes in bfloat16, or why none does; for reports.
    """
    path = next(iter(sorted(libraries.glob("libdnnl.so*"))), None)
    if path is None:
        return "this Paddle brings no oneDNN"
    try:
        library = ctypes.CDLL(str(path))
        library.dnnl_version.restype = ctypes.POINTER(_Version)
        version = library.dnnl_version().contents
        addresses = [ctypes.cast(getattr(library, f"dnnl_{name}"), ctypes.c_void_p).value for name in FUNCTIONS]
    except (OSError, AttributeError) as error:
        return f"its oneDNN cannot be used: {error}"
    number = f"oneDNN {version.major}.{version.minor}.{version.patch}"
    if version.major != MAJOR or version.cpu_runtime != OPENMP:
        return f"{number} is not one of version {MAJOR} with OpenMP"
    kernels.onednn_open.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int64]
    if not kernels.onednn_open((ctypes.c_void_p * len(addresses))(*addresses), len(addresses)):
        return "the processor has no instructions for it (AVX512-BF16 or AMX)"
    return number
