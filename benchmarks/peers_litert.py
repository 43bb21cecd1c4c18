"""A torch network of this folder as an integer TFLite file, by litert-torch and ai-edge-quantizer.

    PEER_PYTHON benchmarks/peers_litert.py --network NAME --state FILE.pt --data FILE.npz --out FILE
        [--bits 4]

Runs in the peers' environment (peers_environment), where deploykit is not installed. The last line
is JSON: seconds of conversion and quantization, imports apart.

Static int8 as the tools recommend it: per-channel weights, 8-bit activations, ranges from the
samples. Ports stay float, as ours are, and those of four axes are NHWC, which spares the file its
TRANSPOSEs.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

EFFICIENTNET = "efficientnet-lite0"


def trained(name: str, state: Path) -> nn.Module:
    """The network with the weights that our ONNX file was captured with, in eval mode."""
    from networks import ARCHITECTURES, SEQUENCES
    from networks.efficientnet_lite import EfficientNetLite0

    known = {**ARCHITECTURES, **SEQUENCES}
    module = EfficientNetLite0() if name == EFFICIENTNET else known[name].build()
    module.load_state_dict(torch.load(state, weights_only=True))
    return module.eval()


def channel_last(module: nn.Module, inputs: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """NHWC at its input, and at those of its outputs that are pictures; sequences as they are."""
    import litert_torch

    if inputs.ndim != 4:
        return module, inputs
    with torch.no_grad():
        results = module(inputs)
    listed = results if isinstance(results, tuple | list) else (results,)
    pictures = [place for place, result in enumerate(listed) if result.ndim == 4]
    wrapped = litert_torch.to_channel_last_io(module, args=[0], outputs=pictures)
    return wrapped, inputs.permute(0, 2, 3, 1).contiguous()


def convert(
    name: str, state: Path, samples: np.ndarray[Any, Any], out: Path, bits: int
) -> dict[str, float]:
    """Write the file; seconds by step. samples: [N, C, H, W] float32."""
    import litert_torch
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    module, example = channel_last(trained(name, state), torch.from_numpy(samples[:1]))
    start = perf_counter()
    flat = out.with_suffix(".float.tflite")
    converted = litert_torch.convert(module.eval(), (example,))
    converted.export(str(flat))
    converting, start = perf_counter() - start, perf_counter()
    recipes = RecipeManager()
    recipes.add_static_config(
        ".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8, bits,
        algorithm_key=AlgorithmName.MIN_MAX_UNIFORM_QUANT,
    )  # fmt: skip
    made = quantizer.Quantizer(str(flat), recipes.get_quantization_recipe())
    for port in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        made.update_quantization_recipe(".*", port, algorithm_key=AlgorithmName.NO_QUANTIZE)
    laid = samples.transpose(0, 2, 3, 1) if samples.ndim == 4 else samples
    rows = [{"args_0": sample[None].copy()} for sample in laid]
    ranges = made.calibrate({"serving_default": rows}, num_threads=1)
    made.quantize(ranges).export_model(str(out), overwrite=True)
    return {"convert": converting, "quantize": perf_counter() - start}


def main() -> None:
    """Convert one network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", required=True)
    for name in ("--state", "--data", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--bits", type=int, choices=(8, 4), default=8)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with np.load(options.data) as data:
        samples = data["inputs"]
    print(json.dumps(convert(options.network, options.state, samples, options.out, options.bits)))


if __name__ == "__main__":
    main()
