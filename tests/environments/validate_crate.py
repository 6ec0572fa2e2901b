"""Validate an RO-Crate without a network: `validate_crate.py FOLDER CACHE PROFILE...`.

The context that the crate names is put into the validator's cache from the package rocrate.
"""

from __future__ import annotations

import io
import sys
from importlib.util import find_spec
from pathlib import Path

import requests
from requests_cache import CachedSession
from rocrate_validator import models, services
from urllib3 import HTTPResponse

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


def fill_cache(cache: str) -> None:
    """Keep the context as if it had been fetched."""
    package = find_spec("rocrate")  # not imported: it needs more than its data do
    content = (Path(package.origin).parent / "data" / "ro-crate.jsonld").read_bytes()
    session = CachedSession(cache_name=cache, backend="sqlite", expire_after=-1)
    answer = requests.Response()
    answer.status_code, answer.url = 200, CONTEXT
    answer.headers["Content-Type"] = "application/ld+json"
    answer._content = content
    answer.request = requests.Request("GET", CONTEXT).prepare()
    answer.raw = HTTPResponse(
        body=io.BytesIO(content), headers=answer.headers, status=200, preload_content=False
    )
    session.cache.save_response(answer)
    session.close()


def main() -> None:
    """Print what is wrong, a line each; exit 1 if anything is."""
    folder, cache, *profiles = sys.argv[1:]
    fill_cache(cache)
    wrong = 0
    for profile in profiles:
        settings = services.ValidationSettings(
            rocrate_uri=folder,
            profile_identifier=profile,
            requirement_severity=models.Severity.REQUIRED,
            offline=True,
            cache_path=cache,
        )
        result = services.validate(settings)
        for issue in result.get_issues():
            print(f"{profile}: {issue.check.identifier}: {issue.message}")
        wrong += not result.passed()
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
