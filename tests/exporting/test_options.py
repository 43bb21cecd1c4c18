"""Options: defaults, export.toml below flags, and paths relative to the file that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.emit.tflite_layout import TfliteLayout
from deploykit.errors import ConfigError
from deploykit.exporting.bit_targets import OF_AUTO
from deploykit.exporting.input_shapes import GivenInput, check_batches, parse_inputs, parse_shape
from deploykit.exporting.options import (
    KEYS,
    CheckpointOptions,
    OnnxOptions,
    Source,
    build_options,
    read_config,
    source_of,
)
from deploykit.graph.options import MultipleOf
from deploykit.graph.widths.table import WidthTable
from deploykit.posterior.options import BatchNormMode, PruneRule, PruneSpec
from deploykit.quantize.bits import WeightBits
from deploykit.quantize.calibration import Calibration
from deploykit.spec.inputs import InputSpec
from deploykit.spec.pairs import Target
from deploykit.spec.quantized import Batch, IoType
from tests.exported import SAMPLE

LEAST: dict[str, Any] = {"model": "net.py:build", "input_shape": "1,3,8,8", "data": "data.npz"}


def test_defaults_are_the_documented_ones() -> None:
    options = build_options(LEAST)
    assert options.to == ("onnx", "tflite")
    assert options.quantization.bits == WeightBits(8)
    assert options.quantization.calibration is Calibration.MSE
    assert options.quantization.io is IoType.FLOAT
    assert options.entry == CheckpointOptions(
        "net.py:build",
        {None: GivenInput((1, 3, 8, 8))},
        PruneSpec(PruneRule.FAMILY, None),
        BatchNormMode.KEEP,
    )
    assert options.tflite_layout is TfliteLayout.NHWC
    assert (options.data, options.eval_data) == (Path("data.npz"), None)


def test_what_is_given_overrides_the_file(tmp_path: Path) -> None:
    config = tmp_path / "export.toml"
    config.write_text('model = "net.py:build"\nio = "int8"\ncalibration = "entropy"\n'
                      'input_shape = [1, 3, 8, 8]\ndata = "a.npz"\n', encoding="utf-8")  # fmt: skip
    options = build_options({"io": "uint8", "data": "b.npz", "calibration": None}, config)
    assert options.quantization.io is IoType.UINT8
    assert options.quantization.calibration is Calibration.ENTROPY
    assert options.data == Path("b.npz")
    assert options.entry.inputs == {None: GivenInput((1, 3, 8, 8))}


@pytest.mark.parametrize(("align", "found"), [("none", None), (8, MultipleOf(8))])
def test_widths_asked_for_by_a_flag_need_no_table_that_the_file_names(
    align: str | int, found: MultipleOf | None, tmp_path: Path
) -> None:
    config = tmp_path / "export.toml"
    config.write_text(f'align = "auto"\ntarget = "{WidthTable.names()[0]}"\n', encoding="utf-8")
    assert build_options({**LEAST, "align": align}, config).removal.align == found
    processors = tmp_path / "any.toml"
    processors.write_text('target = "any"\n', encoding="utf-8")
    kept = build_options({**LEAST, "align": align}, processors)
    assert kept.removal.align == found
    assert kept.quantization.target is Target.ANY


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    config = tmp_path / "export.toml"
    config.write_text(
        'model = "net.py:build"\ndata = "a.npz"\neval_data = "/there/b.npz"\n', encoding="utf-8"
    )
    values = read_config(config)
    assert values["model"] == f"{tmp_path / 'net.py'}:build"
    assert values["data"] == tmp_path / "a.npz"
    assert values["eval_data"] == Path("/there/b.npz")


def test_a_package_in_the_file_is_no_path(tmp_path: Path) -> None:
    config = tmp_path / "export.toml"
    config.write_text('model = "package.module:build"\n', encoding="utf-8")
    assert read_config(config)["model"] == "package.module:build"


def test_the_sample_s_file_names_every_option() -> None:
    """All but those that choose between networks, arithmetics or runtimes, and other bits."""
    left_out = {"weights", "numerics", "layer_map", "layer_bits", "min_ort", "plan", *OF_AUTO}
    left_out |= {"temperature", "temperature_data", "activations", "block_size"}
    assert set(read_config(SAMPLE / "export.toml")) == set(KEYS) - left_out


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1,3,224,224", (1, 3, 224, 224)),
        (" 1, 16 ", (1, 16)),
        ([1, 3, 8, 8], (1, 3, 8, 8)),
        (np.array([2, 4]), (2, 4)),
    ],
)
def test_shapes(value: object, expected: tuple[int, ...]) -> None:
    assert parse_shape(value) == expected


@pytest.mark.parametrize(
    "value", ["", "3", "1,x", "1,0,8", "1,-3", 7, [1], [1, 2.5], None, [1, "a"]]
)
def test_what_is_no_shape_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="is no shape; give whole numbers with the batch first"):
        parse_shape(value)


TOKENS = GivenInput((1, 16), "int64")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1,3,8,8", {None: GivenInput((1, 3, 8, 8))}),
        (["1,3,8,8"], {None: GivenInput((1, 3, 8, 8))}),
        ([1, 3, 8, 8], {None: GivenInput((1, 3, 8, 8))}),
        ("1,16:int64", {None: TOKENS}),
        (["audio=1,1,40,98", "meta=1,8"],
         {"audio": GivenInput((1, 1, 40, 98)), "meta": GivenInput((1, 8))}),
        (["a:1,3", "x:0=1,16:int64"], {"a": GivenInput((1, 3)), "x:0": TOKENS}),
        ({"a": [1, 3], "ids": "1,16:int64"}, {"a": GivenInput((1, 3)), "ids": TOKENS}),
        ({"speaker": "1:int32"}, {"speaker": GivenInput((1,), "int32")}),
    ],
)  # fmt: skip
def test_shapes_of_several_inputs(value: object, expected: object) -> None:
    assert parse_inputs(value) == expected


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["a=1,3", "a=1,4"], "gives a twice"),
        (["a=1,3", "1,4"], "--input-shape 1,4 names no input; .* give NAME=SIZES for each"),
        (["a="], "--input-shape a= is no shape"),
        ("a=1,0", "--input-shape a=1,0 is no shape; .* NAME=1,3,224,224, and :int64"),
        ("ids=1,16:int8", "is no shape"),
        ({"a": [1, "x"]}, "is no shape"),
        ({}, "names no input"),
    ],
)
def test_shapes_that_are_none_are_refused(value: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_inputs(value)


def test_a_table_of_shapes_in_export_toml(tmp_path: Path) -> None:
    config = tmp_path / "export.toml"
    config.write_text(
        'model = "net.py:build"\ndata = "a.npz"\n[input_shape]\naudio = [1, 1, 40, 98]\n'
        'tokens = "1,16:int64"\n',
        encoding="utf-8",
    )
    entry = build_options({}, config).entry
    assert entry.inputs == {"audio": GivenInput((1, 1, 40, 98)), "tokens": TOKENS}


def test_inputs_of_different_batches_are_refused() -> None:
    check_batches([InputSpec("a", (2, 3)), InputSpec("b", (2,))])
    told = r"different batches \(a \[2, 3\], b \[1, 3\]\); .* give each the same batch"
    with pytest.raises(ConfigError, match=told):
        check_batches([InputSpec("a", (2, 3)), InputSpec("b", (1, 3))])


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("to", [], "--to names no format"),
        ("to", 5, "--to 5: choose onnx"),
        ("to", ["onnx", "coreml"], "--to coreml"),
        ("bits", "8", "--bits 8"),
        ("bits", True, "--bits True"),
        ("prune_rule", ["snr"], "--prune-rule"),
        ("threshold", "high", "--threshold high is no number"),
        ("threshold", {"conv1": "x"}, "is no number"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(option: str, value: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_options({**LEAST, option: value})


def test_one_format_may_be_a_word_and_doubles_count_once() -> None:
    assert build_options({**LEAST, "to": "tflite"}).to == ("tflite",)
    assert build_options({**LEAST, "to": ["onnx", "onnx"]}).to == ("onnx",)


def test_a_threshold_may_be_one_or_by_layer() -> None:
    for given, kept in ((3, 3.0), ({"a": 1}, {"a": 1.0})):
        entry = build_options({**LEAST, "threshold": given}).entry
        assert isinstance(entry, CheckpointOptions)
        assert entry.pruning.threshold == kept


def test_an_onnx_file_needs_neither_model_nor_shape() -> None:
    assert source_of(Path("a/net.onnx")) is Source.ONNX
    assert source_of(Path("net.onnx.pt")) is Source.CHECKPOINT
    open_sizes = build_options({"data": "d.npz"}, source=Source.ONNX)
    assert open_sizes.entry == OnnxOptions({})
    given = build_options({"data": "d.npz", "input_shape": "1,3,8,8"}, source=Source.ONNX)
    assert given.entry == OnnxOptions({None: GivenInput((1, 3, 8, 8))})


@pytest.mark.parametrize(
    ("option", "value"),
    [("model", "m:f"), ("prune_rule", "none"), ("threshold", 1.0), ("batchnorm", "keep")],
)
def test_options_of_checkpoints_are_refused_for_an_onnx_file(
    option: str, value: object, tmp_path: Path
) -> None:
    flag = option.replace("_", "-")
    with pytest.raises(ConfigError, match=f"--{flag} belongs to checkpoints"):
        build_options({"data": "d.npz", option: value}, source=Source.ONNX)
    config = tmp_path / "export.toml"
    config.write_text(f'data = "d.npz"\n{option} = {value!r}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=f"--{flag} belongs to checkpoints"):
        build_options({}, config, Source.ONNX)


def test_without_a_target_weights_fill_their_range() -> None:
    assert build_options(LEAST).quantization.target is None
    assert build_options({**LEAST, "align": "none"}).quantization.target is None
    table = "litert-x86-avx512vnni-int8"
    assert build_options({**LEAST, "target": table}).quantization.target is None


def test_any_processor_keeps_the_widths_of_the_default() -> None:
    options = build_options({**LEAST, "target": "any"})
    assert options.quantization.target is Target.ANY
    assert options.removal == build_options(LEAST).removal


def test_old_x86_has_no_width_table() -> None:
    options = build_options({**LEAST, "target": "x86-avx2", "align": "auto"})
    assert options.quantization.target is Target.X86_AVX2
    assert options.removal.align is None
    assert options.removal.note == (
        "widths are as removal left them: no width table was measured on x86-avx2"
    )


@pytest.mark.parametrize("target", ["x86-avx2", "any"])
def test_a_target_of_processors_takes_a_number_to_align_to(target: str) -> None:
    options = build_options({**LEAST, "target": target, "align": "8"})
    assert options.removal.align == MultipleOf(8)
    assert options.removal.note == ""


def test_a_target_of_processors_is_about_onnx() -> None:
    with pytest.raises(ConfigError, match=r"--target any is about kernels of ONNX Runtime"):
        build_options({**LEAST, "target": "any", "to": "tflite"})


def test_an_unknown_target_is_told_all_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"--target arm9: give x86-avx2 or any .* host, .*litert"):
        build_options({**LEAST, "target": "arm9"})


def test_the_batch_is_that_of_the_input_shape_unless_asked() -> None:
    assert build_options(LEAST).quantization.batch is Batch.FIXED
    assert build_options({**LEAST, "batch": "dynamic"}).quantization.batch is Batch.DYNAMIC
    with pytest.raises(ConfigError, match="--batch 3: choose one of fixed, dynamic"):
        build_options({**LEAST, "batch": 3})
