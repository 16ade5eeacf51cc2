"""Preemption notices, from a metadata service on this machine."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from worldmodel.errors import ConfigError
from worldmodel.interruption import RESUMABLE
from worldmodel.training.callbacks import Metrics
from worldmodel.training.preemption import PROVIDERS, preemption_notices


class Metadata(BaseHTTPRequestHandler):
    """The answers of the three providers, each for its own header only."""

    taken = False  # a notice has been published
    requests = 0

    def answer(self, code: int, text: str = "") -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        good = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200, "secret") if good else self.answer(403)

    def do_GET(self) -> None:
        Metadata.requests += 1
        if (
            self.path == "/latest/meta-data/spot/instance-action"
            and self.headers["X-aws-ec2-metadata-token"] == "secret"
        ):
            self.answer(200, '{"action": "terminate"}') if self.taken else self.answer(404)
        elif self.path.endswith("/instance/preempted") and self.headers["Metadata-Flavor"] == "Google":
            self.answer(200, "TRUE" if self.taken else "FALSE")
        elif self.path.startswith("/metadata/scheduledevents?") and self.headers["Metadata"] == "true":
            events = [{"EventType": "Freeze"}, *([{"EventType": "Preempt"}] if self.taken else [])]
            self.answer(200, json.dumps({"DocumentIncarnation": 1, "Events": events}))
        else:
            self.answer(403)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the service."""
    monkeypatch.setattr(Metadata, "taken", False)
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_notice_is_a_sigterm(provider: str, metadata: str, monkeypatch: pytest.MonkeyPatch) -> None:
    received = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        with preemption_notices(provider, metadata, every_s=0.02):
            before_notice = Metadata.requests
            deadline = time.monotonic() + 10
            while Metadata.requests < before_notice + 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert Metadata.requests >= before_notice + 3 and not received.is_set(), (
                "polled without a notice, and no signal came"
            )
            Metadata.taken = True
            assert received.wait(10)
        after = Metadata.requests
        time.sleep(0.1)
        assert Metadata.requests == after, "polling has ended"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_warning_without_an_answer(capsys: pytest.CaptureFixture) -> None:
    with preemption_notices("gcp", "http://127.0.0.1:9", every_s=0.01):  # no service listens here
        time.sleep(0.3)
    assert capsys.readouterr().err.count("warning: preemption=gcp: no answer from http://127.0.0.1:9") == 1


def test_an_unknown_provider() -> None:
    with pytest.raises(ConfigError, match=r"^preemption=ibm: allowed are null, aws, gcp, azure$"):
        preemption_notices("ibm")


def test_a_run_ends_resumable(cli, metadata: str, monkeypatch: pytest.MonkeyPatch) -> None:
    conclude = Metrics.on_train_epoch_end

    def with_notice(self: Metrics, *args: Any) -> None:
        conclude(self, *args)
        Metadata.taken = True  # from the end of the first update on

    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "on_train_epoch_end", with_notice)
        notices = partial(preemption_notices, address=metadata, every_s=0.05)
        patch.setattr("worldmodel.training.run.preemption_notices", notices)
        assert cli("preemption=aws", "run_dir=run", "total_steps=1_000_000").code == RESUMABLE
    steps = json.loads(Path("run/run.json").read_text())["env_steps"]
    assert cli("run_dir=run", "checkpoint=auto", "preemption=null", f"total_steps={steps + 32}").code == 0
    assert json.loads(Path("run/run.json").read_text())["env_steps"] == steps + 32, "the run continued"
