//! Conformance suites, fault injection and oracles for Headwater plugins
