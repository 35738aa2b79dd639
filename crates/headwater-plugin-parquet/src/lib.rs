//! An offline store of Parquet log files in a directory
