"""The float graph in operators that have an integer form on every runtime: same function.

    ReduceL2, ...               sums and roots, see norms
    Sub, Div, Neg, Abs, Pow     sums, products and comparisons, see arithmetic
    LeakyRelu, PRelu, Elu, ...  see rectifiers
    Where of constants          products, sums and minima, see selecting
    Where(IsNaN(softmax))       the softmax, where it always has scores
    Reduce...                   pools and convolutions, see reductions
    x * tanh(softplus(x)), ...  Mish, Gelu, see spelled
    Cast of token ids           the ids themselves
    ArgMax of a Softmax         of what it reads
    TopK of one                 ReduceMax and ArgMax
    [N, C, L]                   [N, C, 1, L]
    W x                         a convolution, or x' W', see left_products
    Pad, Slice of many axes     the window's own pads, one Slice per axis
    Expand                      nothing, Gather or Resize, see expanding
    Tile, Pad by edge, ...      a Gather along each axis, see picking
    HardSwish, HardSigmoid      a sum, a clip and a product; factors go into the weights around
    MaxPool with holes          maxima of its parts, see dilated_pools
    AveragePool                 a depthwise convolution of equal weights
    BatchNormalization, x*s+t   a depthwise 1x1 convolution, where no layer could take it in
    ConvTranspose               a convolution, DepthToSpace and a Slice
    Conv of stride 2, an image  SpaceToDepth and a smaller convolution of stride 1
    Concat of a Concat          one Concat

Each is the form that the int8 kernels of both runtimes are fast on and agree on.
"""

from __future__ import annotations

from deploykit.graph.lowering.activations import lower_activations
from deploykit.graph.lowering.arithmetic import lower_arithmetic
from deploykit.graph.lowering.average_pool import lower_average_pools
from deploykit.graph.lowering.channel_affine import lower_channel_affines
from deploykit.graph.lowering.conv_transpose import lower_conv_transposes
from deploykit.graph.lowering.dilated_pools import lower_dilated_pools
from deploykit.graph.lowering.expanding import lower_expands
from deploykit.graph.lowering.left_products import lower_left_products
from deploykit.graph.lowering.linears import lower_linears
from deploykit.graph.lowering.merge_concats import merge_concats
from deploykit.graph.lowering.nan_guards import drop_nan_guards
from deploykit.graph.lowering.norms import lower_norms
from deploykit.graph.lowering.own_bounds import own_bounds
from deploykit.graph.lowering.own_conditions import own_conditions
from deploykit.graph.lowering.picking import lower_picks
from deploykit.graph.lowering.pixel_shuffle import lower_pixel_shuffles
from deploykit.graph.lowering.push_scales import push_scales
from deploykit.graph.lowering.rectifiers import lower_rectifiers
from deploykit.graph.lowering.recurrent import split_recurrent
from deploykit.graph.lowering.reductions import lower_reductions
from deploykit.graph.lowering.selecting import lower_choices
from deploykit.graph.lowering.shapes import fold_pads, split_slices
from deploykit.graph.lowering.signals import lift_signals
from deploykit.graph.lowering.spelled import name_activations
from deploykit.graph.lowering.top_ones import lower_top_ones
from deploykit.graph.lowering.whole_numbers import drop_casts, drop_softmaxes
from deploykit.graph.tracking import Pass, apply_pass
from deploykit.spec.network import Network

PASSES: tuple[tuple[str, Pass], ...] = (
    ("drop_casts", drop_casts),
    ("lower_top_ones", lower_top_ones),
    ("drop_softmaxes", drop_softmaxes),
    ("name_activations", name_activations),
    ("lower_left_products", lower_left_products),
    ("lift_signals", lift_signals),
    ("lower_picks", lower_picks),
    ("lower_dilated_pools", lower_dilated_pools),
    ("split_slices", split_slices),
    ("split_recurrent", split_recurrent),
    ("lower_linears", lower_linears),
    ("lower_pixel_shuffles", lower_pixel_shuffles),
    ("lower_choices", lower_choices),
    ("own_conditions", own_conditions),
    ("drop_nan_guards", drop_nan_guards),
    ("lower_norms", lower_norms),
    ("lower_arithmetic", lower_arithmetic),
    ("lower_expands", lower_expands),
    ("own_bounds", own_bounds),
    ("lower_rectifiers", lower_rectifiers),
    ("lower_reductions", lower_reductions),
    ("lower_activations", lower_activations),
    ("lower_average_pools", lower_average_pools),
    ("fold_pads", fold_pads),
    ("lower_channel_affines", lower_channel_affines),
    ("lower_conv_transposes", lower_conv_transposes),
    ("push_scales", push_scales),
    ("merge_concats", merge_concats),
)


FOR_FLOAT: tuple[tuple[str, Pass], ...] = (
    ("lower_top_ones", lower_top_ones),
    ("lower_picks", lower_picks),
    ("lower_dilated_pools", lower_dilated_pools),
    ("lower_norms", lower_norms),
)
"""Those of them whose nodes have a float form in both formats, and what goes has none in TFLite."""


def lower_for_float(network: Network) -> Network:
    """The passes that a float file in both formats needs. network: canonical."""
    for name, rewrite in FOR_FLOAT:
        network = apply_pass(name, rewrite, network)
    return network


def lower(network: Network) -> Network:
    """Every pass in order. network: canonical; tensors that stay keep their names."""
    for name, rewrite in PASSES:
        network = apply_pass(name, rewrite, network)
    return network
