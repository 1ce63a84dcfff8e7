//! Tests of governance.
