//! Contrast between colours, as WCAG 2.2 defines it.
//!
//! The law: a colour is judged by number before it is judged by eye.

/// An opaque colour in sRGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color {
    /// Red.
    pub red: u8,
    /// Green.
    pub green: u8,
    /// Blue.
    pub blue: u8,
}

impl Color {
    /// From `0xRRGGBB`.
    pub const fn hex(rgb: u32) -> Self {
        Self { red: (rgb >> 16) as u8, green: (rgb >> 8) as u8, blue: rgb as u8 }
    }

    /// This colour at `percent` opacity over another, mixed in sRGB as screens do.
    pub fn over(self, under: Self, percent: u8) -> Self {
        let mix = |over: u8, under: u8| {
            let parts = u32::from(over) * u32::from(percent.min(100))
                + u32::from(under) * u32::from(100 - percent.min(100));
            ((parts + 50) / 100) as u8
        };
        Self {
            red: mix(self.red, under.red),
            green: mix(self.green, under.green),
            blue: mix(self.blue, under.blue),
        }
    }

    /// Relative luminance, 0 (black) to 1 (white).
    pub fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue)
    }
}

/// The contrast ratio of two colours, 1 (none) to 21 (black on white).
pub fn contrast(a: Color, b: Color) -> f64 {
    let (a, b) = (a.luminance(), b.luminance());
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_is_that_of_the_standard() {
        let (black, white, gray) = (Color::hex(0), Color::hex(0xFFFFFF), Color::hex(0x767676));
        assert!((contrast(black, white) - 21.0).abs() < 1e-9);
        assert!((contrast(white, white) - 1.0).abs() < 1e-9);
        // The lightest gray that passes 4.5:1 on white.
        assert!((contrast(gray, white) - 4.54).abs() < 0.01);
        assert!(contrast(Color::hex(0x777777), white) < 4.5);
    }

    #[test]
    fn mixing_meets_both_ends() {
        let (a, b) = (Color::hex(0x102030), Color::hex(0xF0E0D0));
        assert_eq!(a.over(b, 100), a);
        assert_eq!(a.over(b, 0), b);
        assert_eq!(a.over(b, 50), Color::hex(0x808080));
    }
}
