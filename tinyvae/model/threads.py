"""One model, several threads: a lock of its own, held while a call reads parameters or writes gradients.

    with model.lock:
        losses = model.loss_and_grad(x, eps)
        kept = model.grads.flat.copy()

It is re-entrant: who holds it may call any method of the model. What a method returns is the caller's own. But `grads`
holds the gradient of the last batch, which is another call's soon after: it is read before the lock is given back.
"""

import os
import threading
from typing import Any
from weakref import WeakSet

_owners: WeakSet[Any] = WeakSet()


def new_lock(owner: Any) -> Any:
    """A lock to be kept as `owner.lock`: a process that is forked off later puts another one there."""
    _owners.add(owner)
    return threading.RLock()


def _renew() -> None:
    """In a forked process the thread that held a lock may not exist, and would never give it back."""
    for owner in _owners:
        owner.lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew)
