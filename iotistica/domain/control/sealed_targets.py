"""Targets as they are stored: with every secret encrypted for its tenant."""

from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.control.targets import Target
from iotistica.domain.ids import TenantId


def seal_target(box: SecretBox, target: Target, tenant: TenantId) -> Target:
    """Return a target with its secrets encrypted."""
    return Target(apps=box.seal(target.apps, tenant), config=box.seal(target.config, tenant))


def open_target(box: SecretBox, target: Target, tenant: TenantId) -> Target:
    """Return a stored target with its secrets in plain text."""
    return Target(apps=box.open(target.apps, tenant), config=box.open(target.config, tenant))
