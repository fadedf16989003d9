"""Gradient checks: the method (`finite_differences`), and what it is applied to (`operations`, `models`)."""
