"""A folder's way to the hub: what would change there is shown first, and nothing is written over unasked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomrl.checkpoints.hub import EXTRA, HubName, require_plain, told
from atomrl.util.errors import UserError
from atomrl.util.optional_imports import extra

NEW, CHANGED, SAME, REMOVED, STAYS = "new", "changed", "same", "removed", "stays"

OWN = re.compile(r"config\.yaml|evaluation\w*\.json")
"""Files that describe the weights of one push, and would be wrong beside those of another that lacks them."""


@dataclass(frozen=True)
class Difference:
    """Between files here and a repository.

    Attributes:
        files: {path in the repository: one of `NEW`, `CHANGED`, `SAME`, `REMOVED`, `STAYS`}.
        commit: that the repository stands at; None: there is none yet.
        private: whether the repository is.
    """

    files: Mapping[str, str]
    commit: str | None
    private: bool | None

    def of(self, state: str) -> list[str]:
        """The files of one state."""
        return [path for path, found in self.files.items() if found == state]


def require_token(name: HubName) -> None:
    """Raise UserError if there is no token, before anything is made ready.

    Raises:
        UserError: there is none, or the extra is missing.
    """
    with extra(EXTRA):
        from huggingface_hub import get_token  # noqa: PLC0415
    if get_token() is None:
        raise UserError(
            f"{name}: writing to the hub takes a token with write permission: log in with `hf auth login`, or give one "
            "in HF_TOKEN; --dry-run and --output need none"
        )


def difference(name: HubName, files: Sequence[Path]) -> Difference:
    """What the hub has of these files.

    Raises:
        UserError: it does not answer, refuses, or the repository holds what `atomrl` could not read.
    """
    with told(name):
        from huggingface_hub import HfApi  # noqa: PLC0415
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError  # noqa: PLC0415

        try:
            found = HfApi().model_info(name.repository, files_metadata=True)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return Difference({path.name: NEW for path in files}, None, None)
    there = {entry.rfilename: entry for entry in found.siblings or ()}
    require_plain(there, name)
    here = {path.name: path for path in files}
    states = {file: _state(path, there.get(file)) for file, path in here.items()}
    others = {file: REMOVED if OWN.fullmatch(file) else STAYS for file in sorted(there.keys() - here.keys())}
    return Difference({**states, **others}, found.sha, found.private)


def upload(name: HubName, files: Sequence[Path], found: Difference, private: bool, message: str) -> str:
    """Make a commit of what differs.

    Args:
        name: of the repository, which is made if there is none.
        files: to be in it.
        found: what was there; if somebody else wrote meanwhile, nothing is written.
        private: make a new repository private.
        message: of the commit.

    Returns:
        The commit.

    Raises:
        UserError: the hub does not answer, or refuses.
    """
    with told(name):
        import httpx2  # noqa: PLC0415
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi  # noqa: PLC0415
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

        api = HfApi()
        if found.commit is None:
            api.create_repo(name.repository, private=private)
        wanted = {*found.of(NEW), *found.of(CHANGED)}
        added = [CommitOperationAdd(path.name, path) for path in files if path.name in wanted]
        removed = [CommitOperationDelete(path) for path in found.of(REMOVED)]
        try:
            made = api.create_commit(
                name.repository, [*added, *removed], commit_message=message, parent_commit=found.commit
            )
        except RuntimeError as error:  # what went wrong with a large file stands behind it
            if isinstance(error.__cause__, HfHubHTTPError | httpx2.TransportError):
                raise error.__cause__ from error
            raise
    return str(made.oid)


def _state(path: Path, there: Any) -> str:
    """Of one file."""
    if there is None:
        return NEW
    content = path.read_bytes()
    if there.lfs is not None:
        return SAME if hashlib.sha256(content).hexdigest() == there.lfs.sha256 else CHANGED
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return SAME if blob.hexdigest() == there.blob_id else CHANGED
