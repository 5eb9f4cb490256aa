"""An agent's side of provisioning, as the public agent does it."""

import secrets
from base64 import b64encode
from typing import Any
from uuid import uuid4

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.mqtt311 import Client311, RefusedError
from tests.serving import Served, until


class Device:
    """A gateway that has made its uuid, its API key and its key pair, and nothing else yet."""

    def __init__(self, server: Served, uuid: str | None = None, *, curve: str = "ed25519") -> None:
        self.base = f"http://127.0.0.1:{server.http_port}/api/v1"
        self.mqtt_port = server.mqtt_port
        self.uuid = uuid or str(uuid4())
        self.api_key = f"v2_{secrets.token_hex(4)}_{secrets.token_hex(32)}"
        self._private = Ed25519PrivateKey.generate() if curve == "ed25519" else generate_private_key(SECP256R1())
        self.public_key = (
            self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        )
        self.answer: dict[str, Any] = {}

    def body(self, **changed: Any) -> dict[str, Any]:
        whole = {
            "uuid": self.uuid,
            "deviceName": f"gateway {self.uuid[:4]}",
            "deviceType": "standalone",
            "deviceApiKey": self.api_key,
            "devicePublicKey": self.public_key,
            "macAddress": "02:00:00:00:00:01",
            "osVersion": "Debian GNU/Linux 12 (bookworm)",
            "agentVersion": "1.0.547",
        }
        return whole | changed

    def register(self, key: str, **changed: Any) -> httpx.Response:
        headers = {"x-provisioning-key": key, "X-Idempotency-Key": f"register-{self.uuid}"}
        answer = httpx.post(f"{self.base}/agent/register", headers=headers, json=self.body(**changed), timeout=30)
        if answer.status_code == 200:
            self.answer = answer.json()
        return answer

    def sign(self, challenge: str) -> str:
        message = f"{self.uuid}:{challenge}".encode()
        if isinstance(self._private, Ed25519PrivateKey):
            return b64encode(self._private.sign(message)).decode()
        return b64encode(self._private.sign(message, ECDSA(SHA256()))).decode()

    def exchange(self, challenge: str | None = None, *, signature: str | None = None) -> httpx.Response:
        signed = signature or self.sign(challenge or self.answer["challenge"])
        headers = {"x-agent-key": self.api_key, "X-Idempotency-Key": f"key-exchange-{self.uuid}"}
        url = f"{self.base}/device/{self.uuid}/key-exchange"
        return httpx.post(url, headers=headers, json={"uuid": self.uuid, "signature": signed}, timeout=30)

    def join(self, key: str) -> "Device":
        """Register and prove itself."""
        assert self.register(key).status_code == 200
        assert self.exchange().status_code == 200
        return self

    def get(self, path: str = "") -> httpx.Response:
        headers = {"X-Device-API-Key": self.api_key}
        return httpx.get(f"{self.base}{path or f'/devices/{self.uuid}'}", headers=headers, timeout=30)

    @property
    def topic(self) -> str:
        return str(self.answer["mqtt"]["topics"]["publish"][0]).removesuffix("/#")

    def connect(self) -> Client311:
        """Connect with what the registration answered, as soon as the broker has read it."""
        config = self.answer["mqtt"]["brokerConfig"]

        def attempt() -> Client311 | None:
            try:
                return Client311(config["port"], config["username"], config["password"])
            except (RefusedError, ConnectionError):
                return None

        client = until(attempt, 10, "the broker lets the agent in")
        assert isinstance(client, Client311)
        return client

    def is_let_in(self) -> bool:
        """Whether the broker takes its password now."""
        config = self.answer["mqtt"]["brokerConfig"]
        try:
            Client311(config["port"], config["username"], config["password"]).close()
        except (RefusedError, ConnectionError):
            return False
        return True


def key_for(client: httpx.Client, **wanted: Any) -> str:
    """A new provisioning key."""
    answer = client.post("/provision/keys", json=wanted)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])
