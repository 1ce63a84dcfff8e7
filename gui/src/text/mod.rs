//! Text of the world: fonts, emoji, direction, links.
