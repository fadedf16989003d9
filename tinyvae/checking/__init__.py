"""Gradient checks: the method (`finite_differences`), and what it is applied to: `operations`, `activations`, `layers`,
`objectives` and whole `models`. `contracts` has what a part of your own must keep."""
