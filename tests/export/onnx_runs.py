"""Graphs of a test as ONNX models, and what a runtime makes of them."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from tinyvae.export.file import onnx_model
from tinyvae.export.graph import Graph
from tinyvae.export.shapes import Many

QUIET = 4  # only fatal errors: ONNX Runtime prints what it raises, too


def of_graph(graph: Graph) -> onnx.ModelProto:
    """Checked as `onnx_models` checks its files; and every tensor is of the shape and dtype that ONNX infers for it."""
    model = onnx_model(graph, "test", "a test")
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    ours = {t.name: t for t in graph._known.values()}
    for value in inferred.graph.value_info:
        kind, tensor = value.type.tensor_type, ours[value.name]
        assert onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) == tensor.dtype, value
        assert len(kind.shape.dim) == tensor.ndim, (value, tensor)
        for n, size in zip(kind.shape.dim, tensor.shape, strict=True):
            assert isinstance(size, Many) or not n.HasField("dim_value") or n.dim_value == size, (value, tensor)
            assert not isinstance(size, Many) or not n.HasField("dim_value"), (value, tensor)
    return model


def run(model: onnx.ModelProto, **given: Any) -> dict[str, np.ndarray]:
    """The outputs by name. By ONNX Runtime; its CPU has no convolution in float64, which ONNX's own evaluator has."""
    names = [o.name for o in model.graph.output]
    double = any(i.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE for i in model.graph.input)
    convolution = any(n.op_type in ("Conv", "ConvTranspose") for n in model.graph.node)
    ready: Any = ReferenceEvaluator(model) if double and convolution else session(model)
    return dict(zip(names, ready.run(None, given), strict=True))


def session(model: onnx.ModelProto) -> Any:
    """By ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, QUIET
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
