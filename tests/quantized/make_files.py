"""Writes the quantized files of this folder with the tools that users have, from one small network.

    python -m tests.quantized.make_files brevitas        brevitas 0.13.4, onnxoptimizer
    python -m tests.quantized.make_files onnxruntime     onnxruntime.quantization 1.32.0
    python -m tests.quantized.make_files torchao         torchao 0.18.0

Each is trained on the first 4,096 images of Fashion-MNIST. None of the tools is needed to test.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional

from tests.libraries.images import test_images, training_images

HERE = Path(__file__).parent
TRAINED, BATCH, EPOCHS = 4096, 32, 4
CALIBRATING = 128


class Small(nn.Module):
    """Convolution, depthwise convolution with batch norm, 1x1 convolution, pool, linear.

    layers: what makes a convolution, a linear, and an activation; of torch or of brevitas.
    """

    def __init__(self, conv: Any, linear: Any, relu: Any, relu6: Any, entry: Any) -> None:
        super().__init__()
        self.entry = entry()
        self.stem = conv(1, 12, 5, stride=2, padding=2)
        self.relu = relu()
        self.depth = conv(12, 12, 3, padding=1, groups=12, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.relu6 = relu6()
        self.point = conv(12, 24, 1)
        self.last = relu()
        self.pool = nn.MaxPool2d(2)
        self.head = linear(24 * 7 * 7, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, 1, 28, 28] -> [N, 10]."""
        hidden = self.relu(self.stem(self.entry(images)))
        hidden = self.relu6(self.norm(self.depth(hidden)))
        hidden = self.pool(self.last(self.point(hidden)))
        result: torch.Tensor = self.head(torch.flatten(hidden, 1))
        return result


def trained(network: nn.Module) -> nn.Module:
    """By Adam, with a fixed seed."""
    data = training_images()
    inputs, labels = torch.tensor(data.inputs[:TRAINED]), torch.tensor(data.labels[:TRAINED])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    network.train()
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(inputs)), BATCH):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(inputs[chosen]), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    network.eval()
    seen = test_images()
    with torch.no_grad():
        answers = network(torch.tensor(seen.inputs)).argmax(1).numpy()
    print(f"top-1 {float((answers == seen.labels).mean()):.4f}")
    return network


def in_floats() -> nn.Module:
    """The network in torch's own layers."""
    return trained(Small(nn.Conv2d, nn.Linear, nn.ReLU, nn.ReLU6, nn.Identity))


def make_brevitas() -> None:
    """QCDQ: 4-bit weights per channel and 4-bit activations, trained so."""
    import brevitas.nn as qnn
    from brevitas.export import export_onnx_qcdq
    from brevitas.quant import Int8WeightPerChannelFloat, Int32Bias

    weights = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": 4}

    def conv(*sizes: int, bias: bool = True, **window: int) -> Any:
        held = {"bias_quant": Int32Bias} if bias else {}
        return qnn.QuantConv2d(*sizes, bias=bias, **window, **weights, **held)

    def linear(*sizes: int) -> Any:
        return qnn.QuantLinear(*sizes, bias=True, **weights, bias_quant=Int32Bias)

    def relu() -> Any:
        return qnn.QuantReLU(bit_width=4, return_quant_tensor=True)

    def entry() -> Any:
        return qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)

    network = trained(Small(conv, linear, relu, relu, entry))
    path = HERE / "brevitas_4bit.onnx"
    example = torch.zeros(1, 1, 28, 28)
    export_onnx_qcdq(
        network, args=example, export_path=str(path), opset_version=15, dynamo=False,
        input_names=["images"], output_names=["logits"],
    )  # fmt: skip
    _tidy(path)


def make_onnxruntime() -> None:
    """quantize_static: QDQ with int8 and int4 weights, symmetric activations, and QOperator."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(training_images().inputs[:CALIBRATING, None])

        def get_next(self) -> Any:
            found = next(self.left, None)
            return None if found is None else {"images": found}

    source = HERE / "float.onnx"
    torch.onnx.export(
        in_floats(), (torch.zeros(1, 1, 28, 28),), str(source), dynamo=False, opset_version=17,
        input_names=["images"], output_names=["logits"],
    )  # fmt: skip
    symmetric = {"ActivationSymmetric": True}
    kinds: dict[str, dict[str, Any]] = {
        "qdq": {},
        "int4": {"weight_type": QuantType.QInt4},
        "symmetric": {"activation_type": QuantType.QInt8, "extra_options": symmetric},
        "asymmetric": {"weight_type": QuantType.QUInt8, "per_channel": False},
        "operators": {"quant_format": QuantFormat.QOperator},
    }
    for name, options in kinds.items():
        path = HERE / f"onnxruntime_{name}.onnx"
        defaults: dict[str, Any] = {
            "quant_format": QuantFormat.QDQ, "per_channel": True,
            "weight_type": QuantType.QInt8, "activation_type": QuantType.QUInt8,
        }  # fmt: skip
        quantize_static(str(source), str(path), Reader(), **(defaults | options))
        _tidy(path)
    source.unlink()


def make_torchao() -> None:
    """PT2E with the quantizer for x86, exported by torch.onnx."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    example = (torch.zeros(1, 1, 28, 28),)
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(in_floats(), example).module(), quantizer)
    for image in torch.tensor(training_images().inputs[:CALIBRATING]):
        prepared(image[None])
    path = HERE / "torchao_pt2e.onnx"
    program = torch.onnx.export(
        convert_pt2e(prepared), example, dynamo=True, opset_version=20, verbose=False,
        input_names=["images"], output_names=["logits"],
    )  # fmt: skip
    assert program is not None
    program.save(str(path))
    _tidy(path)


def _tidy(path: Path) -> None:
    """Without traces of the machine, which exporters write beside each node."""
    model = onnx.load(path)
    for part in (model.graph, *model.graph.node, *model.graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
    path.write_bytes(model.SerializeToString(deterministic=True))
    print(path.name, path.stat().st_size)


def main() -> None:
    """Make the files of one tool."""
    makers = {"brevitas": make_brevitas, "onnxruntime": make_onnxruntime, "torchao": make_torchao}
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    makers[sys.argv[1]]()


if __name__ == "__main__":
    main()
