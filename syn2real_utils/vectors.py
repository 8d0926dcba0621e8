"""Task vectors: the equations of SYN2REAL (Su et al., EMNLP 2024) on state dicts. The numbers are ours.

    tau       = theta_real_source - theta_syn_source     (1)  TaskVector.between(syn_source, real_source)
    theta_new = theta_syn_target + lam * tau             (2)  tau.apply(syn_target, lam)
    tau       = mean over source domains d of tau_d      (3)  TaskVector.mean([...]), the ensemble

Which tensors of a state dict are parameters, and so part of a vector, is in parameters.py.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from syn2real_utils import parameters
from syn2real_utils.errors import UserError
from syn2real_utils.parameters import MismatchError, State, check_same, finite


class TaskVector:
    """A direction in weight space: `tensors` maps names of parameters, sorted, to float32."""

    def __init__(self, tensors: State):
        """Take the tensors, without a copy where they are float32."""
        self.tensors = {name: tensors[name].detach().to(torch.float32) for name in sorted(tensors)}

    @classmethod
    def between(cls, base: State, real: State) -> "TaskVector":
        """tau = theta_real_source - theta_syn_source, equation (1); the base is syn_source."""
        return cls(dict(difference(base, real)))

    @classmethod
    def sum(cls, vectors: Iterable["TaskVector"]) -> "TaskVector":
        """tau_1 + ... + tau_n; from a generator, two vectors and their sum are in memory."""
        total, n = _add_up(vectors)
        return total * 1 if n == 1 else total  # tensors of its own

    @classmethod
    def mean(cls, vectors: Iterable["TaskVector"]) -> "TaskVector":
        """(tau_1 + ... + tau_n) / n, equation (3)."""
        total, n = _add_up(vectors)
        return total / n

    def __add__(self, other: "TaskVector") -> "TaskVector":
        """a + b; (a + b) - b is a to within the float32 rounding of a + b."""
        if not isinstance(other, TaskVector):
            return NotImplemented
        check_same(self.shapes(), other.shapes(), "one vector", "the other")
        return TaskVector({name: tensor + other.tensors[name] for name, tensor in self.tensors.items()})

    def __radd__(self, other: object) -> "TaskVector":
        """0 + a: Python's own `sum` begins with 0."""
        return self * 1 if isinstance(other, int) and other == 0 else NotImplemented

    def __sub__(self, other: "TaskVector") -> "TaskVector":
        return self + -other if isinstance(other, TaskVector) else NotImplemented

    def __neg__(self) -> "TaskVector":
        return self * -1

    def __mul__(self, scalar: float) -> "TaskVector":
        """scalar * a."""
        factor = finite(scalar)
        return TaskVector({name: factor * tensor for name, tensor in self.tensors.items()})

    __rmul__ = __mul__

    def __truediv__(self, scalar: float) -> "TaskVector":
        """a / scalar."""
        divisor = finite(scalar)
        if divisor == 0:
            raise ZeroDivisionError("a task vector divided by 0")
        return TaskVector({name: tensor / divisor for name, tensor in self.tensors.items()})

    def shapes(self) -> dict[str, list[int]]:
        """Name -> shape."""
        return {name: list(tensor.shape) for name, tensor in self.tensors.items()}

    def norm(self) -> float:
        """|a|."""
        return self.norms()["all"]

    def norms(self) -> dict[str, float]:
        """|a| of "all" and of each module."""
        return {module: math.sqrt(dot) for module, dot in _dots(self, self).items()}

    def cosine(self, other: "TaskVector") -> float:
        """<a, b> / |a| |b|, nan where a norm is 0. The largest tensors dominate it: see `cosines`."""
        return self.cosines(other)["all"]

    def cosines(self, other: "TaskVector") -> dict[str, float]:
        """The cosine of "all" and of each module."""
        dots, a, b = _dots(self, other), self.norms(), other.norms()
        angles = {m: dots[m] / a[m] / b[m] if a[m] and b[m] else math.nan for m in dots}
        return {m: angle if math.isnan(angle) else max(-1.0, min(1.0, angle)) for m, angle in angles.items()}

    def apply(self, base: State, lam: float) -> dict[str, Tensor]:
        """theta_new = theta_base + lam * tau, equation (2), as a new state; lam = 0 gives the base bit for bit."""
        return dict(self.moved(base, lam))

    @torch.no_grad()
    def moved(self, base: State, lam: float) -> Iterator[tuple[str, Tensor]]:
        """Yield (key, tensor) of theta_base + lam * tau in the base's order: float32 sums, cast to its dtypes.

        Raises:
            MismatchError: the base is of another architecture or size, or quantised.
            UserError: a sum is not finite in the base's dtype.
        """
        factor, model = finite(lam), parameters.tied_as(base, self.tensors)
        names = parameters.owners(model)
        parameters.check_takes(model, self.shapes())
        for key, old in base.items():
            if key not in names or factor == 0:
                yield key, old.clone()
            else:
                new = parameters.parameter(model, key) + factor * self.tensors[names[key]].to(old.device)
                part = parameters.part_of(new, key, old)
                if not parameters.stays_finite(part, part.dtype):
                    raise UserError(f"base + {factor:g} * vector: {parameters.not_finite(key)}")
                yield key, part

    @torch.no_grad()
    def write_into(self, model: State, base: State, lam: float) -> None:
        """Set the tensors of `model`, a state dict, to `apply(base, lam)` without a second model in memory.

        Every call starts from `base` (its parameters at least), so a sweep over lam does not drift. What `moved` raises may
        leave the model half written; lam = 0 makes it the base again.
        """
        parameters.check_writable(model, base)
        for key, tensor in self.moved(base, lam):
            model[key].copy_(tensor)


@torch.no_grad()
def difference(base: State, real: State) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, theta_real - theta_base) in float32, sorted by name, one parameter in memory at a time.

    Raises:
        MismatchError: models of another architecture, size or type, or quantised ones.
    """
    one, other = (parameters.owners(parameters.tied(state)).values() for state in (real, base))
    real, base = parameters.tied_as(real, other), parameters.tied_as(base, one)
    parameters.check_alike(real, base, "the real model", "the synthetic one", dtype=True)
    base_keys = parameters.keys_of(base)
    for name, key in parameters.keys_of(real).items():
        tau = parameters.parameter(real, key) - parameters.parameter(base, base_keys[name])
        yield name, tau.to(torch.float32)


def moved_piece(base: Tensor, tau: Tensor, lam: float, into: Tensor) -> Tensor:
    """theta_base + lam * tau of a piece of a parameter, equation (2); it overwrites the base, and `into` with lam * tau."""
    return base.add_(torch.mul(tau, lam, out=into))


def mean_piece(taus: Sequence[Tensor], into: Tensor) -> Tensor:
    """(tau_1 + ... + tau_n) / n of a piece of a parameter, equation (3), in `into`."""
    total = into.copy_(taus[0])
    for tau in taus[1:]:
        total.add_(tau)
    return total.div_(len(taus))


def _add_up(vectors: Iterable[TaskVector]) -> tuple[TaskVector, int]:
    total, n = None, 0
    for n, vector in enumerate(vectors, 1):  # noqa: B007 - n is used after the loop
        total = vector if total is None else total + vector
    if total is None:
        raise MismatchError("no vectors to add: at least one is needed")
    return total, n


def _dots(a: TaskVector, b: TaskVector) -> dict[str, float]:
    """<a, b> of "all" and of each module, accumulated in float64."""
    check_same(a.shapes(), b.shapes(), "one vector", "the other")
    dots = dict.fromkeys(["all", *map(parameters.module_of, a.tensors)], 0.0)
    for name, tensor in a.tensors.items():
        dot = torch.dot(tensor.double().flatten(), b.tensors[name].double().flatten()).item()
        dots["all"] += dot
        dots[parameters.module_of(name)] += dot
    return dots
