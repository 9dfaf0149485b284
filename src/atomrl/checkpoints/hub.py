"""Models on the Hugging Face hub, `hub:user/name` or `hub:user/name@revision`: weights and their description, no code.

A name is resolved to a commit, and `HubModel.name` says which. Files are fetched by huggingface_hub into its own cache,
where `HF_HUB_OFFLINE=1` finds them without a network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from atomrl.checkpoints.folder import CARD, CONFIG, WEIGHTS
from atomrl.util.errors import UserError, first_line
from atomrl.util.optional_imports import extra

PREFIX, EXTRA = "hub:", "hub"

READ = (WEIGHTS, CARD, CONFIG)
"""All that is fetched of a repository."""

PICKLES = frozenset(
    {".bin", ".ckpt", ".dill", ".h5", ".joblib", ".keras", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
)
CODE = frozenset({".bat", ".dll", ".dylib", ".exe", ".ipynb", ".js", ".jar", ".ps1", ".py", ".pyc", ".sh", ".so"})
"""Endings of files that a repository of weights does not need, and that run where a program loads them."""

NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubName:
    """What a word names.

    Attributes:
        repository: `user/name`.
        revision: branch, tag or commit; None: what is the newest.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + ("" if self.revision is None else f"@{self.revision}")


@dataclass(frozen=True)
class HubModel:
    """What was fetched.

    Attributes:
        name: with the commit as its revision, so that it names these files for ever.
        folder: in the cache, with the files `READ`, as far as there are.
    """

    name: HubName
    folder: Path


def is_hub_name(where: object) -> bool:
    """Whether a word names a model on the hub, and no path."""
    return str(where).startswith(PREFIX)


def hub_name(word: str) -> HubName:
    """Take a word apart.

    Args:
        word: `hub:user/name`, with or without `@revision`; the prefix may be left out.

    Raises:
        UserError: it is no such word.
    """
    if not (match := NAME.fullmatch(word.removeprefix(PREFIX))):
        raise UserError(f"{word}: a model on the hub is {PREFIX}user/name, or {PREFIX}user/name@revision")
    return HubName(match["repository"], match["revision"])


def pins(pinned: object, asked: object) -> bool:
    """Whether a name with a commit may be what another name of the hub, without one, stood for at some time."""
    if not (is_hub_name(pinned) and is_hub_name(asked)):
        return False
    known, wanted = hub_name(str(pinned)), hub_name(str(asked))
    return known.repository == wanted.repository and not COMMIT.fullmatch(wanted.revision or "")


def fetch(word: str) -> HubModel:
    """Fetch a model, or find it in the cache.

    A commit that is in the cache is taken from there. Any other revision is asked of the hub, unless HF_HUB_OFFLINE=1.

    Raises:
        UserError: the extra is missing; there is no such repository or revision, or it is not open to this user; the
            hub does not answer, or is not to be asked and the model is not in the cache; the repository holds pickles,
            code, or no model.
    """
    name = hub_name(word)
    with extra(EXTRA):
        from huggingface_hub import HfApi, constants, snapshot_download  # noqa: PLC0415
        from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    def downloaded(here: bool) -> Path:
        found = snapshot_download(name.repository, revision=name.revision, allow_patterns=READ, local_files_only=here)
        return Path(found)

    with told(name):
        folder, offline = None, constants.is_offline_mode()
        if offline or COMMIT.fullmatch(name.revision or ""):
            try:
                folder = downloaded(here=True)
            except LocalEntryNotFoundError:
                if offline:
                    raise
        if folder is None:
            found = HfApi().model_info(name.repository, revision=name.revision)
            require_plain((entry.rfilename for entry in found.siblings or ()), name)
            folder = downloaded(here=False)
    require_plain((str(path.relative_to(folder)) for path in folder.rglob("*")), name)
    if lacking := [file for file in (WEIGHTS, CARD) if not (folder / file).is_file()]:
        raise UserError(
            f"{name} is not a model of atomrl: it lacks {' and '.join(lacking)}, which `atomrl push` puts there"
        )
    return HubModel(HubName(name.repository, folder.name), folder)


def require_plain(files: Iterable[str], name: HubName) -> None:
    """Refuse a repository with files that could run code where something loads them.

    Raises:
        UserError: there is one; it was not fetched.
    """
    found = [file for file in files if PurePosixPath(file).suffix.lower() in PICKLES | CODE]
    if found:
        what = ", ".join(sorted(found)[:3]) + (", ..." if len(found) > 3 else "")
        raise UserError(
            f"{name} holds {what}: pickles or code, which a model of atomrl does not have; nothing of it was loaded. "
            "Ask its owner for a repository that `atomrl push` wrote"
        )


@contextmanager
def told(name: HubName) -> Iterator[None]:
    """Around calls of huggingface_hub: what it raises becomes one line with what to do.

    Raises:
        UserError: the extra is missing, or the hub refused, did not answer or does not have what is named.
    """
    with extra(EXTRA):
        import httpx2  # noqa: PLC0415
        from huggingface_hub import errors  # noqa: PLC0415
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name} is open only to those whom its owner admits: accept its terms at {_page(name)}, then log in with "
            "`hf auth login`, or give a token in HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{name}: the repository has no revision {name.revision}; {_page(name)}/commits lists what it has"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: {_hub()} has no such model, or it is private: check the name; for a private one log in with "
            "`hf auth login`, or give a token in HF_TOKEN"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise UserError(
            f"{name} is not in the cache ({_cache()}), and HF_HUB_OFFLINE=1 forbids asking the hub: run once without it"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{name}: no name that the hub takes ({first_line(error)})") from error
    except errors.HfHubHTTPError as error:
        raise UserError(f"{name}: {_refusal(error.response.status_code, str(error.server_message or ''))}") from error
    except httpx2.TransportError as error:
        raise UserError(
            f"{name}: {_hub()} does not answer ({first_line(error)}): check the network and HF_ENDPOINT; "
            "HF_HUB_OFFLINE=1 takes what is in the cache"
        ) from error
    except (errors.FileMetadataError, json.JSONDecodeError) as error:
        raise UserError(
            f"{name}: {_hub()} answers, but not as a hub does: check HF_ENDPOINT and the network"
        ) from error
    except ValueError as error:  # how huggingface_hub says that the hub takes no such card
        said = " ".join(str(error).split())
        raise UserError(f"{name}: the hub refuses the upload ({said}): nothing of it is there") from error


def _refusal(status: int, said: str) -> str:
    """What to do about a status of HTTP that has no error of its own."""
    remedy = {
        401: "the token is wrong or no longer valid: log in with `hf auth login`, or give another in HF_TOKEN",
        403: "the token does not allow this: it takes one with write permission for this user or organization",
        409: "it is there and not open to this token, or somebody changed it meanwhile: check, and run again",
        412: "somebody changed the repository in the meantime: run the command again",
        429: "too many requests: wait a few minutes",
    }
    trouble = "the hub has a problem of its own: try again later" if status >= 500 else "it refused"
    return f"{_hub()} answered {status}{f', {said}' if said else ''}; {remedy.get(status, trouble)}"


def _hub() -> str:
    """The address of the hub."""
    from huggingface_hub import constants  # noqa: PLC0415

    return str(constants.ENDPOINT)


def _cache() -> str:
    """Where huggingface_hub keeps files."""
    from huggingface_hub import constants  # noqa: PLC0415

    return str(constants.HF_HUB_CACHE)


def _page(name: HubName) -> str:
    """The page of a repository."""
    return f"{_hub()}/{name.repository}"
