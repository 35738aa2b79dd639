//! Streams and batch sources over NDJSON, Parquet and CSV files
