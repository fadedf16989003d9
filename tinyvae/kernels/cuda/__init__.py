"""The kernels for NVIDIA GPUs: `kernels.cu` is CUDA C++, `table.py` says how each is called."""
