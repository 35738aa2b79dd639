"""Makes avro.json, protobuf.json and rides.desc: records written, and read, by libraries that are not ours.

    python3 -m venv venv && venv/bin/pip install fastavro==1.13.1 protobuf==7.36.2 grpcio-tools==1.85.1
    venv/bin/python make.py
"""

import datetime
import decimal
import io
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import uuid

import fastavro
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

HERE = pathlib.Path(__file__).parent
UTC = datetime.timezone.utc
NOON = datetime.datetime(2026, 1, 31, 12, 0, 0, 123000, UTC)


def plain(value):
    """A value as the tests print theirs."""
    if isinstance(value, datetime.datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (value - datetime.datetime(1970, 1, 1, tzinfo=UTC)) // datetime.timedelta(microseconds=1)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def record(*fields, name="Ride"):
    return {"type": "record", "name": name, "namespace": "rides", "fields": list(fields)}


def field(name, of, **more):
    return {"name": name, "type": of, **more}


def logical(of, name, **more):
    return {"type": of, "logicalType": name, **more}


def nullable(of):
    return ["null", of]


def avro():
    kinds = {"type": "enum", "name": "Kind", "symbols": ["POOL", "SOLO"]}
    more_kinds = {"type": "enum", "name": "Kind", "symbols": ["SOLO", "LUX", "POOL"]}
    place = record(field("lat", "double"), field("lon", nullable("double"), default=None), name="Place")
    everything = record(
        field("flag", "boolean"),
        field("small", "int"),
        field("large", "long"),
        field("ratio", "float"),
        field("fare", "double"),
        field("raw", "bytes"),
        field("text", {"type": "string", "avro.java.string": "String"}),
        field("none", nullable("string"), default=None),
        field("some", ["string", "null"], default=""),
        field("kind", kinds),
        field("tags", {"type": "array", "items": "string"}),
        field("scores", {"type": "map", "values": "int"}),
        field("from", place),
        field("to", nullable("Place"), default=None),
        field("four", {"type": "fixed", "name": "Four", "size": 4}),
        field("millis", logical("long", "timestamp-millis")),
        field("micros", nullable(logical("long", "timestamp-micros"))),
        field("local", logical("long", "local-timestamp-millis")),
        field("day", logical("int", "date")),
        field("amount", logical("bytes", "decimal", precision=9, scale=2)),
        field("fixed_amount", {"type": "fixed", "name": "Eight", "size": 8, "logicalType": "decimal", "precision": 12, "scale": 3}),
        field("id", logical("string", "uuid")),
    )
    row = {
        "flag": True, "small": -7, "large": 2**62, "ratio": 0.5, "fare": 12.25, "raw": b"\x00\xff", "text": "é",
        "none": None, "some": "x", "kind": "SOLO", "tags": ["a", "b"], "scores": {"one": 1},
        "from": {"lat": 1.5, "lon": None}, "to": {"lat": -1.0, "lon": 2.0}, "four": b"abcd",
        "millis": NOON, "micros": NOON.replace(microsecond=123456), "local": NOON.replace(tzinfo=None),
        "day": datetime.date(2026, 1, 31), "amount": decimal.Decimal("-123.45"),
        "fixed_amount": decimal.Decimal("99.125"), "id": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    }
    other = {**row, "flag": False, "micros": None, "to": None, "tags": [], "scores": {}, "none": "there", "some": None}
    ride = [field("driver_id", "int"), field("ts", logical("long", "timestamp-millis")), field("fare", "float")]
    base = {"driver_id": 1001, "ts": NOON, "fare": 1.5}
    cases = [
        ("every type", everything, everything, [row, other]),
        ("added with a default", record(*ride), record(*ride, field("tip", "double", default=0.25), field("note", nullable("string"), default=None)), [base]),
        ("removed", record(*ride, field("tip", "double"), field("legs", {"type": "array", "items": place})), record(*ride),
         [{**base, "tip": 1.0, "legs": [{"lat": 0.0, "lon": None}]}]),
        ("in another order", record(*ride), record(*reversed(ride)), [base]),
        ("promoted", record(field("a", "int"), field("b", "int"), field("c", "long"), field("d", "float"), field("e", "string"), field("f", "bytes"), field("g", "int")),
         record(field("a", "long"), field("b", "double"), field("c", "float"), field("d", "double"), field("e", "bytes"), field("f", "string"), field("g", "float")),
         [{"a": 1, "b": 2, "c": 3, "d": 0.5, "e": "e", "f": b"f", "g": 7}]),
        ("renamed", record(field("price", "double"), field("driver", "int")),
         record(field("fare", "double", aliases=["price"]), field("driver_id", "long", aliases=["driver"])), [{"price": 2.5, "driver": 5}]),
        ("made nullable", record(field("x", "int")), record(field("x", nullable("long"), default=None)), [{"x": 3}]),
        ("null in the other place", record(field("x", nullable("int")), field("y", ["string", "null"])), record(field("x", ["int", "null"]), field("y", nullable("string"))),
         [{"x": 1, "y": "a"}, {"x": None, "y": None}]),
        ("no longer null", record(field("x", nullable("int"))), record(field("x", "int")), [{"x": 3}]),
        ("an enum with other symbols", record(field("kind", kinds)), record(field("kind", more_kinds)), [{"kind": "POOL"}, {"kind": "SOLO"}]),
        ("nested records", record(field("at", place)), record(field("at", record(field("lon", nullable("double"), default=None), field("lat", "double"), field("alt", "double", default=0.0), name="Place"))),
         [{"at": {"lat": 1.0, "lon": 2.0}}]),
    ]
    out = []
    for name, writer, reader, rows in cases:
        written, parsed, asked = [], fastavro.parse_schema(writer), fastavro.parse_schema(reader)
        expected = []
        for each in rows:
            buffer = io.BytesIO()
            fastavro.schemaless_writer(buffer, parsed, each)
            written.append(buffer.getvalue().hex())
            buffer.seek(0)
            expected.append(plain(fastavro.schemaless_reader(buffer, parsed, asked)))
        out.append({"name": name, "writer": writer, "reader": reader, "records": written, "rows": expected})
    # Units that Avro's rules do not convert, and we do.
    units = record(field("ts", logical("long", "timestamp-millis")), field("amount", logical("bytes", "decimal", precision=9, scale=2)))
    other = record(field("ts", logical("long", "timestamp-micros")), field("amount", logical("bytes", "decimal", precision=12, scale=4)))
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(units), {"ts": NOON, "amount": decimal.Decimal("1.25")})
    out.append({"name": "other units", "writer": units, "reader": other, "records": [buffer.getvalue().hex()],
                "rows": [{"ts": plain(NOON), "amount": "1.2500"}]})
    # A single object: two bytes, the schema's fingerprint, the value.
    fingerprint = fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(record(*ride)), "CRC-64-AVRO")
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(record(*ride)), base)
    single = b"\xc3\x01" + bytes.fromhex(fingerprint) + buffer.getvalue()
    out.append({"name": "a single object", "writer": record(*ride), "reader": record(*ride), "records": [single.hex()], "rows": [plain(base)]})
    (HERE / "avro.json").write_text(json.dumps(out, indent=1) + "\n")


def protobuf():
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "rides.desc"
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", "--include_imports",
                        f"--descriptor_set_out={file}", "rides.proto"], check=True)
        descriptors = file.read_bytes()
    (HERE / "rides.desc").write_bytes(descriptors)
    pool = descriptor_pool.DescriptorPool()
    for each in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.Add(each)
    ride = message_factory.GetMessageClass(pool.FindMessageTypeByName("rides.v1.Ride"))
    later = message_factory.GetMessageClass(pool.FindMessageTypeByName("rides.v1.RideV2"))
    empty = ride()
    full = ride(driver_id=1001, fare=12.25, tip=0.0, kind=2, tags=["a", "b"], counts=[1, -1], raw=b"\x00\xff",
                scores={"b": 2, "a": 1}, cash=0, big=2**63 - 1, zigzag=-5, fixed=2**32 - 1, ratio=0.5, shared=True)
    full.ts.FromMicroseconds(plain(NOON))
    full.note.value = ""
    full.seats.value = 4
    setattr(getattr(full, "from"), "lat", 1.5)
    full.anything["key"] = "value"
    full.previous.driver_id = 5
    full.stops[-2].lon = 7.0
    full.legs.add().metres = 10
    unknown = ride(kind=77)
    new = later(driver_id=7, fare=1.0, kind=1, added="unseen")
    new.ts.FromMicroseconds(1)
    nothing = {"driver_id": 0, "ts": None, "fare": 0.0, "tip": None, "kind": "UNKNOWN", "tags": [], "counts": [], "raw": "",
               "note": None, "seats": None, "from": None, "scores": {}, "card": None, "cash": None, "big": 0, "zigzag": 0,
               "fixed": 0, "ratio": 0.0, "shared": False, "stops": {}, "legs": []}
    rows = [
        (empty, nothing),
        (full, {"driver_id": 1001, "ts": plain(NOON), "fare": 12.25, "tip": 0.0, "kind": "SOLO", "tags": ["a", "b"],
                "counts": [1, -1], "raw": "00ff", "note": "", "seats": 4, "from": {"lat": 1.5, "lon": None},
                "scores": {"a": 1, "b": 2}, "card": None, "cash": 0, "big": 2**63 - 1, "zigzag": -5, "fixed": 2**32 - 1,
                "ratio": 0.5, "shared": True, "stops": {"-2": {"lat": 0.0, "lon": 7.0}}, "legs": [{"metres": 10}]}),
        (unknown, {**nothing, "kind": "77"}),
        (new, {**nothing, "driver_id": 7, "ts": 1, "fare": 1.0, "kind": "POOL"}),
    ]
    out = [{"record": message.SerializeToString(deterministic=True).hex(), "row": row} for message, row in rows]
    (HERE / "protobuf.json").write_text(json.dumps(out, indent=1) + "\n")


avro()
protobuf()
