"""What the stand-in for CuPy has, and which arguments it takes: see `fake_cupy`."""

import numpy as np

# Each table says which arguments may be given. A test compares them with the real CuPy where it is installed.

UFUNCS = (
    "abs", "absolute", "add", "bitwise_and", "bitwise_or", "bitwise_xor", "cos", "divide", "equal", "exp", "expm1",
    "floor", "floor_divide", "greater", "greater_equal", "invert", "isfinite", "isinf", "isnan", "less", "less_equal",
    "log", "log1p", "logical_and", "logical_not", "logical_or", "maximum", "minimum", "multiply", "negative",
    "not_equal", "positive", "power", "reciprocal", "remainder", "rint", "sign", "sin", "sqrt", "square", "subtract",
    "tanh", "true_divide",
)  # fmt: skip

FUNCTIONS = {
    "all": "a, axis=None, out=None, keepdims=False",
    "allclose": "a, b, rtol=1e-05, atol=1e-08, equal_nan=False",
    "amax": "a, axis=None, out=None, keepdims=False",
    "amin": "a, axis=None, out=None, keepdims=False",
    "any": "a, axis=None, out=None, keepdims=False",
    "argmax": "a, axis=None",
    "argmin": "a, axis=None",
    "argsort": "a, axis=-1",
    "array_equal": "a1, a2, equal_nan=False",
    "ascontiguousarray": "a, dtype=None",
    "broadcast_to": "array, shape",
    "clip": "a, a_min, a_max, out=None",
    "concatenate": "tup, /, axis=0, out=None",
    "copyto": "dst, src",
    "count_nonzero": "a, axis=None",
    "cumsum": "a, axis=None, dtype=None, out=None",
    "dot": "a, b, out=None",
    "empty_like": "a, /, dtype=None",
    "expand_dims": "a, axis",
    "flip": "a, axis=None",
    "full_like": "a, fill_value, dtype=None",
    "isclose": "a, b, rtol=1e-05, atol=1e-08, equal_nan=False",
    "matmul": "x1, x2, /, out=None",
    "max": "a, axis=None, out=None, keepdims=False",
    "mean": "a, axis=None, dtype=None, out=None, keepdims=False",
    "min": "a, axis=None, out=None, keepdims=False",
    "moveaxis": "a, source, destination",
    "ones_like": "a, dtype=None",
    "outer": "a, b, out=None",
    "prod": "a, axis=None, dtype=None, out=None, keepdims=False",
    "ravel": "a, order='C'",
    "repeat": "a, repeats, axis=None",
    "reshape": "a, shape, /, order='C'",
    "sort": "a, axis=-1",
    "squeeze": "a, axis=None",
    "stack": "tup, /, axis=0, out=None",
    "std": "a, axis=None, dtype=None, out=None, ddof=0, keepdims=False",
    "sum": "a, axis=None, dtype=None, out=None, keepdims=False",
    "swapaxes": "a, axis1, axis2",
    "take": "a, indices, axis=None, out=None",
    "tensordot": "a, b, axes=2",
    "tile": "a, reps, /",
    "transpose": "a, axes=None",
    "var": "a, axis=None, dtype=None, out=None, ddof=0, keepdims=False",
    "where": "condition, x, y, /",
    "zeros_like": "a, dtype=None",
}

METHODS = {
    "all": "axis=None, out=None, keepdims=False",
    "any": "axis=None, out=None, keepdims=False",
    "argmax": "axis=None",
    "argmin": "axis=None",
    "argsort": "axis=-1",
    "astype": "dtype, *, copy=True",
    "clip": "min=None, max=None, out=None",
    "copy": "order='C'",
    "cumsum": "axis=None, dtype=None, out=None",
    "dot": "b, /, out=None",
    "flatten": "order='C'",
    "max": "axis=None, out=None, keepdims=False",
    "mean": "axis=None, dtype=None, out=None, keepdims=False",
    "min": "axis=None, out=None, keepdims=False",
    "prod": "axis=None, dtype=None, out=None, keepdims=False",
    "ravel": "order='C'",
    "repeat": "repeats, axis=None",
    "reshape": "*shape, order='C'",
    "round": "decimals=0, out=None",
    "sort": "axis=-1",
    "squeeze": "axis=None",
    "std": "axis=None, dtype=None, out=None, ddof=0, keepdims=False",
    "sum": "axis=None, dtype=None, out=None, keepdims=False",
    "swapaxes": "axis1, axis2, /",
    "take": "indices, axis=None, out=None",
    "transpose": "*axes",
    "var": "axis=None, dtype=None, out=None, ddof=0, keepdims=False",
    "view": "dtype=None",
}

CREATION = (  # methods of FakeCupy, which say themselves what they take
    "arange", "array", "asarray", "asnumpy", "empty", "eye", "full", "linspace", "ones", "zeros",
)  # fmt: skip

SAME_AS_NUMPY = (
    "bool_", "dtype", "finfo", "float16", "float32", "float64", "iinfo", "inf", "int8", "int16", "int32", "int64",
    "nan", "newaxis", "pi", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip

BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "pow": np.power, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip
COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
UNARY = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}
