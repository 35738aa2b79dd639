//! Row-wise SQL transforms on DataFusion's expression crates
