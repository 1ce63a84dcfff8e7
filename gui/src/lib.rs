//! The kith desktop app, `kith-desktop`: it speaks the node's local API, and runs the node inside
//! itself when no daemon is running.
//!
//! ```text
//! client   commands out, updates back; a real device, and a fake one
//! model    what the app knows, folded from updates; pure
//! screens  draw the model and say what the user wants
//! app      applies that
//! theme    colours, measures, type; style lays them on egui
//! ```
//!
//! [`text`] and [`widgets`] draw what several screens share. What never will live here: keys, storage,
//! network. The law: of all crates of kith this one imports only `kith-node`.

pub mod app;
pub mod client;
pub mod clock;
pub mod contrast;
pub mod model;
pub mod screens;
pub mod style;
pub mod text;
pub mod theme;
pub mod widgets;
