"""Files that people have: recognised by content, and read row by row."""

import datetime as dt
import gzip
import shutil
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.ids import AgentId, TenantId
from iotistica.domain.telemetry import import_values
from iotistica.errors import Invalid
from iotistica.ingest import file_import, import_files
from iotistica.ingest.file_import import ImportOptions, Preview
from iotistica.storage.postgres import Database

TEN = "2026-11-26T10:00:00+00:00"
OPTIONS = ImportOptions("import", 3650)


def read(path: Path, content: bytes | str, options: ImportOptions = OPTIONS) -> Preview:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file_import.preview(path, options, on_progress=lambda *_: None)


def shown(found: Preview) -> list[tuple[str, str, object, str | None]]:
    return [
        (
            datetime.fromtimestamp(one.time / 1e6, UTC).isoformat(),
            one.metric_name,
            one.value if one.value is not None else (one.extra or {}).get("text"),
            one.unit,
        )
        for one in found.first
    ]


LONG = "time,metric,value,unit\n2026-11-26T10:00:00Z,boiler-1.temp,21.5,°C\n"
AS_LONG = [(TEN, "boiler-1.temp", 21.5, "°C")]
INFLUX = (
    "#group,false,false,true,true,false,false,true,true,true\n"
    "#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string,string,string\n"
    "#default,mean,,,,,,,,\n"
    ",result,table,_start,_stop,_time,_value,_field,_measurement,location\n"
    ",,0,2026-11-26T00:00:00Z,2026-11-27T00:00:00Z,2026-11-26T10:00:00Z,21.5,temp,weather,us-midwest\n"
    "\n"
    "#group,false,false,false,false,true,true\n"
    "#datatype,string,long,dateTime:RFC3339,double,string,string\n"
    "#default,mean,,,,,\n"
    ",result,table,_time,_value,_field,_measurement\n"
    ",,1,2026-11-26T10:00:00Z,5,level,tank\n"
)


@pytest.mark.parametrize("pack", [bytes, lambda content: gzip.compress(content, mtime=0)], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (LONG, AS_LONG),
        ("\ufeff" + LONG.replace(",", ";"), AS_LONG),
        (LONG.replace(",", "\t"), AS_LONG),
        ("sep=;\n" + LONG.replace(",", ";"), AS_LONG),
        (LONG.encode("utf-16"), AS_LONG),
        (LONG.encode("utf-16-le"), AS_LONG),
        (LONG.encode("latin-1"), AS_LONG),
        (" Time Stamp ; METRIC;Value;Unit\n2026-11-26T10:00:00Z;boiler-1.temp;21,5;°C\n", AS_LONG),
        ("time,metric,value\n1795687200000,m,1\n", [(TEN, "m", 1.0, None)]),
        ("time;metric;value\n26.11.2026 10:00;m;1.234,5\n", [(TEN, "m", 1234.5, None)]),
        (
            "Time,temp (°C),running\n2026-11-26 10:00:00,21.5,true\n2026-11-26 10:00:00,,false\n",
            [(TEN, "temp", 21.5, "°C"), (TEN, "running", 1.0, None), (TEN, "running", 0.0, None)],
        ),
        ("Datum;Gerät;Temp [C]\n26.11.2026 10:00;b 1;21,5\n", [(TEN, "b 1.Temp", 21.5, "C")]),
        ('"Time","a","b"\n2026-11-26 10:00:00,21.5 °C,7 %\n', [(TEN, "a", 21.5, "°C"), (TEN, "b", 7.0, "%")]),
        ("Timestamp;temperature\n2026-11-26 10:00:00;21.5\n", [(TEN, "temperature", 21.5, None)]),
        (INFLUX, [(TEN, "weather/us-midwest.temp", 21.5, None), (TEN, "tank.level", 5.0, None)]),
        (
            "entity_id,state,last_changed\nsensor.boiler,21.5,2026-11-26T10:00:00Z\n"
            "sensor.boiler,unavailable,2026-11-26T10:00:00Z\nlight.x,on,2026-11-26T10:00:00Z\n",
            [
                (TEN, "sensor.boiler", 21.5, None),
                (TEN, "sensor.boiler", None, None),
                (TEN, "light.x", "on", None),
            ],
        ),
        ('{"time":"2026-11-26T10:00:00Z","device_name":"b","metric":"m","value":1}\n', [(TEN, "b.m", 1.0, None)]),
        ('{"ts":1795687200000,"temp":21.5,"hum":40}\n', [(TEN, "temp", 21.5, None), (TEN, "hum", 40.0, None)]),
        ('[{"time":"2026-11-26T10:00:00Z","metric":"m","value":1}]', [(TEN, "m", 1.0, None)]),
        (
            '{"timestamp":"2026-11-26T10:00:00Z","messages":[{"readings":[{"metric":"m","value":1}]}]}\n',
            [(TEN, "m", 1.0, None)],
        ),
    ],
)
def test_a_file_is_recognised_by_its_content(
    tmp_path: Path,
    content: bytes | str,
    expected: list[tuple[str, str, object, str | None]],
    pack: Callable[[bytes], bytes],
) -> None:
    """Separators, marks, encodings, header names, decimal commas, wide tables and exports of other systems."""
    raw = content if isinstance(content, bytes) else content.encode()
    found = read(tmp_path / "any.name", pack(raw))
    assert shown(found) == expected
    assert found.result.rejected == {}


ELEVEN = "2026-11-26T11:00:00+00:00"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "Datum;Uhrzeit;Temp\n26.11.2026;10:00;21,5\n26.11.2026;11:00;22,5\n",
            [(TEN, "Temp", 21.5, None), (ELEVEN, "Temp", 22.5, None)],
        ),
        (
            "date,time,metric,value\n2026-11-26,10:00,m,1\n2026-11-26,11:00:00,m,2\n",
            [(TEN, "m", 1.0, None), (ELEVEN, "m", 2.0, None)],
        ),
        (
            "time;a;b\n2026-11-26 10:00;0.125;1,5\n",
            [(TEN, "a", 0.125, None), (TEN, "b", 1.5, None)],
        ),
        (
            "time;a;b\n2026-11-26 10:00;1,5;20.125\n",
            [(TEN, "a", 1.5, None), (TEN, "b", 20.125, None)],
        ),
        (
            'time,a,b\n2026-11-26 10:00,"1,234.5",12.125\n2026-11-26 11:00,"1,100.0",13.500\n',
            [
                (TEN, "a", 1234.5, None),
                (TEN, "b", 12.125, None),
                (ELEVEN, "a", 1100.0, None),
                (ELEVEN, "b", 13.5, None),
            ],
        ),
        ("time,temp,temp\n2026-11-26 10:00,1,2\n", [(TEN, "temp", 1.0, None), (TEN, "temp 2", 2.0, None)]),
        (
            "time,device,sensor,temp\n2026-11-26 10:00,d,s1,20\n2026-11-26 10:00,d,s2,30\n",
            [(TEN, "d/s1.temp", 20.0, None), (TEN, "d/s2.temp", 30.0, None)],
        ),
        (
            "name,time,value\nb,2026-11-26 10:00,6\n#1,2026-11-26 10:00,5\nc,2026-11-26 10:00,4\n",
            [(TEN, "b", 6.0, None), (TEN, "#1", 5.0, None), (TEN, "c", 4.0, None)],
        ),
        (
            "time,a,b,c\n2026-11-26 10:00,0xFF,12ab,4f\n",
            [(TEN, "a", "0xFF", None), (TEN, "b", "12ab", None), (TEN, "c", "4f", None)],
        ),
        ("time;a\n2026-11-26 10:00;21,5 °C\n", [(TEN, "a", 21.5, "°C")]),
        (
            '{"time":"2026-11-26T10:00:00Z","metric":"m"}\n{"time":"2026-11-26T10:00:00Z","metric":"m","value":2}\n',
            [(TEN, "m", None, None), (TEN, "m", 2.0, None)],
        ),
        (
            '\n[{"time":"2026-11-26T10:00:00Z","metric":"m","value":1},\n'
            '{"time":"2026-11-26T10:00:00Z","metric":"n","value":2}]\n\0',
            [(TEN, "m", 1.0, None), (TEN, "n", 2.0, None)],
        ),
        (
            '[{"time":"2026-11-26T10:00:00Z","metric":"m","value":1}]\n'
            '[{"time":"2026-11-26T10:00:00Z","metric":"n","value":2}]\n',
            [(TEN, "m", 1.0, None), (TEN, "n", 2.0, None)],
        ),
        (
            b"time,metric,value\n" + b"2026-11-26 10:00,m,1\n" * 4000 + b"2026-11-26 10:00,m,T\xfcr\n",
            [(TEN, "m", 1.0, None)] * 8,
        ),
    ],
)
def test_what_is_easily_misread_is_read_right(
    tmp_path: Path, content: bytes | str, expected: list[tuple[str, str, object, str | None]]
) -> None:
    """Date and time apart, both decimal marks, groups, equal columns, two columns that name a device, and comments."""
    found = read(tmp_path / "f", content)
    assert shown(found) == expected
    assert found.result.rejected == {}


@pytest.mark.parametrize(
    "content",
    [
        "date,metric,value\n05/03/2026 10:00:00 AM,m,1\n",
        "date,metric,value\n24/11/25 10:00,m,1\n24/11/26 10:00,m,1\n",
        "date,metric,value\n25/03/2026,m,1\n03/25/2026,m,1\n",
    ],
)
def test_dates_that_do_not_tell_their_order_are_refused(tmp_path: Path, content: str) -> None:
    """AM does not mean month first, two digits can be a year, and dates can contradict each other."""
    assert set(read(tmp_path / "f", content).result.rejected) == {"bad_time"}


@pytest.mark.parametrize(
    ("zone", "when"),
    [
        ("Europe/Zurich", "2026-10-25 02:30"),
        ("Europe/Zurich", "2026-03-29 02:30"),
        ("Australia/Lord_Howe", "2026-04-05 01:45"),  # its clocks change by half an hour
        ("Australia/Lord_Howe", "2026-10-04 02:15"),
        ("America/Santiago", "2026-09-06 00:30"),
    ],
)
def test_a_time_that_a_night_has_twice_or_never_is_refused(tmp_path: Path, zone: str, when: str) -> None:
    """The clock changes then, and nothing tells which hour is meant."""
    options = OPTIONS._replace(zone=ZoneInfo(zone))
    found = read(tmp_path / "f", f"time,metric,value\n{when},m,1\n2026-10-25 04:00,m,1\n", options)
    assert found.result.rejected == {"bad_time": 1}


@pytest.mark.parametrize(
    ("when", "utc"),
    [("2026-04-05 01:15", "2026-04-04T14:15"), ("2026-04-05 02:15", "2026-04-04T15:45")],
)
def test_the_other_half_hours_of_such_a_night_are_read(tmp_path: Path, when: str, utc: str) -> None:
    """Before the change the offset is eleven hours, and after it ten and a half."""
    options = OPTIONS._replace(zone=ZoneInfo("Australia/Lord_Howe"))
    (first,) = read(tmp_path / "f", f"time,metric,value\n{when},m,1\n", options).first
    assert first.time == int(dt.datetime.fromisoformat(f"{utc}+00:00").timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b" + b"\x08" + bytes(7) + b"\x07\xff\xff\xff\xff", "Cannot read"),
        ("\n".join(f'{{"time":1795687200,"k{n}":1}}\n' * 999 for n in range(40)), "too many columns"),
        ("#datatype,string\n,error,reference\n,it failed,897\n", "no column 'time'|error of InfluxDB: +it failed"),
        ('{"time":1795687200,"a":"' + "x" * (17 << 20) + '"}', "A line has more than"),
    ],
    ids=["damaged", "columns", "error", "line"],
)
def test_a_hostile_file_is_refused(tmp_path: Path, content: bytes | str, message: str) -> None:
    """With a reason, and without much memory or time."""
    with pytest.raises(Invalid, match=message):
        read(tmp_path / "f", content)


def test_a_document_of_many_levels_is_a_rejected_row(tmp_path: Path) -> None:
    """In the column `extra`, too."""
    deep = '{"a":' * 3000
    found = read(
        tmp_path / "f", f'time,metric,value,extra\n2026-11-26,m,1,"{deep.replace(chr(34), chr(34) * 2)}"\n'
    )
    assert found.result.rejected == {"bad_extra": 1}


@pytest.mark.parametrize(
    ("content", "rejected", "first_bad"),
    [
        ("time,metric,value\n2026-11-26,m,21,5\n2026-11-26,m,1\n", {"bad_row": 1}, (1, "bad_row it has 4 cells")),
        ("time,metric,value\n2026-11-26,m,1\n2026-11-26,m\n", {"bad_row": 1}, (2, "bad_row it has 2 cells")),
        ("time,metric,value\n,m,1\n2026-11-26,m,1\n", {"bad_time": 1}, (1, "bad_time the row has no time")),
        ("date,metric,value\n11/12/2026,m,1\n", {"bad_time": 1}, (1, "bad_time 11/12/2026 can be read in two")),
        ("time,metric,value\n2026-11-26,,1\n2026-11-26,m,1\n", {"no_metric": 1}, (1, "no_metric")),
        ('{"time":"2026-11-26","metric":"m","value":1}\n{"time":\n', {"bad_json": 1}, (2, "bad_json")),
        ('{"readings":[{"metric":"m","value":1}]}\n', {"bad_time": 1}, (1, "bad_time the reading has no time")),
    ],
)
def test_a_row_that_does_not_fit_is_told_with_its_number(
    tmp_path: Path, content: str, rejected: dict[str, int], first_bad: tuple[int, str]
) -> None:
    """Nothing of it is stored, and the other rows are."""
    found = read(tmp_path / "f.csv", content)
    assert found.result.rejected == rejected
    assert found.result.bad[0][0] == first_bad[0]
    assert found.result.bad[0][1].startswith(first_bad[1])


@pytest.mark.parametrize("word", ["NULL", "null", "N/A", "None", "unavailable", "-", ""])
def test_a_word_for_no_value_is_no_value(tmp_path: Path, word: str) -> None:
    """It is stored as null of unknown quality, and not as good text."""
    (reading,) = read(tmp_path / "f.csv", f"time,metric,value\n2026-11-26,m,{word}\n").first
    assert (reading.value, reading.quality, reading.extra) == (None, "unknown", None)


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("date,metric,value\n11/10/2026,m,1\n", {"date_order": "us"}, "2026-11-10T00:00:00+00:00"),
        ("date,metric,value\n11/10/2026,m,1\n", {"date_order": "german"}, "2026-10-11T00:00:00+00:00"),
        ("date,metric,value\n11/13/2026 1:30 PM,m,1\n", {}, "2026-11-13T13:30:00+00:00"),
        ("date,metric,value\n13/11/2026 13:30,m,1\n", {}, "2026-11-13T13:30:00+00:00"),
        (
            "time,metric,value\n2026-07-01 12:00,m,1\n",
            {"zone": ZoneInfo("Europe/Zurich")},
            "2026-07-01T10:00:00+00:00",
        ),
        (
            "a,b,c\n2026-11-26,m,1\n",
            {"mapped": {"a": "time", "b": "metric", "c": "value"}},
            "2026-11-26T00:00:00+00:00",
        ),
        ("time,x,y\n2026-11-26,1,2\n", {"mapped": {"x": "metric:m", "y": "ignore"}}, "2026-11-26T00:00:00+00:00"),
    ],
)
def test_what_the_caller_says_counts(
    tmp_path: Path, content: str, options: dict[str, object], expected: str
) -> None:
    """The order of dates, the time zone, and the meaning of columns."""
    found = read(tmp_path / "f.csv", content, OPTIONS._replace(**options))  # type: ignore[arg-type]
    assert [(when, name, value) for when, name, value, _ in shown(found)] == [(expected, "m", 1.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "no column 'time'; its columns are a, b. Say which it is with --map"),
        ("time\n2026-11-26\n", "no column 'value'"),
        ("time,value\n2026-11-26,1\n", "no column 'metric'"),
        (b"PK\x03\x04" + bytes(range(256)), "looks like zip"),
        (gzip.compress(b"time,metric,value\n" * 99, mtime=0)[:-20], "Cannot read"),
    ],
)
def test_a_file_that_cannot_be_imported_says_why(tmp_path: Path, content: bytes | str, message: str) -> None:
    """With the columns that it has, and what to do."""
    with pytest.raises(Invalid, match=message):
        read(tmp_path / "f.csv", content)


def test_parquet_and_arrow_with_nanoseconds_and_decimals(tmp_path: Path) -> None:
    """Nanoseconds are cut to microseconds, and a decimal that a double does not hold stands beside it."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table(
        {
            "time": pa.array([1795687200000000789, 1795687200000001789], pa.timestamp("ns")),
            "metric": pa.array(["m", "n"]).dictionary_encode(),
            "value": pa.array([Decimal("1234567890123456.789"), Decimal("21.500")], pa.decimal128(20, 3)),
        }
    )
    parquet.write_table(table, tmp_path / "a")
    with pa.OSFile(str(tmp_path / "b"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile(str(tmp_path / "c"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    for name in "abc":
        plain = (tmp_path / name).read_bytes()
        for content in (plain, gzip.compress(plain, mtime=0)):
            first, second = read(tmp_path / "x", content).first
            assert (first.value, first.extra) == (1234567890123456.8, {"raw": "1234567890123456.789"})
            assert (second.value, second.extra, second.time - first.time) == (21.5, None, 1)


def test_a_compressed_file_that_does_not_fit_on_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet is inflated to a temporary file, which must not fill the disk that others write to."""
    plain = b"PAR1" + bytes(8 << 20)
    monkeypatch.setattr(import_files, "FREE_BYTES", shutil.disk_usage("/").total)
    monkeypatch.setattr(import_files, "FREE_SHARE", 1)
    with pytest.raises(Invalid, match=r"does not fit on the disk of .*: inflate it first"):
        read(tmp_path / "x", gzip.compress(plain, mtime=0))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Four times as many rows take no more memory at once."""
    peaks = []
    for rows in (20_000, 80_000):
        path = tmp_path / f"{rows}.csv"
        with path.open("w") as file:
            file.write("time,metric,value\n")
            file.writelines(f"{1795687200 + n},m{n % 50},{n}\n" for n in range(rows))
        tracemalloc.start()
        found = file_import.preview(path, OPTIONS, on_progress=lambda *_: None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (found.result.readings, found.series) == (rows, 50)
    assert peaks[1] < peaks[0] * 1.2 + (1 << 20), peaks


async def test_an_import_can_be_repeated(
    database: Database, tenant: TenantId, agent: AgentId, tmp_path: Path
) -> None:
    """A wide file is stored once, whatever its compression, and each of its rows counts its readings."""
    content = "time;a;b\n" + "".join(f"2026-11-26 10:{n:02};{n},5;{n}\n" for n in range(60))
    for stored, duplicate, packed in ((120, 0, content.encode()), (0, 120, gzip.compress(content.encode()))):
        path = tmp_path / "f"
        path.write_bytes(packed)
        outcome = await file_import.import_file(
            database, path, tenant, agent, ImportOptions("import", 3650), on_progress=lambda *_: None
        )
        assert (outcome.rows, outcome.readings, outcome.stored, outcome.duplicate) == (60, 120, stored, duplicate)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_a_decimal_comma_is_a_decimal_point(number: Decimal) -> None:
    """Whatever number is written with a comma is read as with a point."""
    text = f"{number:f}"
    assert import_values.value_of(text.replace(".", ","), ",") == import_values.value_of(text, ".")
    grouped = f"{number:,.3f}".replace(",", "_").replace(".", ",").replace("_", ".")
    assert float(import_values.value_of(grouped, ",")) == float(number)


@given(st.dates(min_value=dt.date(1950, 1, 1), max_value=dt.date(2049, 12, 31)))
def test_a_national_date_is_the_date(day: dt.date) -> None:
    """Both orders, with four digits of the year and with two."""
    for order, form in (("us", "%m/%d/%Y"), ("german", "%d.%m.%Y"), ("german", "%d-%m-%Y")):
        found = import_values.time_of(day.strftime(form), order, None)  # type: ignore[arg-type]
        assert found == datetime(day.year, day.month, day.day)
