"""A trained model as ONNX: its own forward pass, run once on kernels that write nodes down instead of computing.

`model.py` is the way in. No layer and no likelihood says how it is exported: what it computes by the kernels'
contract and by formulas is written as it is run, and what it computes otherwise is refused.
"""
