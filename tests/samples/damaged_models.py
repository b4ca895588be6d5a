"""Damaged and hostile copies of a `.nemo` file."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

Files = dict[str, bytes]
CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
VALUES: list[Any] = [
    None, True, -1, 0, 1, 3, 1.5, 1e300, 10**6, 10**12, -(10**18), "", "x", "auto", "nemo:x", "nemo:../../etc/passwd",
    "../x", [], [[]], [1], [-1, -1], {}, {"a": 1}, "x" * 10_000, float("nan"), "${encoder.d_model}", "${oc.env:HOME}",
]  # fmt: skip
TARGETS = [
    "subprocess.Popen", "os.system", "builtins.eval", "posix.system", "evil_encoder.Encoder", "nemo.utils.nothing.Here",
    "nemo_squeezeformer.commands.inputs.os.system", "nemo.collections.asr.modules.ConformerEncoder", "torch.load", "x",
    5,
]  # fmt: skip
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)


def read(path: Path) -> Files:
    """Return the files of an archive by name."""
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.isfile()]
        return {member.name.removeprefix("./"): archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def write(path: Path, files: Files, links: dict[str, tuple[bytes, str]] | None = None) -> None:
    """Write an archive with ``files``. ``links`` gives the type and the target of other members by name."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, (kind, target) in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)


def with_config(files: Files, change: Callable[[Any], Any]) -> Files:
    """Return the files with a changed configuration."""
    config = yaml.safe_load(files[CONFIG])
    change(config)
    return files | {CONFIG: yaml.safe_dump(config).encode()}


def with_weights(files: Files, change: Callable[[dict[str, Any]], Any]) -> Files:
    """Return the files with changed weights."""
    weights = torch.load(io.BytesIO(files[WEIGHTS]))
    changed = change(weights)
    content = io.BytesIO()
    torch.save(weights if changed is None else changed, content)
    return files | {WEIGHTS: content.getvalue()}


def damage(path: Path, files: Files, canary: Path, drawn: random.Random) -> str:
    """Write a damaged archive to ``path`` and return the kind of damage. ``canary`` is a file outside."""
    kind = drawn.choice(list(KINDS))
    KINDS[kind](path, dict(files), canary, drawn)
    return kind


def _truncated(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    write(path, files)
    content = path.read_bytes()
    path.write_bytes(content[: drawn.randrange(len(content))])


def _flipped(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    write(path, files)
    content = bytearray(path.read_bytes())
    headers = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
    for _ in range(drawn.choice([1, 4, 64])):
        at = drawn.choice([drawn.choice(headers) + drawn.randrange(512), drawn.randrange(len(content))])
        content[at] = drawn.choice([0, 0xFF, 0x80, drawn.randrange(256)])
    path.write_bytes(content)


def _members(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    name = drawn.choice(sorted(files))
    content = files.pop(name)
    new = {1: f"{name}.bak", 2: f"sub/{name}", 3: name.upper(), 4: f"../{name}", 5: f"/{name}", 6: f"./{name}"}
    number = drawn.randrange(7)
    write(path, files | ({new[number]: content} if number else {}))


def _links(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    name = drawn.choice([*files, "more"])
    files.pop(name, None)
    target = drawn.choice([str(canary), "../../../../etc/passwd", CONFIG, "/dev/zero"])
    write(path, files, {name: (drawn.choice(LINKS), target)})


def _outside(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    name = drawn.choice([f"../{canary.name}", str(canary), "a/../../x", "/tmp/x", ".."])
    write(path, files | {name: b"overwritten"})


def _compressed(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    write(path, files)
    content = gzip.compress(path.read_bytes(), compresslevel=1)
    cut = drawn.choice([len(content), drawn.randrange(len(content))])
    path.write_bytes(content[:cut] if drawn.random() < 0.7 else content[: cut // 2] + b"\0" + content[cut // 2 + 1 :])


def _values(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    def change(config: Any) -> None:
        for _ in range(drawn.choice([1, 1, 2])):
            sections = [config, *(it for it in config.values() if isinstance(it, dict) and it)]
            section = drawn.choice(sections)
            key = drawn.choice(sorted(section))
            if drawn.random() < 0.15:
                del section[key]
            else:
                section[key] = drawn.choice([*VALUES, str(canary)])

    write(path, with_config(files, change))


def _targets(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    def change(config: Any) -> None:
        name, target = drawn.choice(["", "encoder", "preprocessor", "decoder"]), drawn.choice(TARGETS)
        if name:
            config[name] = {**config[name], "_target_": target} if drawn.random() < 0.5 else {"_target_": target}
        else:
            config["target"] = target

    write(path, with_config(files, change))


def _bombs(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    nested = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    texts = "".join(f"b{i}: ${{b{i + 1}}}${{b{i + 1}}}\n" for i in range(40)) + f"b40: {'x' * 1000}\n"
    more = [
        nested,
        texts,
        "c: &c [*c]\n",
        "d: " + "[" * 100_000,
        "e: " + "9" * 100_000,
        "f: !!python/object/apply:os.system [x]",
    ]
    files[CONFIG] += b"\n" + drawn.choice(more).encode()
    write(path, files)


def _text(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    name = drawn.choice(sorted(files))
    content = bytearray(files[name])
    for _ in range(drawn.choice([1, 3, 30])):
        content[drawn.randrange(len(content))] = drawn.choice([0, 0x09, 0x3A, 0xFF, drawn.randrange(256)])
    files[name] = bytes(content[: drawn.choice([len(content), drawn.randrange(len(content))])])
    write(path, files)


def _weights(path: Path, files: Files, canary: Path, drawn: random.Random) -> None:
    def change(weights: dict[str, Any]) -> Any:
        name, kind = drawn.choice(sorted(weights)), drawn.randrange(7)
        if kind == 0:
            del weights[name]
        elif kind == 1:
            weights["more"] = torch.zeros(2)
        elif kind == 2:
            weights[name] = weights[name].to(drawn.choice([torch.int8, torch.bool, torch.float16, torch.complex64]))
        elif kind == 3:
            weights[name] = torch.zeros(drawn.choice([(0,), (), (3, 3), (2, 2, 2)]))
        elif kind == 4:
            weights[name] = weights[name] * float("nan")
        elif kind == 5:
            weights[name] = drawn.choice([None, 5, "x", [1], {"a": 1}])
        else:
            return drawn.choice([[], {}, None, list(weights.values()), torch.zeros(3), {1: torch.zeros(1)}])
        return None

    write(path, with_weights(files, change))


KINDS: dict[str, Callable[[Path, Files, Path, random.Random], None]] = {
    "truncated": _truncated,
    "flipped": _flipped,
    "members": _members,
    "links": _links,
    "outside": _outside,
    "compressed": _compressed,
    "values": _values,
    "targets": _targets,
    "bombs": _bombs,
    "text": _text,
    "weights": _weights,
}
