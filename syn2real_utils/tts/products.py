"""A quantised ONNX graph that gives the same bytes in less time: its convolutions as products of matrices.

onnxruntime computes `ConvInteger`, uint8 by uint8, with instructions for 16-bit numbers. For uint8 by int8 it has those made for
8-bit products (VNNI), about twice as fast, but in `MatMulInteger` only. So each convolution becomes the product of its weights
(channels out, taps * channels in) with the input shifted by each tap (taps * channels in, time). All of it is whole numbers:
the sums are the same, and so is everything behind them.
"""

from pathlib import Path
from typing import Any

import numpy as np

HALF = 128  # uint8 - 128 = int8
PROBE = (8, 64)  # shape of the probe: as many rows and columns as a kernel of onnxruntime takes at once


def with_products(stock: Path, fast: Path) -> None:
    """Write the graph of `stock` to `fast` with every convolution of stride 1 as a product."""
    import onnx  # 0.1 s, and only where the graph is made
    from onnx import numpy_helper

    model = onnx.load(stock)
    graph = model.graph
    values = {value.name: value for value in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {"half": np.array(HALF, np.uint8), "time": np.array([2], np.int64)}
    shifted: set[str] = set()
    for node in graph.node:
        if node.op_type != "ConvInteger" or not _plain(node):
            nodes.append(node)
            continue
        source, weights = node.input[0], values[node.input[1]]
        if source not in shifted:
            shifted.add(source)
            nodes += _as_int8(made_by[source])
        nodes += _product(node, numpy_helper.to_array(weights), constants)
        graph.initializer.remove(weights)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.save(model, fast)


def write_probe(path: Path) -> None:
    """Write the smallest graph that shows whether this processor's products are exact: see `exact`."""
    from onnx import TensorProto, helper, save

    rows, inner = PROBE
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["sums"])],
        "probe",
        [
            helper.make_tensor_value_info("a", TensorProto.UINT8, [rows, inner]),
            helper.make_tensor_value_info("b", TensorProto.INT8, [inner, inner]),
        ],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [rows, inner])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def exact(probe: Path) -> bool:
    """Whether products of uint8 and int8 are exact here: processors without VNNI add two of them in 16 bits, which overflow."""
    import onnxruntime

    rows, inner = PROBE
    session = onnxruntime.InferenceSession(str(probe), providers=["CPUExecutionProvider"])
    largest = {"a": np.full((rows, inner), 255, np.uint8), "b": np.full((inner, inner), 127, np.int8)}
    return bool((session.run(None, largest)[0] == 255 * 127 * inner).all())


def _plain(node: Any) -> bool:
    """Stride 1 and one group."""
    found = _attributes(node)
    return found.get("strides", [1]) == [1] and found.get("group", 1) == 1


def _attributes(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}


def _as_int8(quantize: Any) -> list[Any]:
    """What the node DynamicQuantizeLinear gives, once more as int8: 128 less, its zero point too."""
    from onnx import TensorProto, helper

    unsigned, scale, zero = quantize.output
    return [
        helper.make_node("BitwiseXor", [zero, "half"], [f"{zero}_flipped"]),  # of uint8, flipping the top bit and
        helper.make_node("Cast", [f"{zero}_flipped"], [f"{zero}_int8"], to=TensorProto.INT8),  # reading int8 is - 128
        helper.make_node("QuantizeLinear", [quantize.input[0], scale, f"{zero}_int8"], [f"{unsigned}_int8"]),
    ]


def _product(node: Any, weights: np.ndarray, constants: dict[str, np.ndarray]) -> list[Any]:
    """The nodes that stand for a convolution; `weights`: uint8 (channels out, channels in, taps)."""
    from onnx import helper

    name, (source, _, zero, weights_zero) = node.name, node.input
    found = _attributes(node)
    step, (before, behind) = found["dilations"][0], found["pads"]
    out, channels, taps = weights.shape
    constants[f"{name}_weights"] = np.ascontiguousarray(weights.transpose(0, 2, 1).reshape(out, taps * channels))
    nodes, columns = [], f"{source}_int8"  # (1, channels in, time)
    if before or behind:
        constants[f"{name}_pads"] = np.array([0, 0, before, 0, 0, behind], np.int64)
        nodes.append(helper.make_node("Pad", [columns, f"{name}_pads", f"{zero}_int8"], [f"{name}_padded"]))
        columns = f"{name}_padded"
    if taps > 1:
        for tap in range(taps):
            constants[f"{name}_from{tap}"] = np.array([tap * step], np.int64)
            left = (taps - 1 - tap) * step  # samples behind the last that this tap sees
            constants[f"{name}_to{tap}"] = np.array([-left if left else np.iinfo(np.int64).max], np.int64)
            ends = [f"{name}_from{tap}", f"{name}_to{tap}", "time"]
            nodes.append(helper.make_node("Slice", [columns, *ends], [f"{name}_tap{tap}"]))
        taken = [f"{name}_tap{tap}" for tap in range(taps)]
        columns = f"{name}_columns"  # (1, taps * channels in, time)
        nodes.append(helper.make_node("Concat", taken, [columns], axis=1))
    factors = [f"{name}_weights", columns, weights_zero, f"{zero}_int8"]
    return [*nodes, helper.make_node("MatMulInteger", factors, [node.output[0]], name=name)]
