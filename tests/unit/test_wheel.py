"""The wheel that `pip install` gets."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_carries_the_migrations(tmp_path: Path) -> None:
    """Without them an installed program could not make its tables."""
    build = f"import hatchling.build; hatchling.build.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in [ROOT / "alembic" / "env.py", *(ROOT / "alembic" / "versions").glob("*.py")]:
        assert f"iotistica/_alembic/{path.relative_to(ROOT / 'alembic')}" in names
    assert "iotistica/cli/main.py" in names
    assert not any(name.startswith(("tests/", "bench/")) for name in names)
