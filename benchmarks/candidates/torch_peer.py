"""PyTorch at full strength: parameters as plain tensors, fused Adam, eager, compiled, or the step as one CUDA graph."""

from collections.abc import Iterator
from typing import Any

import torch  # pyright: ignore[reportMissingImports]  # not installed for the type checker, here and below
from torch.nn import functional as F  # noqa: N812 - its usual name  # pyright: ignore[reportMissingImports] - see above

from benchmarks.candidates import timing
from benchmarks.shapes import LR, SCALE, Given, Shape

WARMUP = 3  # steps before a graph is captured, as PyTorch's notes on CUDA graphs ask for
COMPILE = {"cpu": "default", "cuda": "reduce-overhead"}  # the latter puts the compiled parts in CUDA graphs


class TorchPeer:
    """`loss` and `step` are the whole of it."""

    def __init__(self, shape: Shape, kind: str, device: str) -> None:
        self.shape, self.kind, self.device = shape, kind, device
        self.activation = getattr(torch, shape.activation)
        self.data = torch.from_numpy(shape.pixels()).to(device)  # (rows, data), bytes
        self.parameters: list[Any] = []
        self.loss_of = self.loss
        if kind == "compile":
            torch.compiler.reset()  # a process measures several shapes: none is to be compiled for the ones before
            self.loss_of = torch.compile(self.loss, mode=COMPILE[device], dynamic=False)
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """The initial weights (out, in), as F.linear wants them, and a new Adam. Parameters keep their addresses."""
        weights = [torch.from_numpy(a.copy()) for a in self.shape.weights(seed).values()]
        weights = [(a.t().contiguous() if a.ndim == 2 else a).to(self.device) for a in weights]
        if self.parameters:
            with torch.no_grad():
                for p, p0 in zip(self.parameters, weights, strict=True):
                    p.copy_(p0)
                    p.grad = None
        else:
            self.parameters = [a.requires_grad_() for a in weights]
            if self.kind == "compile" and self.device == "cuda":  # else each replay of its graphs would copy them
                for p in self.parameters:
                    torch._dynamo.mark_static_address(p)
        capturable = {"capturable": True} if self.kind == "graph" else {}
        self.adam = torch.optim.Adam(self.parameters, lr=LR, fused=True, **capturable)

    def loss(self, x: Any, eps: Any, parameters: list[Any]) -> Any:
        """Minus the ELBO, mean over the batch.  x (batch, data), eps (batch, latent)."""
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        encoder, decoder = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        h = x
        for W, b in encoder[:-1]:
            h = self.activation(F.linear(h, W, b))
        mu, logvar = F.linear(h, *encoder[-1]).chunk(2, dim=1)
        h = mu + torch.exp(0.5 * logvar) * eps
        for W, b in decoder[:-1]:
            h = self.activation(F.linear(h, W, b))
        logits = F.linear(h, *decoder[-1])
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return (nll + kl) / x.shape[0]

    def step(self, rows: Any, eps: Any = None, u: Any = None) -> Any:
        """One training step; noise that is not given is drawn. -> the loss, on the device."""
        x = self.data.index_select(0, rows).to(torch.float32).mul_(SCALE)  # (batch, data)
        if self.shape.dynamic:
            u = torch.rand_like(x) if u is None else u
            x = (u < x).to(torch.float32)
        if eps is None:
            eps = torch.randn(x.shape[0], self.shape.latent, device=self.device)
        if self.kind == "compile":
            torch.compiler.cudagraph_mark_step_begin()
        self.adam.zero_grad(set_to_none=True)
        loss = self.loss_of(x, eps, self.parameters)
        loss.backward()
        self.adam.step()
        return loss.detach()

    def given_losses(self, batches: list[Given]) -> list[float]:
        self.reset()
        return [self.step(*self.on_device(batch)).item() for batch in batches]

    def on_device(self, batch: Given) -> tuple[Any, Any, Any]:
        rows, eps, u = (torch.from_numpy(a).to(self.device) for a in batch)
        return rows, eps, u

    def batches_of_rows(self) -> Iterator[Any]:
        """Slices of each epoch's order, which is on the device as a whole."""
        for order in self.shape.orders():
            yield from torch.from_numpy(order).to(self.device).split(self.shape.batch)

    def wait(self, loss: Any) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
        else:
            loss.item()

    def step_times(self, warmup: int, steps: int) -> list[float]:
        self.reset()
        return timing.step_times(self.step, self.batches_of_rows(), self.wait, warmup, steps)

    def throughput(self, steps: int) -> float:
        self.reset()
        return timing.throughput(self.step, self.batches_of_rows(), self.wait, steps)


class GraphPeer(TorchPeer):
    """The whole step, noise and Adam included, captured once as a CUDA graph and replayed."""

    def capture(self, given: bool) -> None:
        """The graph reads the rows (and given noise) from static tensors and leaves the loss in one."""
        self.reset()
        s = self.shape
        self.rows = torch.zeros(s.batch, dtype=torch.int64, device=self.device)
        self.eps = torch.zeros(s.batch, s.latent, device=self.device)
        self.u = torch.zeros(s.batch, s.data_dim, device=self.device)
        noise = (self.eps, self.u) if given else ()
        start = [p.detach().clone() for p in self.parameters]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMUP):
                self.step(self.rows, *noise)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():  # undo the warm-up, in place: the graph keeps the addresses
            for p, p0 in zip(self.parameters, start, strict=True):
                p.copy_(p0)
                for moment in self.adam.state[p].values():
                    moment.zero_()  # step, exp_avg and exp_avg_sq are all tensors on the device
        self.adam.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.static_loss = self.step(self.rows, *noise)

    def replay(self, rows: Any) -> Any:
        self.rows.copy_(rows)
        self.graph.replay()
        return self.static_loss

    def given_losses(self, batches: list[Given]) -> list[float]:
        self.capture(given=True)
        losses = []
        for rows, eps, u in map(self.on_device, batches):
            self.eps.copy_(eps)
            self.u.copy_(u)
            losses.append(self.replay(rows).item())
        return losses

    def step_times(self, warmup: int, steps: int) -> list[float]:
        self.capture(given=False)
        return timing.step_times(self.replay, self.batches_of_rows(), self.wait, warmup, steps)

    def throughput(self, steps: int) -> float:
        self.capture(given=False)
        return timing.throughput(self.replay, self.batches_of_rows(), self.wait, steps)


def build(shape: Shape, kind: str, backend: str, tf32: bool) -> TorchPeer:
    """kind: eager, compile or graph."""
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    device = "cuda" if backend == "cupy" else "cpu"
    return (GraphPeer if kind == "graph" else TorchPeer)(shape, kind, device)
