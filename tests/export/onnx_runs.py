"""Graphs of a test as ONNX models, and what a runtime makes of them."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from tinyvae.export.file import onnx_model
from tinyvae.export.graph import Graph

QUIET = 4  # only fatal errors: ONNX Runtime prints what it raises, too


def of_graph(graph: Graph) -> onnx.ModelProto:
    """Checked as `onnx_models` checks its files."""
    model = onnx_model(graph, "test", "a test")
    onnx.checker.check_model(model, full_check=True)
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
