//! The binary `kith-desktop`: opens the window.
//!
//! The law: what keeps it from opening is said in one sentence that names the fix.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use egui::ViewportBuilder;
use kith_gui::{
    app::App,
    client::device::{Device, kept_in},
    clock::Clock,
    model::Kept,
    style,
};
use kith_node::profile::{KeySource, Profile};

const USAGE: &str = "kith-desktop [--profile DIR]: the kith desktop app. Without --profile or \
                     KITH_PROFILE it opens the profile that `kith` uses.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("kith-desktop: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let Some(folder) = folder()? else {
        println!("{USAGE}");
        return Ok(());
    };
    let profile = match folder {
        Some(folder) => Profile::at(folder),
        None => Profile::at_default(),
    };
    let profile = profile.map_err(|error| error.to_string())?;
    has_display()?;
    let kept = kept_in(&profile).map(|text| Kept::parse(&text)).unwrap_or_default();
    let [width, height] = kept.window.unwrap_or([1100.0, 760.0]);
    let options = eframe::NativeOptions {
        viewport: ViewportBuilder::default()
            .with_title("kith")
            .with_app_id("kith")
            .with_inner_size([width.clamp(360.0, 8192.0), height.clamp(320.0, 8192.0)])
            .with_min_inner_size([360.0, 320.0]),
        ..Default::default()
    };
    eframe::run_native(
        "kith",
        options,
        Box::new(move |cc| {
            style::install(&cc.egui_ctx);
            let ctx = cc.egui_ctx.clone();
            let wake = Arc::new(move || ctx.request_repaint());
            let device = Device::start(profile, KeySource::Default, wake)?;
            Ok(Box::new(App::new(Box::new(device), kept, Clock::System)))
        }),
    )
    .map_err(|error| {
        format!("no window can be opened ({error}). Install OpenGL drivers (Debian: apt install libgl1 libegl1 libgl1-mesa-dri) or use `kith` at the command line.")
    })
}

/// The profile's folder; the outer `None` asks for help.
#[allow(clippy::option_option)]
fn folder() -> Result<Option<Option<PathBuf>>, String> {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        None => Ok(Some(std::env::var_os("KITH_PROFILE").map(PathBuf::from))),
        Some(arg) if arg == "--profile" => match args.next() {
            Some(folder) => Ok(Some(Some(folder.into()))),
            None => Err("--profile needs a folder".into()),
        },
        Some(arg) if arg == "--help" || arg == "-h" => Ok(None),
        Some(arg) => Err(format!("{} is not known; try --help", arg.to_string_lossy())),
    }
}

/// Without a display the window system would only say that it failed.
fn has_display() -> Result<(), String> {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let unix = cfg!(all(unix, not(target_os = "macos")));
    if unix && !set("DISPLAY") && !set("WAYLAND_DISPLAY") && !set("WAYLAND_SOCKET") {
        return Err("there is no display: start it in a desktop session, or use `kith` at the command line.".into());
    }
    Ok(())
}
