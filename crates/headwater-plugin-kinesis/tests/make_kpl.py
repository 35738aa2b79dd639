"""Makes kpl.txt: aggregates of the Kinesis Producer Library's format, made by a library that is not ours.

    python3 -m venv venv && venv/bin/pip install aws-kinesis-agg==1.2.3 protobuf==3.20.3 six==1.17.0
    venv/bin/python make_kpl.py

The records `{"number":0}` to `{"number":59}` with the keys `key-0` to `key-6` in turn, and an explicit hash key for
every third one. Each line is one aggregate of 600 bytes at the most: the key to send it by, and its bytes in hex.
"""

import pathlib

from aws_kinesis_agg.aggregator import RecordAggregator

FILE = pathlib.Path(__file__).with_name("kpl.txt")

aggregator = RecordAggregator(max_size=600)
full = []
for number in range(60):
    explicit = str(number * 10**30) if number % 3 == 0 else None
    full.append(aggregator.add_user_record(f"key-{number % 7}", f'{{"number":{number}}}', explicit))
full.append(aggregator.clear_and_get())
with FILE.open("w") as file:
    for aggregate in filter(None, full):
        key, _, data = aggregate.get_contents()
        print(key, data.hex(), file=file)
