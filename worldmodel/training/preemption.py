"""Preemption notices of cloud machines, polled from the metadata service and converted to a SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from worldmodel.errors import check_choice

ADDRESS = "http://169.254.169.254"  # link-local, the same for all three providers
EVERY_S = 5.0  # as Amazon recommends; its notice comes two minutes ahead, those of the others 30 seconds
_open = build_opener(ProxyHandler({})).open  # without a proxy, which would receive the metadata of its own machine


def _request(url: str, method: str = "GET", **headers: str) -> str | None:
    """Return the response, None for 404. Raises OSError if there is none."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    try:
        with _open(Request(url, headers=named, method=method), timeout=2) as answer:
            return answer.read().decode()
    except HTTPError as error:
        if error.code == 404:
            return None
        raise


def aws(address: str) -> bool:
    """Return whether Amazon has announced an interruption (`spot/instance-action` exists)."""
    token = _request(f"{address}/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
    found = _request(f"{address}/latest/meta-data/spot/instance-action", X_aws_ec2_metadata_token=token or "")
    return found is not None


def gcp(address: str) -> bool:
    """Return whether Google has preempted the machine (`instance/preempted`)."""
    found = _request(f"{address}/computeMetadata/v1/instance/preempted", Metadata_Flavor="Google")
    return (found or "").strip() == "TRUE"


def azure(address: str) -> bool:
    """Return whether an eviction is among Azure's scheduled events."""
    found = json.loads(_request(f"{address}/metadata/scheduledevents?api-version=2020-07-01", Metadata="true") or "{}")
    return any(event.get("EventType") == "Preempt" for event in found.get("Events", []))


PROVIDERS: dict[str, Callable[[str], bool]] = {"aws": aws, "gcp": gcp, "azure": azure}


def preemption_notices(
    provider: str | None, address: str = ADDRESS, every_s: float = EVERY_S
) -> AbstractContextManager[None]:
    """Return a context in which a thread polls for a preemption notice and sends SIGTERM to this process, once.

    If the service does not answer, warn once on stderr and keep polling.

    Args:
        provider: one of `PROVIDERS`; None polls nothing.
        address: of the metadata service.
        every_s: seconds between two requests.

    Raises:
        ConfigError: for an unknown provider.
    """
    if provider is None:
        return nullcontext()
    check_choice("preemption", provider, (None, *PROVIDERS))
    return _polling(provider, address, every_s)


@contextmanager
def _polling(provider: str, address: str, every_s: float) -> Iterator[None]:
    over = threading.Event()

    def poll() -> None:
        silent = False
        while not over.wait(every_s):
            try:
                if PROVIDERS[provider](address):
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
            except (OSError, ValueError, HTTPException) as error:
                if not silent:
                    message = f"warning: preemption={provider}: no answer from {address} ({error}), still polling"
                    print(message, file=sys.stderr, flush=True)
                silent = True

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
