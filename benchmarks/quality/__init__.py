"""What each model reaches, and what it is good for: losses and uses, measured on MNIST. See benchmarks/QUALITY.md."""
