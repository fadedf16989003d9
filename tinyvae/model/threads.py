"""One model, several threads: a lock of its own, held by whatever uses the buffers that its layers share.

    with model.lock:
        output = model.forward(x, eps)
        kept = model.nll.copy()

It is re-entrant: who holds it may call any method of the model. What one call leaves behind in the model (`head`, `z`,
`nll`, `grads`, ...) is another call's soon after, so it is read, or copied, before the lock is given back.
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
