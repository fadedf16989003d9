"""A graph as an ONNX model. The only file that needs the package onnx (the extra `onnx`)."""

import json
from typing import Any

import numpy as np
import onnx
from onnx import checker, helper, numpy_helper

from tinyvae import __version__, parts
from tinyvae.errors import ExportError
from tinyvae.export.graph import Graph, Node
from tinyvae.export.model import digest, graphs
from tinyvae.export.shapes import Many
from tinyvae.model.vae import VAE

OPSET, IR = 18, 8  # of onnx 1.13, February 2023: so that runtimes of some years read it
LARGEST = 2**31 - 2**20  # bytes that one file can hold, with a little for the nodes


def onnx_models(model: VAE, **about: Any) -> dict[str, onnx.ModelProto]:
    """The files "encoder" and "decoder", which have passed ONNX's own checker. about: more metadata.

    The metadata says the likelihood, its outputs, the dimensions, and `parameters`, which two files of one model share;
    and where a conditional model has labels of its own, these by their numbers y, as a list in JSON.
    Raises ExportError if a part cannot be written (see `export.model`), or is too large for a file.
    """
    with model.lock:
        halves, parameters, labels = graphs(model), digest(model), model.labels
    likelihood = model.likelihood
    said = {
        "likelihood": parts.text_of(likelihood), "outputs": " ".join(likelihood.outputs), "data_dim": model.data_dim,
        "latent_dim": model.latent_dim, "classes": model.classes, "parameters": parameters, **about,
    }  # fmt: skip
    if labels is not None:
        said["labels"] = json.dumps(labels)
    found = {}
    for name, graph in halves.items():
        found[name] = onnx_model(graph, name, f"{name} of a VAE({model.architecture.as_arguments()})")
        helper.set_model_props(found[name], {key: str(value) for key, value in said.items()})
        checker.check_model(found[name], full_check=True)
    return found


def onnx_model(graph: Graph, name: str, text: str) -> onnx.ModelProto:
    """A graph as a model of that name. Raises ExportError if it is too large for a file."""
    nodes, constants = graph.needed()
    if sum(a.nbytes for a in constants.values()) > LARGEST:
        raise ExportError(f"the {name} has more than 2 GiB of parameters, which one ONNX file cannot hold")
    made = helper.make_graph(
        [_node(node) for node in nodes],
        name,
        [_end(tensor) for tensor in graph.inputs],
        [_end(tensor) for tensor in graph.outputs],
        [numpy_helper.from_array(np.ascontiguousarray(a), at) for at, a in constants.items()],
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="tinyvae",
        producer_version=__version__, doc_string=text,
    )  # fmt: skip


def _node(node: Node) -> onnx.NodeProto:
    attributes = {name: _value(value) for name, value in node.attributes.items()}
    return helper.make_node(node.op, node.inputs, [node.output], node.output, **attributes)


def _value(value: Any) -> Any:
    return helper.np_dtype_to_tensor_dtype(value) if isinstance(value, np.dtype) else value


def _end(tensor: Any) -> onnx.ValueInfoProto:
    shape = ["rows" if isinstance(n, Many) else n for n in tensor.shape]
    return helper.make_tensor_value_info(tensor.name, helper.np_dtype_to_tensor_dtype(tensor.dtype), shape)
