"""随包附带的数据文件：读取并核对 / Data files shipped with the package: read and checked.

每个数据集的文件夹里有一份 manifest.json，记着版本和每个文件的 SHA-256；任何一处不符，都不载入。

The folder of each data set has a manifest.json with the version and the SHA-256 of every file; if anything does not
match, nothing is loaded.
"""

import hashlib
import json
from pathlib import Path

from mmcore import checks


def read(folder: Path, version: int, builder: str) -> tuple[dict, dict[str, bytes]]:
    """清单，以及其中每个文件的字节 / The manifest, and the bytes of every file that it lists.

    `builder`：能重做这些文件的模块，写进错误里。

    `builder`: the module that makes the files again; errors name it.

    Raises: ValueError 某个文件缺失、损坏，或版本不符 / if a file is missing or damaged, or of another version.
    """
    manifest = _manifest(folder / "manifest.json", version, builder)
    return manifest, {name: _bytes(folder / name, digest, builder) for name, digest in manifest["sha256"].items()}


def _manifest(path: Path, version: int, builder: str) -> dict:
    try:
        manifest = json.loads(_bytes(path, None, builder))
    except (json.JSONDecodeError, UnicodeDecodeError):
        manifest = None
    checks.require(isinstance(manifest, dict), f"数据文件 {path.name} 已损坏；请重新安装 mmcore",
                   f"the data file {path.name} is damaged; install mmcore again")
    found = manifest.get("version")
    checks.require(found == version, f"{path.name} 需要是版本 {version}，收到 {found}",
                   f"{path.name} must be version {version}, got {found}")
    return manifest


def _bytes(path: Path, digest: str | None, builder: str) -> bytes:
    checks.require(path.is_file(),
                   f"缺少数据文件 {path.name}；请重新安装 mmcore，或运行 python -m {builder} 重做",
                   f"the data file {path.name} is missing; install mmcore again, or make it again with "
                   f"python -m {builder}")
    data = path.read_bytes()
    checks.require(digest is None or hashlib.sha256(data).hexdigest() == digest,
                   f"数据文件 {path.name} 已损坏（校验和不符）；请重新安装 mmcore",
                   f"the data file {path.name} is damaged (its checksum does not match); install mmcore again")
    return data
