//! An online store in one SQLite file
