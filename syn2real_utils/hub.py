"""Folders to and from the Hugging Face hub, through huggingface_hub: vectors and models alike.

$HF_ENDPOINT names another hub, $HF_TOKEN (or `hf auth login`) says who pushes.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from syn2real_utils import tensorfiles
from syn2real_utils.errors import RevisionGoneError, UserError, disk_full, names
from syn2real_utils.progress import say

PULLED = ["*.safetensors", "*.json", "*.md"]  # no code, no pickle
PUSHED = [*PULLED, "*.txt", "*.model", "*.jinja"]  # of a model also its tokenizer's other files
SECONDS = 5.0  # to wait for the hub's first answer
REFUSED = (401, 403)


def check_wanted(repo_id: str | None, private: bool) -> None:
    """`check` where something shall go to the hub.

    Raises:
        UserError: what `check` raises; or `private` without a repository, or with one that is there and public.
    """
    if private and not repo_id:
        raise UserError("--private is for the repository of --push-to-hub: give that too")
    if repo_id:
        check(repo_id)
        if private:
            with (
                _one_line(f"push {repo_id}"),
                contextlib.suppress(RepositoryNotFoundError),
            ):  # it is made when it is pushed
                _refuse_public(repo_id)


def check(repo_id: str) -> None:
    """Ask the hub who we are, before anything is made that shall go there.

    Raises:
        UserError: no name of a repository, no token, the token is refused, or the hub cannot be reached.
    """
    _check_name(repo_id)
    if not get_token():
        raise UserError(f"no token to push {repo_id} with: call 'hf auth login', or set HF_TOKEN")
    say(f"{repo_id} goes to {_endpoint()}, which needs the network")
    with _one_line(f"push {repo_id}"):
        _api().whoami()


def push(folder: Path | str, repo_id: str, private: bool = False) -> str:
    """Upload a folder with a vector or a model to the hub and return its address there; the repository is made if need be.

    Args:
        folder: its safetensors, JSON, Markdown and tokenizer files go; anything else stays, and is named.
        repo_id: "owner/name".
        private: only its owner sees the repository; one that is there and public is refused.

    Raises:
        UserError: no vector or model in the folder, what `check` raises, or the hub says no.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in (tensorfiles.WEIGHTS, tensorfiles.INDEX, tensorfiles.VECTOR)):
        raise UserError(f"nothing to push at {folder}: expected a folder with a vector or a model in safetensors")
    check(repo_id)
    files = sorted(folder.iterdir())
    goes = [file for file in files if file.is_file() and any(file.match(pattern) for pattern in PUSHED)]
    if stays := [file.name for file in files if file not in goes]:
        say(f"not pushed: {names(stays)}")
    say(f"pushing {len(goes)} files, {sum(file.stat().st_size for file in goes) / 1e6:.1f} MB, to {repo_id}")
    with _one_line(f"push {repo_id}"):
        made = _api().create_repo(repo_id, private=private, exist_ok=True)
        if private:
            _refuse_public(repo_id)
        operations = [
            CommitOperationAdd(file.name, _card(file, repo_id) if file.name == tensorfiles.CARD else file)
            for file in goes
        ]
        _api().create_commit(repo_id, operations, commit_message=f"syn2real: {folder.resolve().name}")
    return str(made)


def _card(file: Path, repo_id: str) -> bytes:
    """A card as it stands on the hub: its commands name the repository in place of the folder."""
    own = file.parent.resolve().name  # of the folder, also where the card is a link
    page = file.read_text(encoding="utf-8")
    for before, after in (('model="', '"'), ("--vector ", " ")):
        page = page.replace(f"{before}{own}{after}", f"{before}{repo_id}{after}")
    return page.encode()


def pull(
    repo_id: str,
    revision: str | None = None,
    patterns: Sequence[str] = PULLED,
    kind: Literal["model", "dataset"] = "model",
    otherwise: Sequence[str] = (),
) -> Path:
    """The folder of a repository on this machine, fetched unless this commit of it is there: safetensors, JSON, Markdown.

    Args:
        repo_id: "owner/name".
        revision: commit, tag or branch; None: the newest commit, or where the hub cannot be reached, the last one fetched.
        patterns: the files to fetch.
        kind: of the repository.
        otherwise: files to fetch too where the repository has no safetensors.

    Raises:
        RevisionGoneError: the repository has no such revision.
        UserError: no such repository, or the hub cannot be reached and nothing of it was fetched before.
    """
    _check_name(repo_id)
    say(f"fetching {repo_id} from {_endpoint()}, which needs the network")
    online = True
    with _one_line(f"fetch {repo_id}"):
        try:
            info = _api().repo_info(repo_id, revision=revision, repo_type=kind, timeout=SECONDS)
            files = [sibling.rfilename for sibling in getattr(info, "siblings", None) or ()]
            safe = any(name.endswith(".safetensors") for name in files)
            revision, patterns = info.sha, [*patterns, *(() if safe else otherwise)]
        except RevisionNotFoundError as error:
            raise RevisionGoneError(
                f"cannot fetch {repo_id}: {_endpoint()} has it, but not (or no longer) its revision {revision}"
            ) from error
        except HfHubHTTPError:
            raise
        except (HTTPError, OSError):  # no network, no hub or HF_HUB_OFFLINE: look into the hub's own cache
            online = False
        found = snapshot_download(
            repo_id,
            repo_type=kind,
            revision=revision,
            allow_patterns=list(patterns),
            endpoint=_endpoint() if online else None,
            local_files_only=not online,
        )
    return Path(found)


def _refuse_public(repo_id: str) -> None:
    if not _api().repo_info(repo_id, timeout=SECONDS).private:
        raise UserError(f"{repo_id} is there and public: make it private on the hub, or leave --private out")


def _api() -> HfApi:
    return HfApi(endpoint=_endpoint())


def _endpoint() -> str:
    """Read at each call: the library reads it once, when it is imported."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
        owner, _, name = repo_id.partition("/")
        if owner and name:
            return
    except HFValidationError:
        pass
    raise UserError(f"'{repo_id}' is no repository of the hub: expected owner/name, such as me/tau-es-kokoro")


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into the user's one line."""
    try:
        yield
    except RepositoryNotFoundError as error:
        raise UserError(f"cannot {what}: {_endpoint()} has no such repository for you") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in REFUSED:
            said = "the hub refuses the token (it must be allowed to write there): see 'hf auth whoami'"
        else:
            said = f"the hub answered {status}: {_first_line(error.server_message or error)}"
        raise UserError(f"cannot {what}: {said}") from error
    except (HTTPError, OSError) as error:
        if disk_full(error):
            raise
        raise UserError(
            f"cannot {what}: {_endpoint()} cannot be reached ({type(error).__name__}); try again with the network"
        ) from error
    except (RuntimeError, ValueError) as error:  # an upload that broke off, or a header of README.md that is no YAML
        raise UserError(f"cannot {what}: {_first_line(error.__cause__ or error)}") from error


def _first_line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
