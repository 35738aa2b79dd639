//! Tests of the registry file.
