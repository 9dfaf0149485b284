"""`atomrl push`: make a model ready for others, show what would change on the hub, and put it there."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from atomrl.checkpoints.hub import HubName, hub_name, is_hub_name
from atomrl.sharing.folder import README, Asked, Written, write_shared
from atomrl.sharing.upload import CHANGED, NEW, REMOVED, Difference, difference, require_token, upload
from atomrl.util.errors import UserError
from atomrl.util.files import require_writable


def push_command(options: argparse.Namespace) -> None:
    """Push a model; with `--dry-run` or `--output` nothing is sent.

    Raises:
        UserError: no such model or name, no token, an evaluation of other weights, or the hub refuses.
    """
    name = hub_name(options.repository)
    if name.revision is not None:
        raise UserError(f"{options.repository}: a push makes a commit of its own: leave @{name.revision} out")
    if is_hub_name(options.model):
        raise UserError(f"{options.model} is on the hub already: give a run directory, a checkpoint or a folder")
    sending = not options.dry_run and options.output is None
    if sending:
        require_token(name)
    asked = Asked(name.repository, options.licence, options.evaluation)
    with _folder(options.output) as folder:
        written = write_shared(options.model, asked, folder)
        for remark in written.remarks:
            print(remark)
        if sending:
            _send(name, written, options)
            return
        where = "" if options.output is None else f" -> {folder}"
        print(f"{_listed(written)}{where}; nothing was sent")
        if options.dry_run:
            print(f"\n{(folder / README).read_text('utf-8')}", end="")


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    """Where the files are written: a folder of the user's, or one that goes again."""
    if output is None:
        with TemporaryDirectory() as made:
            yield Path(made)
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} is not empty: give another folder, or remove this one")
    yield require_writable(output, f"--output {output}")


def _send(name: HubName, written: Written, options: argparse.Namespace) -> None:
    """Show what changes, then change it.

    Raises:
        UserError: files would be written over and `--replace` does not say so, or a repository that is there is public
            and shall be private.
    """
    found = difference(name, written.files)
    if options.private and found.private is False:
        raise UserError(
            f"{name} is there and public, --private is for a new repository: change that on its page, or leave the "
            "option out"
        )
    print(_shown(name, found))
    lost = [*found.of(CHANGED), *found.of(REMOVED)]
    if lost and not options.replace:
        raise UserError(
            f"{name} has other versions of {', '.join(lost)}: nothing was sent; --replace puts a commit with yours on "
            "top, the earlier ones stay in the history"
        )
    if not lost and not found.of(NEW):
        print(f"{name} has all of it already, at {found.commit}: nothing was sent")
        return
    commit = upload(name, written.files, found, options.private, options.message)
    pinned = HubName(name.repository, commit)
    print(f"pushed to {name}, commit {commit}: atomrl sample --backbone {pinned}")


def _listed(written: Written) -> str:
    """The files and their sizes."""
    return ", ".join(f"{path.name} ({path.stat().st_size / 1e3:,.1f} kB)" for path in written.files)


def _shown(name: HubName, found: Difference) -> str:
    """What changes, a line for each file."""
    head = f"{name} is new:" if found.commit is None else f"{name} stands at {found.commit}:"
    return "\n".join([head, *(f"  {state:8}{path}" for path, state in found.files.items())])
