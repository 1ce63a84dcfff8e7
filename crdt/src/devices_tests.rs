//! Tests of the device list.
