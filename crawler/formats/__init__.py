"""Formats of URL lists and results. No module does I/O: readers are fed bytes, writers get a stream.

Other packages may import every module; they open lists and writers by name with `open_reader` and `open_writer`.

    url_lists          open_reader: a reader for an input format
    ├── csv_reader     a column of a CSV file
    ├── line_readers   plain text and NDJSON
    └── json_batch     {"urls": [...]} as it arrives
    encodings          UTF-16 and UTF-32 into UTF-8
    unpacking          find_unpacker: decompression in pieces of bounded size
    └── gzip_reader    gzip, also of request bodies
    result_writers     open_writer: a writer for NDJSON, CSV, or
    └── table          a table for a terminal
    sse                reads server-sent events, which the client of the service receives
"""
