"""The state dicts in a checkpoint file, however they are nested, wrapped and named."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

BESIDE = ("latent_avg",)  # tensors of a generator that stand beside its state dict
WRAPPERS = ("module", "_orig_mod")  # what DataParallel and torch.compile put into the names
PARAMETRIZED = {"original0": "_g", "original1": "_v", "original": "_orig", "0._u": "_u", "0._v": "_v"}
DEEPEST, MOST_LOOKED_AT, MOST = 10, 20_000, 256  # levels, containers, state dicts: the search ends in any file
MOST_REPEATED = 1 << 29  # bytes of a tensor that repeats numbers
MOST_PREFIXES = 64  # of one state dict
AVERAGED = re.compile(r"(?<![a-z])(ema|smooth|running|avg|averaged?|shadow|swa)(?![a-z])")
DRAWS = re.compile(r"(?<![a-z])(g|gen|generator|netg|netgen|decoder|dec|synthesis)(?![a-z])")
JUDGES = re.compile(
    r"(?<![a-z])(d|dis|disc|discriminator|netd|critic|encoder|enc|classifier|optim|optimizer|opt)(?![a-z])"
)


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A state dict of a file.

    Attributes:
        name: where it is, `models.netG`; empty if the file is nothing else. Prefixes that all its keys had are part of
            the name.
        state: its tensors, by their keys, in the order of the file.
    """

    name: str
    state: dict[str, Tensor]

    @property
    def rank(self) -> int:
        """Which to try first: 0 averaged, 1 called as generators are, 2 others, 3 called as what judges images."""
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name.replace("G_", "g_")).lower().replace("net_g", "netg")
        name = name.replace("net_d", "netd")
        if JUDGES.search(name):
            return 3
        if AVERAGED.search(name):
            return 0
        return 1 if DRAWS.search(name) else 2


def entries(content: object) -> list[Entry]:
    """All state dicts in what a file holds, those that are likelier a generator's first; see `Entry.rank`.

    A state dict is a mapping of names to two or more tensors; numbers and texts beside them are passed over. Mappings
    and lists are searched to a depth of 10.
    """
    networks: list[Entry] = []
    waiting: deque[tuple[str, object, int]] = deque([("", content, 0)])
    visited = 0
    visited_ids = set[int]()
    while waiting and visited < MOST_LOOKED_AT and len(networks) < MOST:
        name, value, depth = waiting.popleft()
        visited += 1
        if id(value) in visited_ids:  # shared references could make the search endless
            continue
        visited_ids.add(id(value))
        if isinstance(value, Mapping):
            state = {key: item for key, item in value.items() if isinstance(key, str) and _usable(item)}
            if len(state) > 1 or (state and not name):
                networks.append(Entry(name=name, state=state))
            items = [(str(key), item) for key, item in value.items() if isinstance(key, str) or _small(key)]
        elif isinstance(value, list | tuple):
            items = [(str(index), item) for index, item in enumerate(value)]
        else:
            continue
        if depth < DEEPEST:
            containers = [(key, item) for key, item in items if isinstance(item, Mapping | list | tuple)]
            waiting += [(f"{name}.{key}".strip("."), item, depth + 1) for key, item in containers]
    return sorted((_with_tensors_beside(entry, content) for entry in networks), key=lambda entry: entry.rank)


def prefixed(entry: Entry) -> Iterator[Entry]:
    """The entry, and its parts under each prefix that keys have: of `netG.main.0.weight` those of `netG.`, ….

    Shorter prefixes come first.
    """
    yield entry
    prefixes = dict.fromkeys(
        ".".join(parts[:count]) for key in entry.state for parts in [key.split(".")] for count in range(1, len(parts))
    )
    for prefix in sorted(prefixes, key=lambda prefix: prefix.count("."))[:MOST_PREFIXES]:
        inside = {key[len(prefix) + 1 :]: value for key, value in entry.state.items() if key.startswith(f"{prefix}.")}
        if len(inside) > 1:
            yield Entry(name=f"{entry.name}.{prefix}".strip("."), state=inside)


def fitting(networks: Iterable[Entry], fits: Callable[[Entry], T | None]) -> list[tuple[Entry, T]]:
    """Of all entries and their parts those that fit, with what `fits` returned; parts of one that fits are left out."""
    matches: list[tuple[Entry, T]] = []
    for network in networks:
        matched_names: list[str] = []
        for part in prefixed(network):
            is_inside = any(not name or part.name.startswith(f"{name}.") for name in matched_names)
            result = None if is_inside else fits(part)
            if result is not None:
                matches.append((part, result))
                matched_names.append(part.name)
    return matches


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the `module.` and `_orig_mod.` that wrappers put into the names.

    >>> list(unwrapped({"module.main._orig_mod.0.weight": torch.zeros(1)}))
    ['main.0.weight']
    """
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        *above, last = key.split(".")
        plain[".".join([*(word for word in above if word not in WRAPPERS), last])] = value
    return plain


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight norm and PyTorch's spectral norm, in their older and newer spelling, worked into the weights.

    Sources: Salimans and Kingma 2016, equation 2; Miyato et al. 2018, equation 8, with the vectors that the file keeps.
    """
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        layer, parametrized, below = f".{key}".rpartition(".parametrizations.")
        name, _, role = below.partition(".")
        suffix = PARAMETRIZED.get(role) if parametrized else None
        plain[key if suffix is None else f"{layer}.{name}{suffix}".removeprefix(".")] = value
    return _folded(plain)


def _folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        stem = key.rpartition("_")[0]
        if key.endswith("weight_orig") and f"{stem}_u" in state:
            plain[stem] = _spectral(value, state[f"{stem}_u"], state.get(f"{stem}_v"))
        elif key.endswith("weight_g") and f"{stem}_v" in state:
            plain[stem] = _weight_norm(value, state[f"{stem}_v"])
        elif key.endswith(("weight_u", "weight_v")) and {f"{stem}_orig", f"{stem}_g"} & set(state):
            continue
        else:
            plain[key] = value
    return plain


def _weight_norm(length: Tensor, direction: Tensor) -> Tensor:
    """g · v / |v|, the norm over all axes along which g has the size 1."""
    axes = [axis for axis, size in enumerate(length.shape) if size == 1] or list(range(1, direction.ndim))
    norm = direction.float().square().sum(axes, keepdim=True).sqrt()
    return direction * (length / norm) if length.ndim == direction.ndim else direction


def _spectral(weight: Tensor, u: Tensor, v: Tensor | None) -> Tensor:
    """The weight divided by u · W v, where W is the matrix of which u is a left vector: axis 1 for transposed ones."""
    axis = 0 if weight.ndim < 2 or weight.shape[0] == u.numel() else 1
    if weight.ndim > 1 and weight.shape[0] == weight.shape[1] and v is not None and weight.ndim == 4:
        # both axes fit: that of which u and v are singular vectors, as power iterations leave them
        axis = 0 if _residual(weight, u, v, 0) <= _residual(weight, u, v, 1) else 1
    matrix = weight.transpose(0, axis).flatten(1).float()
    v = torch.nn.functional.normalize(matrix.T @ u.float(), dim=0) if v is None else v.float()
    return weight / (u.float() @ matrix @ v)


def _residual(weight: Tensor, u: Tensor, v: Tensor, axis: int) -> float:
    matrix = weight.transpose(0, axis).flatten(1).float()
    return float((torch.nn.functional.normalize(matrix @ v.float(), dim=0) - u.float()).norm())


def _usable(value: object) -> bool:
    """Whether it is a plain tensor of real numbers; repeated ones, which the file holds once, could be of any size."""
    if not isinstance(value, Tensor) or value.is_complex() or value.is_meta or value.layout != torch.strided:
        return False
    return value.numel() * value.element_size() <= max(value.untyped_storage().nbytes(), MOST_REPEATED)


def _small(key: object) -> bool:
    return isinstance(key, int) and abs(key) < 10**9


def _with_tensors_beside(entry: Entry, content: object) -> Entry:
    """The entry with what belongs to a generator but stands beside its state dict, see `BESIDE`."""
    if not isinstance(content, Mapping) or not entry.name:
        return entry
    beside = {key: content[key] for key in BESIDE if _usable(content.get(key)) and key not in entry.state}
    return Entry(name=entry.name, state=entry.state | beside) if beside else entry
