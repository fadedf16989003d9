"""One run, from data to pictures: data, trainer, checkpoints, metrics, figures."""
