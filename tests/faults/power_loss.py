"""What may be on the disk after the power has failed, given a log of calls: only what was fsynced is sure to be.

The model is POSIX's, the strictest: a file's bytes are safe once the file is fsynced, a name (new, renamed or deleted)
once its folder is. What is not safe may be there or not, in any mixture; bytes that are not are gone. A rename within a
folder is whole or not done.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from injector import Call

Tree = dict[str, bytes]  # of a folder: path in it (a folder's ends in /) to contents
ALL_MIXTURES = 3  # of so many unsafe changes every mixture is tried, of more the first few and each alone


@dataclass(eq=False)
class Node:
    """A file, or a folder with its names: as the process sees them, and as the disk surely has them."""

    is_folder: bool
    content: bytes = b""  # what was last fsynced
    is_safe: bool = True  # nothing was written since
    names: dict[str, "Node"] = field(default_factory=dict)
    safe_names: dict[str, "Node"] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """Names that a call has set, or deleted (None), in a folder, and that are not safe yet."""

    folder: Node
    names: tuple[tuple[str, Node | None], ...]
    call: Call


class Disk:
    """The files under `root` while the calls of a log are done one by one."""

    def __init__(self, root: Path, before: Tree) -> None:
        self.root, self.top, self.unsafe = root, Node(is_folder=True), list[Change]()
        for name, content in sorted(before.items()):
            folder, last = self._find(root / name)
            assert folder
            node = Node(name.endswith("/"), content)
            folder.names[last] = folder.safe_names[last] = node

    def do(self, call: Call, copies: Path) -> None:
        """A call was done. copies: the log's path, whose .1, .2, ... hold what was fsynced."""
        if not call.ok:
            return
        folder, name = self._find(Path(call.path))
        node = self.top if Path(call.path) == self.root else folder.names.get(name) if folder else None
        if call.kind == "fsync" and node:
            if node.is_folder:
                self._fsync_folder(node)
            else:
                node.content = Path(f"{copies}.{call.outcome.split()[1]}").read_bytes()
                node.is_safe = True
        elif call.kind in ("write", "truncate") and node:
            node.is_safe = False
        elif call.kind == "mkdir" and folder:
            self._change(call, folder, (name, Node(is_folder=True)))
        elif call.kind == "open" and folder and node is None:
            self._change(call, folder, (name, Node(is_folder=False, is_safe=False)))
        elif call.kind == "unlink" and folder:
            self._change(call, folder, (name, None))
        elif call.kind in ("rename", "link") and folder:
            to, new_name = self._find(Path(call.new_path))
            assert to
            assert to is folder, "from one folder to another: the halves would have to be told apart"
            gone = [(name, None)] if call.kind == "rename" else []
            self._change(call, folder, *gone, (new_name, node))

    def _find(self, path: Path) -> tuple[Node | None, str]:
        """The folder of a path, and the last part."""
        folder: Node | None = self.top
        for part in path.relative_to(self.root).parts[:-1]:
            folder = folder.names.get(part) if folder else None
        return folder, path.name

    def _change(self, call: Call, folder: Node, *names: tuple[str, Node | None]) -> None:
        _set(folder.names, names)
        self.unsafe.append(Change(folder, names, call))

    def _fsync_folder(self, folder: Node) -> None:
        for change in self.unsafe:
            if change.folder is folder:
                _set(folder.safe_names, change.names)
        self.unsafe = [change for change in self.unsafe if change.folder is not folder]

    def mixtures(self) -> Iterator[str]:
        """Which unsafe changes may have reached the disk: a 1 for each that has, a 0 for each that has not."""
        n = len(self.unsafe)
        if n <= ALL_MIXTURES:
            yield from ("".join(each) for each in itertools.product("01", repeat=n))
            return
        for i in range(n + 1):
            yield "1" * i + "0" * (n - i)
            yield "0" * i + "1" + "0" * (n - i - 1) if i < n else "0" * n

    def after_power_loss(self, mixture: str) -> Tree:
        """What is on the disk then."""
        names: dict[Node, dict[str, Node]] = {}
        for change, bit in zip(self.unsafe, mixture, strict=True):
            if bit == "1":
                _set(names.setdefault(change.folder, dict(change.folder.safe_names)), change.names)
        return dict(_walk(self.top, "", names))


def _set(names: dict[str, Node], changes: tuple[tuple[str, Node | None], ...]) -> None:
    for name, node in changes:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _walk(folder: Node, path: str, names: dict[Node, dict[str, Node]]) -> Iterator[tuple[str, bytes]]:
    for name, node in sorted(names.get(folder, folder.safe_names).items()):
        if node.is_folder:
            yield f"{path}{name}/", b""
            yield from _walk(node, f"{path}{name}/", names)
        else:
            yield f"{path}{name}", node.content if node.is_safe else b""
