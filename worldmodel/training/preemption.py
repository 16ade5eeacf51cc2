"""Spot machines tell, at an address of their own, that they will be taken away: heard, and passed on as a SIGTERM."""

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

ADDRESS = "http://169.254.169.254"  # the link-local one of all three
EVERY_S = 5.0  # as Amazon advises; it tells two minutes ahead, the others 30 seconds
_open = build_opener(ProxyHandler({})).open  # a proxy would ask about itself


def _ask(url: str, method: str = "GET", **headers: str) -> str | None:
    """The answer; None for 404. Raises OSError where there is none."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    try:
        with _open(Request(url, headers=named, method=method), timeout=2) as answer:
            return answer.read().decode()
    except HTTPError as error:
        if error.code == 404:
            return None
        raise


def aws(address: str) -> bool:
    """Is there an interruption notice (`spot/instance-action`, which isn't there before)?"""
    token = _ask(f"{address}/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
    found = _ask(f"{address}/latest/meta-data/spot/instance-action", X_aws_ec2_metadata_token=token or "")
    return found is not None


def gcp(address: str) -> bool:
    """Has the machine been preempted (`instance/preempted`)?"""
    found = _ask(f"{address}/computeMetadata/v1/instance/preempted", Metadata_Flavor="Google")
    return (found or "").strip() == "TRUE"


def azure(address: str) -> bool:
    """Is an eviction among the scheduled events?"""
    found = json.loads(_ask(f"{address}/metadata/scheduledevents?api-version=2020-07-01", Metadata="true") or "{}")
    return any(event.get("EventType") == "Preempt" for event in found.get("Events", []))


PROVIDERS: dict[str, Callable[[str], bool]] = {"aws": aws, "gcp": gcp, "azure": azure}


def preemption_notices(
    provider: str | None, address: str = ADDRESS, every_s: float = EVERY_S
) -> AbstractContextManager[None]:
    """While open, ask every few seconds in a thread; after a notice this process gets a SIGTERM, once.

    No answer is told of on stderr, once, and asking goes on. None: nobody is asked. Raises ConfigError.
    """
    if provider is None:
        return nullcontext()
    check_choice("preemption", provider, (None, *PROVIDERS))
    return _listening(provider, address, every_s)


@contextmanager
def _listening(provider: str, address: str, every_s: float) -> Iterator[None]:
    over = threading.Event()

    def listen() -> None:
        silent = False
        while not over.wait(every_s):
            try:
                if PROVIDERS[provider](address):
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
            except (OSError, ValueError, HTTPException) as error:
                if not silent:
                    words = f"warning: preemption={provider}: no answer from {address} ({error}), still polling"
                    print(words, file=sys.stderr, flush=True)
                silent = True

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
