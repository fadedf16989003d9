"""The net under a rebuilding holds: it sees a gradient that changed a little, and what is gone or new."""

import net
import numpy as np
import pytest


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    kept = ("dense", "batch norm", "iwae 5, deep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(net, "MODELS", {name: net.MODELS[name] for name in kept})
        return dict(net.numbers(kernels=("numpy",)))


def test_the_net_is_of_twenty_models_and_holds_still(stored: dict[str, np.ndarray]) -> None:
    assert len(net.MODELS) >= 20
    assert net.compare(stored, {name: a.copy() for name, a in stored.items()}) == []


@pytest.mark.parametrize("part", ["dense | float32 | numpy", "dense | float64 | numpy", "batch norm | float32 | numpy"])
def test_the_net_sees_a_gradient_that_changed_a_little(stored: dict[str, np.ndarray], part: str) -> None:
    name = f"{part} | encoder.0.weight"
    changed = stored[name].copy()
    i = np.unravel_index(abs(changed).argmax(), changed.shape)
    changed[i] = np.nextafter(changed[i], np.inf) if net.must_be_equal(name) else changed[i] * (1 + 2e-5)
    (line,) = net.compare(stored, {**stored, name: changed})
    assert line.startswith(name)


def test_the_net_sees_what_is_gone_and_what_is_new(stored: dict[str, np.ndarray]) -> None:
    name = next(iter(stored))
    rest = {key: a for key, a in stored.items() if key != name}
    assert net.compare(stored, rest) == [f"{name}: is not there any more"]
    assert net.compare(rest, stored) == [f"{name}: was not there before"]
