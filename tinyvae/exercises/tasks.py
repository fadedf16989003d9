"""All exercises by name, with what judges them. It needs Hypothesis."""

from tinyvae.exercises import (
    bugs,
    functions_elbo,
    functions_latent,
    functions_layers,
    functions_losses,
    functions_training,
)
from tinyvae.exercises.task import Task

TASKS: dict[str, Task] = {
    task.name: task
    for file in (functions_layers, functions_losses, functions_latent, functions_elbo, functions_training, bugs)
    for task in file.TASKS
}
