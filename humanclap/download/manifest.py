"""What a file without a published checksum was at its first use; later uses are held to it."""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A file on the hub, or elsewhere; `revision` and `sha256` are None where nobody has written them down yet."""

    repository: str
    file: str
    revision: str | None = None
    sha256: str | None = None


def held_in_manifest(repository: str, file: str, folder: str | os.PathLike | None = None) -> Published | None:
    """What was found at the first use of an unpinned file, or None before that.

    `folder` is that of the manifest, by default the hub's cache. Raises ValueError for an entry that can't be read.
    """
    path = _entry(repository, file, folder)
    try:
        return Published(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} can't be read ({error}); remove it to resolve {repository} anew") from error


def hold_to_manifest(found: Published, folder: str | os.PathLike | None = None, write: bool = True) -> None:
    """Write down the first use of an unpinned file. Raises ValueError where a later use differs from it.

    A revision of None (a file brought by hand) differs from no other. Without `write`, only the latter.
    """
    path = _entry(found.repository, found.file, folder)
    held = held_in_manifest(found.repository, found.file, folder)
    if held is None:
        _write(path, found) if write else None
    elif held.sha256 != found.sha256 or (None not in (held.revision, found.revision) and held != found):
        raise ValueError(
            f"{found.repository} {found.file} is not what it was at its first use: that was revision "
            f"{held.revision}, sha256 {held.sha256}; this is {found.revision}, {found.sha256}. To accept "
            f"it, remove {path}"
        )


def _entry(repository: str, file: str, folder: str | os.PathLike | None) -> Path:
    if folder is None:
        from huggingface_hub import constants

        folder = constants.HF_HUB_CACHE
    # One small file each, so that two processes never rewrite each other's entries.
    name = re.sub(r"[^\w.+-]+", "--", f"{repository}--{file}")
    return Path(folder) / "humanclap-manifest" / f"{name}.json"


def _write(path: Path, found: Published) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:  # a folder that others own; what is in it does not change either
        _log.warning("the manifest %s can't be written (%s)", path, error.strerror)
    finally:
        part.unlink(missing_ok=True)
