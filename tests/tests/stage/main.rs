//! Cores and relays on the stage: what hostile or unlucky peers and relays do to a device. Each test
//! tells the story of something that once went wrong.

mod peers;
mod relays;
mod time;
