//! Drawn things that several screens share.
