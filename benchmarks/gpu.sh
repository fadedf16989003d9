#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in under nine minutes: correctness first, then the numbers.
#
#     benchmarks/gpu.sh                  from the root of the repository; results go to benchmarks/results
#     OUT=DIR DATA_DIR=DIR benchmarks/gpu.sh     elsewhere; DATA_DIR: the folder with MNIST's four files, for `train`
#     DRY=1 benchmarks/gpu.sh            print the commands and run none
#
# It needs python3 with this package, CuPy, PyTorch and JAX; what is missing is said and left out. A part that fails does
# not stop the next; the exit code is 1 if any part failed.

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
out=${OUT:-benchmarks/results}
dry=${DRY:-}
data_dir=${DATA_DIR:-}
total=530 # seconds for all parts together
names=() codes=() failed=0

note() { # a part that did not run, or its exit code
    names+=("$1") codes+=("$2")
}

part() { # part NAME SECONDS COMMAND...: run it for at most so long, and go on
    local name=$1 limit=$2 left=$((total - SECONDS)) code
    shift 2
    echo
    echo "== $name: $*"
    if [ -n "$dry" ]; then
        note "$name" dry
        return
    fi
    if [ "$left" -lt 5 ]; then
        echo "no time left"
        note "$name" "no time left"
        failed=1
        return
    fi
    timeout --kill-after=10 "$((limit < left ? limit : left))" "$@" 2>&1
    code=$?
    note "$name" "$code"
    [ "$code" -eq 0 ] || failed=1
}

bench() { # bench NAME SECONDS FILE COMMAND...: a measurement on the GPU; FILE "" for none
    local name=$1 limit=$2 file=$3
    shift 3
    part "$name" "$limit" python3 -m benchmarks "$@" --backend cupy ${file:+--json "$out/$file"}
}

sanitizer() { # sanitizer TOOL SECONDS: a short training run under compute-sanitizer
    if [ -z "$checker" ]; then
        note "$1" "skipped: compute-sanitizer is not installed"
        return
    fi
    part "$1" "$2" "$checker" --tool "$1" --error-exitcode 9 \
        python3 -m tinyvae.train --data digits --backend cupy --epochs 1 --quiet --no-figures --out "$scratch/$1"
}

export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out"
checker=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2>/dev/null)
slug=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr 'A-Z' 'a-z' | tr -cs 'a-z0-9\n' '-')
slug=${slug:-gpu}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo "no NVIDIA driver answers"
for library in numpy matplotlib rich safetensors pooch cupy torch jax pytest pytest_timeout hypothesis; do
    python3 -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$library') is None)" ||
        echo "missing: $library (python3 -m pip install -e '.[cuda13,bench,test]')"
done

main=784-400-20
part parity 100 python3 -m pytest -q tests/device/test_gpu.py
bench check 90 "" check --tf32 --candidates tinyvae "torch eager" "torch cuda graph" "jax jit" "jax scan"
sanitizer memcheck 60
bench step 150 "step-$slug.json" step --rounds 5 --shapes $main 784-512-2 784-200-200-50
bench step-tf32 80 "step-$slug-tf32.json" step --rounds 5 --shapes $main 784-512-2 --tf32
if [ -n "$data_dir" ]; then
    bench train 60 "train-$slug.json" train --rounds 3 --data-dir "$data_dir"
    bench train-tf32 50 "train-$slug-tf32.json" train --rounds 3 --data-dir "$data_dir" --tf32
else
    note train "skipped: DATA_DIR does not say where MNIST is"
fi
bench kernels 40 "kernels-$slug.json" kernels --rounds 3
bench scaling 60 "scaling-$slug.json" scaling --rounds 3
bench kernels-tf32 40 "kernels-$slug-tf32.json" kernels --rounds 3 --tf32
bench scaling-tf32 60 "scaling-$slug-tf32.json" scaling --rounds 3 --tf32
sanitizer racecheck 60
sanitizer initcheck 60

echo
echo "exit codes, after $SECONDS s"
for i in "${!names[@]}"; do
    printf '%-14s %s\n' "${names[i]}" "${codes[i]}"
done
exit "$failed"
