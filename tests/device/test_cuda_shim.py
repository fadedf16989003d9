"""The table, kernels.cu and the shim agree; the shim sees what it is there to see."""

import re
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import shim
from cuda_on_cpu.running import Kernels, compiled, compiled_from

from tinyvae.kernels.cuda import table
from tinyvae.likelihoods.gaussian import LOG_2PI
from tinyvae.ops import adam
from tinyvae.ops.activations import ACTIVATIONS, LEAKY_SLOPE

SOURCE = shim.SOURCE


# ----------------------------------------------------------------------------------------------- the table and the file


def test_every_signature_is_the_tables() -> None:
    found = re.findall(r'extern "C" __global__ void (\w+)\((.*?)\) \{', SOURCE, re.DOTALL)
    in_file = {name: " ".join(signature.split()) for name, signature in found}
    assert len(found) == len(in_file) == SOURCE.count("__global__")
    assert in_file == {name: kernel.signature for name, kernel in table.KERNELS.items()}
    assert list(in_file) == list(table.KERNELS)  # in the same order


def constants() -> dict[str, float]:
    result = {}
    for line in re.findall(r"constexpr \w+ (\w+ = [^;]*);", SOURCE.split("enum ")[0]):
        for name, value in re.findall(r"(\w+) = ([-\d.e]+)", line):
            result[name] = float(value)
    return result


def test_every_constant_is_pythons() -> None:
    expected = {name: getattr(table, name) for name in ("THREADS", "TILE", "PAIR", "SCHEDULE_COLUMNS")}
    expected |= {"EPS_STREAM": table.EPS_STREAM, "UNIFORM_STREAM": table.UNIFORM_STREAM, "WARP": 32}
    expected |= {"BETA1": adam.BETA1, "BETA2": adam.BETA2, "LEAKY_SLOPE": LEAKY_SLOPE}
    assert constants() == expected | {"LOG_2PI": LOG_2PI}


def names_of_enum(name: str) -> list[str]:
    (body,) = re.findall(rf"enum {name} \{{(.*?)\}}", SOURCE, re.DOTALL)
    names = [part.strip() for part in re.sub(r"//.*", "", body).split(",")]
    return [part.lower().replace("_", "-") for part in names]


def test_the_activations_are_in_the_tables_order() -> None:
    assert tuple(names_of_enum("Activation")) == table.ACTIVATION_NAMES
    assert set(table.ACTIVATION_NAMES) <= set(ACTIVATIONS)


def test_the_columns_of_groups_are_the_tables() -> None:
    names = tuple(name.replace("-", "_") for name in names_of_enum("Group"))
    assert names == (*table.GROUP, "group_columns")


def test_the_file_includes_nothing() -> None:
    assert "#include" not in SOURCE  # NVRTC has no headers
    assert "atomic" not in re.sub(r"//.*", "", SOURCE)


# ------------------------------------------------------------------------------------------------ what the shim refuses


def gathering(data: np.ndarray, x: np.ndarray) -> dict[str, Any]:
    """The arguments with which x, one row, becomes data."""
    order, state = np.zeros(1, np.int32), np.zeros(3, np.uint32)
    numbers = {"rows": 1, "capacity": 1, "columns": data.size, "scale": 1.0, "dynamic": 0}
    return {"data": data, "order": order, "state": state, "x": x, **numbers}


def gather(**changes: Any) -> None:
    data, x = np.ones(3, np.float32), np.zeros(3, np.float32)
    compiled().shim.launch("gather_floats", (1, 1), gathering(data, x) | changes)


def test_a_right_call_is_accepted() -> None:
    gather()
    gather(columns=np.int32(3))
    x = np.zeros(3, np.float32)
    gather(x=x.ctypes.data)
    assert x.tolist() == [1, 1, 1]


@pytest.mark.parametrize("changes", [
    {"x": np.zeros(3)}, {"x": np.zeros(6, np.float32)[::2]}, {"x": [0.0, 0.0, 0.0]}, {"columns": 3.0},
    {"columns": 2**31}, {"columns": "3"}, {"extra": 1}, {"x": np.broadcast_to(np.float32(0), (3,))},
], ids=["float64", "strided", "list", "float", "too large", "string", "unknown", "read-only"])  # fmt: skip
def test_a_wrong_argument_is_a_type_error(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="gather_floats"):
        gather(**changes)


def test_a_missing_argument_and_a_wrong_number_are_type_errors() -> None:
    arguments = gathering(np.zeros(3, np.float32), np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="gather_floats: scale must be a number"):
        compiled().shim.launch("gather_floats", (1, 1), {**arguments, "scale": "0.1"})
    del arguments["data"]
    with pytest.raises(TypeError, match=r"missing arguments \['data'\]"):
        compiled().shim.launch("gather_floats", (1, 1), arguments)


# --------------------------------------------------------------------------------------------------- what the shim sees
# Each of these replaces the body of one kernel, in which `size` is then the number of columns.


def with_body(body: str) -> Kernels:
    start = SOURCE.index("{", SOURCE.index("void gather_floats("))
    end = SOURCE.index("\n}\n", start)
    return compiled_from(SOURCE[:start] + "{\n    const int size = columns;\n" + body + SOURCE[end:])


def run(kernels: Kernels, size: int = 256, order: int = 1) -> list[float]:
    x, u = np.zeros(size, np.float32), np.arange(size, dtype=np.float32)
    kernels.shim.launch("gather_floats", (1, 1), gathering(u, x), seed=order)
    return x.tolist()


@pytest.mark.parametrize(("condition", "message"), [
    ("threadIdx.x < 100", "100 threads wait at __syncthreads; 156 threads have returned"),
    ("threadIdx.x >= 32", "224 threads wait at __syncthreads; 32 threads have returned"),
])  # fmt: skip
def test_a_barrier_that_only_some_threads_reach_is_reported(condition: str, message: str) -> None:
    kernels = with_body(f"if ({condition}) {{ __syncthreads(); }} x[0] = size + data[0];")
    for _ in range(2):  # and the next launch works as well as the first
        with pytest.raises(RuntimeError, match=message):
            run(kernels)
    assert run(with_body("__syncthreads(); x[threadIdx.x] = size + data[0];")) == [256.0] * 256


def test_a_shuffle_that_only_some_lanes_reach_is_reported() -> None:
    kernels = with_body("if (threadIdx.x != 7) x[0] = __shfl_xor_sync(~0u, data[0], 1) + size;")
    with pytest.raises(RuntimeError, match="31 threads wait at a shuffle; 225 threads have returned"):
        run(kernels)


def test_the_order_of_the_threads_comes_from_the_seed() -> None:
    kernels = with_body("__shared__ int n; if (threadIdx.x == 0) n = 0; __syncthreads(); "
                        "x[n++] = data[threadIdx.x]; if (size < 0) return;")  # fmt: skip
    orders = [run(kernels, order=order) for order in (1, 2, 1)]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(256))


def test_shared_memory_is_nan_in_every_block() -> None:
    kernels = with_body("__shared__ float a[256]; x[threadIdx.x] = a[threadIdx.x] + data[0]; "
                        "a[threadIdx.x] = size;")  # fmt: skip
    for _ in range(2):
        assert np.all(np.isnan(run(kernels)))


def test_votes_and_shuffles_mean_what_they_mean_in_cuda() -> None:
    kernels = with_body(
        """
        int i = threadIdx.x, n = __syncthreads_count(i % 3 == 0);
        float other = __shfl_xor_sync(~0u, data[i], 5), down = __shfl_down_sync(~0u, data[i], 4u);
        float third = __shfl_sync(~0u, data[i], 3);
        __syncwarp();
        x[i] = n + __syncthreads_count(i < size) + 1e3f * (other == (i ^ 5)) + 1e4f * (third == i / 32 * 32 + 3) +
               1e5f * (down == (i % 32 < 28 ? i + 4 : i));""",
    )
    assert run(kernels) == [86 + 256 + 1e3 + 1e4 + 1e5] * 256


def test_the_emulated_tensor_core_multiplies_with_the_documented_layout() -> None:
    """One warp, a (16, 8) and b (8, 8) from memory by the PTX manual's indices, d back to memory by them."""
    body = """
        int lane = threadIdx.x, group = lane / 4, member = lane % 4;
        const float *A = data, *B = data + 128;  // (16, 8), (8, 8)
        float d[4] = {};
        unsigned a[4] = {round_to_tf32(A[group * 8 + member]), round_to_tf32(A[(group + 8) * 8 + member]),
                         round_to_tf32(A[group * 8 + member + 4]), round_to_tf32(A[(group + 8) * 8 + member + 4])};
        unsigned b[2] = {round_to_tf32(B[member * 8 + group]), round_to_tf32(B[(member + 4) * 8 + group])};
        mma_m16n8k8_tf32(d, a, b);
        if (size > 0 && lane < 32)
            for (int i = 0; i < 4; i++) x[(group + i / 2 * 8) * 8 + 2 * member + i % 2] = d[i];"""
    kernels = with_body(body)
    rng = np.random.default_rng(0)
    u = (rng.integers(-64, 65, 192 + 1000) / 8).astype(np.float32)
    x = np.zeros(128 + 1000, np.float32)
    kernels.shim.launch("gather_floats", (1, 1), gathering(u, x))
    assert np.array_equal(x[:128].reshape(16, 8), u[:128].reshape(16, 8) @ u[128:192].reshape(8, 8))


def test_tf32_has_ten_bits_and_ties_go_away_from_zero() -> None:
    kernels = with_body("unsigned r = round_to_tf32(data[threadIdx.x]); memcpy(&x[threadIdx.x], &r, 4); "
                        "if (size) return;")  # fmt: skip
    u = np.zeros(256, np.float32)
    u[:6] = [1 + 2**-10, 1 + 2**-11, -1 - 2**-11, 1 + 2**-11 - 2**-23, 3.0, np.inf]
    x = np.zeros(256, np.float32)
    kernels.shim.launch("gather_floats", (1, 1), gathering(u, x))
    assert x[:6].tolist() == [1 + 2**-10, 1 + 2**-10, -1 - 2**-10, 1, 3, np.inf]


def test_without_a_compiler_the_tests_are_skipped_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.skip.Exception, match=r"g\+\+.*apt install g\+\+"):
        shim.build(SOURCE + "\n// a file that is not in the cache\n")


def test_what_does_not_compile_says_so() -> None:
    with pytest.raises(RuntimeError, match="does not compile"):
        shim.build(SOURCE.replace("float slope(float y, int activation)", "float slope(float y)"))
