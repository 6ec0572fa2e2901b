"""Asking a container registry which digest a tag has now (the OCI distribution API)."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request

from ..errors import InputError, ResourceError
from .images import Image

#: Manifests that registries keep: for one platform, or an index of several.
_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_TIMEOUT_S = 30
#: Docker Hub answers under another name than its images carry.
_HOSTS = {"docker.io": "https://registry-1.docker.io"}


def resolve_digest(image: Image, registry: str | None = None) -> str:
    """The digest of `image`'s tag: computed from the manifest's bytes, as clients do.

    `registry` is the address to ask in place of the one that the repository names.
    """
    host, _, repository = image.repository.partition("/")
    base = (registry or _HOSTS.get(host, f"https://{host}")).rstrip("/")
    url = f"{base}/v2/{repository}/manifests/{image.tag}"
    headers = {"Accept": ", ".join(_TYPES)}
    try:
        try:
            body, announced = _get(url, headers)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            token = _token(error.headers.get("WWW-Authenticate", ""))
            body, announced = _get(url, {**headers, "Authorization": f"Bearer {token}"})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise InputError(
                f"The registry has no {image.repository}:{image.tag}", file=url
            ) from None
        raise _unreachable(url, f"it answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise _unreachable(url, str(getattr(error, "reason", error))) from None
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if announced not in (None, digest):
        raise _unreachable(url, "its manifest does not have the digest that it announces")
    return digest


def _get(url: str, headers: dict[str, str]) -> tuple[bytes, str | None]:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        return response.read(), response.headers.get("Docker-Content-Digest")


def _token(challenge: str) -> str:
    """An anonymous token, fetched where the registry's challenge says."""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = asked.pop("realm")
    if not realm.startswith(("https://", "http://")):
        raise ValueError(f"it sends for a token to {realm}")
    body, _ = _get(f"{realm}?{urllib.parse.urlencode(asked)}", {})
    answer = json.loads(body)
    return str(answer.get("token") or answer["access_token"])


def _unreachable(url: str, reason: str) -> ResourceError:
    return ResourceError(
        f"The registry could not be asked: {reason}",
        file=url,
        fix="try again later; or take the digest from `docker image inspect` on another machine "
        "and write it into config/images.lock.yaml",
    )
