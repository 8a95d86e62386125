"""Networks that were saved whole, `torch.save(net, path)`: the tensors of their `state_dict()`, without their code.

    module_tensors({"model": stand_in, "epoch": 3})    # {"model": {"conv1.0.weight": LazyTensor, ...}, "epoch": 3}

A pickled torch.nn.Module is an object whose state has `_parameters`, `_buffers` and, under `_modules`, its parts.
"""

from __future__ import annotations

from typing import Any

from resnest.checkpoints.lazy_tensor import Refused

TENSORS = ("_parameters", "_buffers")
MOST_TEXT = 2_000_000  # characters of the names in a file, where parts are shared many times; ResNeSt-269 has 100,000


def is_module_state(state: object) -> bool:
    """Whether an object's state is that of a torch.nn.Module."""
    return isinstance(state, dict) and all(isinstance(state.get(name), dict) for name in (*TENSORS, "_modules"))


def module_tensors(content: Any) -> Any:
    """`content` with a mapping of named tensors in place of each network, also within mappings.

    Raises:
        Refused: the networks have no end of parts.
    """
    everything, names = {"": content}, _Names()
    waiting, known = [everything], {id(everything)}
    while waiting:
        mapping = waiting.pop()
        for name, value in mapping.items():
            if (state := getattr(value, "module_state", None)) is not None:
                mapping[name] = _tensors_of(state, names)
            elif isinstance(value, dict) and id(value) not in known:
                known.add(id(value))
                waiting.append(value)
    return everything[""]


class _Names:
    """Makes the names of parts and tensors, a limited amount of text in all."""

    def __init__(self) -> None:
        self.left = MOST_TEXT

    def __call__(self, prefix: str, name: object, end: str = "") -> str:
        self.left -= len(prefix) + len(text := str(name)) + 1
        if self.left < 0:
            raise Refused("a network in it has no end of parts")
        return f"{prefix}{text}{end}"


def _tensors_of(state: dict[str, Any], names: _Names) -> dict[str, Any]:
    """The tensors of a network by their names."""
    found: dict[str, Any] = {}
    waiting = [("", state)]
    while waiting:
        prefix, state = waiting.pop()
        for kind in TENSORS:
            tensors = {names(prefix, name): value for name, value in state[kind].items()}
            found.update({name: value for name, value in tensors.items() if value is not None})
        inner = {names(prefix, name, "."): part for name, part in state["_modules"].items()}
        waiting += [(name, own) for name, part in inner.items() if (own := getattr(part, "module_state", None))]
    return found
