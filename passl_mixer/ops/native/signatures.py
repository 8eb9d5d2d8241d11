"""Every function of the C files: its parameters, their kinds and how many elements they have.

A line is a function, its name first; lines that start with a space continue it. Parameters stand in C's order:

    x[rows*cols]            a float32 tensor of so many elements: a product of the call's integers and of DERIVED
    x,y[rows*cols]          two of these
    bias[cols]?             the same, or None
    x:bits32[count]         a tensor of any 32-bit dtype
    a:bf16[count]           a bfloat16 tensor
    at:uint8[count]         a uint8 tensor, or a NumPy array
    index:int64[count]      integers, a list or a ctypes array, of this length; ``[count..]``: or longer
    dy:list[shares][count]  ``shares`` float32 tensors of so many elements each; or a ctypes array of their addresses
    rows                    an integer, 0 or more
    along=1..2              an integer in this range; ``1..``: or larger
    epsilon:float           a float
"""
import math
import re
from typing import Callable, NamedTuple, Optional

TABLE = """
adamw                   p,g,moment1,moment2[n] power1,power2[1] n lr:float decay:float beta1:float beta2:float
                        epsilon:float
affine                  x[rows*cols] scale[cols] shift[cols]? residual[rows*cols]? y[rows*cols] rows cols
affine_gradient         x[rows*cols] scale[cols] dy[rows*cols] dx[rows*cols]? dscale,dshift[cols]?
                        dresidual[rows*cols]? rows cols
bf16_convolution        x:bf16[batch*chans*height*width] weight[out_chans*chans*kernel_h*kernel_w] bias[out_chans]?
                        y[batch*out_chans*out_h*out_w] sizes:int64[10]
bf16_convolution_input_gradient     dy:bf16[batch*out_chans*out_h*out_w] weight[out_chans*chans*kernel_h*kernel_w]
                        dx[batch*chans*height*width] sizes:int64[10]
bf16_convolution_weight_gradient    x:bf16[batch*chans*height*width] dy:bf16[batch*out_chans*out_h*out_w]
                        dweight[out_chans*chans*kernel_h*kernel_w] sizes:int64[10]
bf16_product            a:bf16[batch_a*m*k] b:bf16[batch_b*k*n] bias[biases]? y[batch*m*n] batch_a,batch_b,m,n,k=1..
                        transposed_a,transposed_b,bias_of_rows=0..1 act=0..2
bf16_product_narrow     a:bf16[batch_a*m*k] b:bf16[batch_b*k*n] bias[biases]? y:bf16[batch*m*n]
                        batch_a,batch_b,m,n,k=1.. transposed_a,transposed_b,bias_of_rows=0..1 act=0..2
batch_moments           x[outer*chans*inner] weight,mean,rstd,scale,running_mean,running_variance[chans]
                        momentum:float epsilon:float outer chans inner relu=0..3
batch_normalise         x[outer*chans*inner] mean,scale,shift[chans] other[outer*chans*inner]? y[outer*chans*inner]
                        outer chans inner relu=0..3
batch_norm_gradient     x[outer*chans*inner] mean,rstd,scale,shift[chans] other[outer*chans*inner]?
                        dy[outer*chans*inner] dx,dother[outer*chans*inner]? dweight,dbias[chans] outer chans inner
                        relu=0..3
convolution             x[batch*chans*height*width] weight[out_chans*chans*kernel_h*kernel_w] bias[out_chans]?
                        y[batch*out_chans*out_h*out_w] sizes:int64[9]
convolution_gradient    x[batch*chans*height*width] weight[out_chans*chans*kernel_h*kernel_w]
                        dy[batch*out_chans*out_h*out_w] dx[batch*chans*height*width]?
                        dweight[out_chans*chans*kernel_h*kernel_w] dbias[out_chans]? sizes:int64[9]
depthwise               x[batch*height*width*chans] weight[chans*kernel*kernel] bias[chans]?
                        y[batch*height*width*chans] batch height width chans kernel=1.. flipped=0..1
depthwise_weights_gradient  x,dy[batch*height*width*chans] dweight[chans*kernel*kernel] dbias[chans]?
                        batch height width chans kernel=1..
bias_gelu_erf           z[rows*cols] bias[biases] y[rows*cols] rows cols units
bias_gelu_tanh          z[rows*cols] bias[biases] y[rows*cols] rows cols units
bias_gelu_erf_gradient  z,dy,dz[rows*cols] dbias[biases] rows cols units
bias_gelu_tanh_gradient z,dy,dz[rows*cols] dbias[biases] rows cols units
bias_add                z[rows*cols] bias[biases] rows cols units
bias_gradient           g[rows*cols] dbias[biases] rows cols units
gelu_erf_forward        x,y[n] n
gelu_tanh_forward       x,y[n] n
gelu_erf_gradient       x,dy,dx[n] n
gelu_tanh_gradient      x,dy,dx[n] n
split_halves            x[2*rows*half] u,v[rows*half] rows half
join_halves             u,v[rows*half] x[2*rows*half] rows half
product                 a,b,y[count] count
product_gradient        a,b,dy,da,db[count] count
cycle_shift             x,y:bits32[batch*height*width*chans] batch height width chans along=1..2 direction=-1..1
branch_mean             x0,x1,x2[batch*places*chans] mean[batch*chans] batch places chans
branch_mean_gradient    dmean[batch*chans] dx[batch*places*chans] batch places chans
weigh_branches          x0,x1,x2[batch*places*chans] a0,a1,a2[batch*chans] y[batch*places*chans] batch places chans
weigh_branches_gradient x0,x1,x2[batch*places*chans] a0,a1,a2[batch*chans] dy[batch*places*chans]
                        dx0,dx1,dx2[batch*places*chans] da0,da1,da2[batch*chans] batch places chans
layer_norm              x[rows*cols] weight,bias[cols] y[rows*cols] mean,rstd[rows] rows cols epsilon:float
layer_norm_gradient     x[rows*cols] weight[cols] mean,rstd[rows] dy,dx[rows*cols] dweight,dbias[cols] rows cols
image_norm              x[images*places*chans] weight,bias[chans] y[images*places*chans] mean,rstd[images]
                        images places chans epsilon:float
image_norm_gradient     x[images*places*chans] weight[chans] mean,rstd[images] dy[images*places*chans]
                        dx[images*places*chans]? dweight,dbias[chans] images places chans
narrow                  x[n] y:bf16[n] n
narrow_gradient         g[rows*cols] y:bf16[rows*cols] dbias[biases] rows cols units
narrow_gelu_erf         z,y:bf16[n] n
narrow_gelu_tanh        z,y:bf16[n] n
narrow_gelu_erf_gradient    z,dy,dz:bf16[rows*cols] dbias[biases] rows cols units
narrow_gelu_tanh_gradient   z,dy,dz:bf16[rows*cols] dbias[biases] rows cols units
split_windows           x[parts*batch*height*width*heads*depth] y:list[parts][batch*height*width*heads*depth]
                        parts batch height width heads depth side_h=1.. side_w=1.. up left
join_windows            y:list[parts][batch*height*width*heads*depth] x[parts*batch*height*width*heads*depth]
                        parts batch height width heads depth side_h=1.. side_w=1.. up left
scaled_softmax          x[outer*rows*cols] bias[rows*cols]? y[outer*rows*cols] outer rows cols scale:float
scaled_softmax_gradient y,dy,dx[outer*rows*cols] dbias[rows*cols]? outer rows cols scale:float
permute                 x,y:bits32[elements] sizes,steps:int64[axes] axes=0..8
max_pool                x[outer*height*width*chans] y[outer*out_h*out_w*chans] at:uint8[outer*out_h*out_w*chans]
                        sizes:int64[7]
max_pool_gradient       dy[outer*out_h*out_w*chans] at:uint8[outer*out_h*out_w*chans] dx[outer*height*width*chans]
                        sizes:int64[7]
take                    x[outer*length*inner] index:int64[count] y[outer*count*inner] outer length count inner
take_gradient           dy[outer*count*inner] index:int64[count] dx[outer*length*inner] outer length count inner
gather_regions          x[outer*length*inner*chans] place:int64[groups*size] y[outer*groups*inner*size*chans]
                        outer length inner groups size chans
scatter_regions         y[outer*groups*inner*size*chans] place:int64[groups*size] x[outer*length*inner*chans]
                        outer length inner groups size chans
resize_pixels           x:uint8[3*rows*cols] y:uint8[3*size*size] rows cols size cubic=0..1 rows_first=0..1
shift_quarters          x,y[shares*batch*height*width*chans] first:int64[shares] shares batch height width chans
shift_quarters_gradient dy:list[shares][batch*height*width*chans] dx[shares*batch*height*width*chans]
                        first:int64[shares] shares batch height width chans
move_groups             x,y[batch*height*width*chans] offset:int64[groups..] size=1.. batch height width chans
                        along=1..2
keep_largest            x[rows*cols] values[rows*k] index:bits32[rows*k] rows cols k=1.. first
unfold_wave             a,cosine,sine[rows*chans] wave[2*rows*chans] rows chans
unfold_wave_gradient    cosine,sine[rows*chans] wave,dwave[2*rows*chans] da,dphase[rows*chans] rows chans
wave_mix                a,phase[batch*height*width*chans] weight[2*chans*kernel] y[batch*height*width*chans]
                        batch height width chans kernel=1.. along=1..2
wave_mix_gradient       a,phase[batch*height*width*chans] weight[2*chans*kernel]
                        dy,da,dphase[batch*height*width*chans] dweight[2*chans*kernel]
                        batch height width chans kernel=1.. along=1..2
pair_mix                x[2*batch*height*width*chans] weight[2*chans*kernel] y[batch*height*width*chans]
                        batch height width chans kernel along=1..2
pair_mix_gradient       dy[batch*height*width*chans] weight[2*chans*kernel] dx[2*batch*height*width*chans]
                        batch height width chans kernel along=1..2
pair_mix_weight_gradient    x[2*batch*height*width*chans] dy[batch*height*width*chans] dweight[2*chans*kernel]
                        batch height width chans kernel along=1..2
"""
QUESTIONS = ("has_products", "has_bf16_products")     # no parameters; the result is an answer, not a return code
PARAMETER = re.compile(r"(?P<names>[\w,]+)(?::(?P<kind>\w+))?(?:\[(?P<number>\w+)\](?=\[))?(?:\[(?P<count>[\w*.]+)\])?"
                       r"(?P<nullable>\?)?(?:=(?P<low>-?\d+)\.\.(?P<high>\d*))?")


class Derived(NamedTuple):
    """Numbers that follow from a call's integers.

    ``function(*inputs)`` gives one for each name, or None if the integers do not fit.
    """

    names: tuple
    inputs: tuple
    function: Callable


class Parameter(NamedTuple):
    """One parameter of a C function; ``count`` (and ``number``, of lists) as written in the table."""

    name: str
    kind: str               # "float32", "bf16", "bits32", "uint8": tensors; "int64": integers; "list"; "int"; "float"
    count: str = ""
    number: str = ""
    nullable: bool = False
    low: int = 0
    high: float = math.inf


def _window(side: int, kernel: int, stride: int, pad: int) -> int:
    return (side + 2 * pad - kernel) // stride + 1


def _convolution(sizes) -> Optional[tuple]:
    height, width, _, kernel_h, kernel_w, stride, pad = sizes[2:]
    if stride < 1 or min(sizes) < 0:
        return None
    return (*sizes[:7], _window(height, kernel_h, stride, pad), _window(width, kernel_w, stride, pad))


def _wide_convolution(sizes) -> Optional[tuple]:
    """Of sizes with a padding for the height and one for the width."""
    height, width, _, kernel_h, kernel_w, stride, pad_h, pad_w = sizes[2:]
    if stride < 1 or min(sizes) < 0:
        return None
    return (*sizes[:7], _window(height, kernel_h, stride, pad_h), _window(width, kernel_w, stride, pad_w))


def _product(batch_a: int, batch_b: int, m: int, n: int, bias_of_rows: int) -> tuple:
    return max(batch_a, batch_b), m if bias_of_rows else n


def _pool(sizes) -> Optional[tuple]:
    height, width, _, kernel, stride, pad = sizes[1:]
    if stride < 1 or min(sizes) < 0:
        return None
    return (*sizes[:4], _window(height, kernel, stride, pad), _window(width, kernel, stride, pad))


_BIASES = Derived(("biases",), ("cols", "units"), lambda cols, units: (units or cols,))
_CONVOLUTION = Derived(("batch", "chans", "height", "width", "out_chans", "kernel_h", "kernel_w", "out_h", "out_w"),
                       ("sizes",), _convolution)
_BF16_CONVOLUTION = _CONVOLUTION._replace(function=_wide_convolution)
_PRODUCT = Derived(("batch", "biases"), ("batch_a", "batch_b", "m", "n", "bias_of_rows"), _product)
_POOL = Derived(("outer", "height", "width", "chans", "out_h", "out_w"), ("sizes",), _pool)
DERIVED = {
    **dict.fromkeys(("bias_gelu_erf", "bias_gelu_tanh", "bias_gelu_erf_gradient", "bias_gelu_tanh_gradient", "bias_add",
                     "bias_gradient", "narrow_gradient", "narrow_gelu_erf_gradient", "narrow_gelu_tanh_gradient"),
                    _BIASES),
    **dict.fromkeys(("bf16_product", "bf16_product_narrow"), _PRODUCT),
    **dict.fromkeys(("bf16_convolution", "bf16_convolution_input_gradient", "bf16_convolution_weight_gradient"),
                    _BF16_CONVOLUTION),
    **dict.fromkeys(("convolution", "convolution_gradient"), _CONVOLUTION),
    **dict.fromkeys(("max_pool", "max_pool_gradient"), _POOL),
    "permute": Derived(("elements",), ("sizes",), lambda sizes: (math.prod(sizes),)),
    "move_groups": Derived(("groups",), ("chans", "size"), lambda chans, size: (-(-chans // size),)),
}


def _parameters(text: str):
    """The parameters that one word of the table stands for."""
    match = PARAMETER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} in the table of native functions is no parameter")
    kind = match["kind"] or ("float32" if match["count"] else "int")
    for name in match["names"].split(","):
        yield Parameter(name, kind, match["count"] or "", match["number"] or "", bool(match["nullable"]),
                        int(match["low"] or 0), float(match["high"] or math.inf))


def signatures() -> dict:
    """Name of every function -> its parameters in C's order."""
    lines = TABLE.strip().replace("\n ", " ").splitlines()
    return {name: tuple(parameter for word in words for parameter in _parameters(word))
            for name, *words in map(str.split, lines)}
