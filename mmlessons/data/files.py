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

    Raises ValueError if a file is missing or damaged, or of another version; it names `builder`, the module that makes
    the files again.
    """
    manifest = _manifest(folder / "manifest.json", version, builder)
    return manifest, {name: _bytes(folder / name, digest, builder) for name, digest in manifest["sha256"].items()}


def write(folder: Path, manifest: dict, content: dict[str, bytes], others: dict[str, bytes] | None = None) -> None:
    """写出数据文件和清单，并说出各有多大 / Write data files and their manifest, and say how large each is.

    The manifest ends with the SHA-256 of every file in `content`; `others` (texts of licences, say) are written too,
    and not listed.
    """
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    listing = json.dumps({**manifest, "sha256": sums}, ensure_ascii=False, indent=1) + "\n"
    everything = {**content, "manifest.json": listing.encode(), **(others or {})}
    for name, data in everything.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{name:28} {len(data):8d}")


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
