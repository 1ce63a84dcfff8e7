//! Reading a QR code from an image file.
//!
//! The law: files come from anywhere; size and dimensions are bounded before anything is decoded.

use std::io::{Cursor, Read as _};
use std::path::Path;

use image::{ImageFormat, ImageReader, Limits};

/// Larger files are not read.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Larger images are not decoded.
const SIDE_PIXELS_MAX: u32 = 8_192;
/// Decoding takes no more memory than this.
const DECODE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Larger images are scaled down first: codes that need more are not made.
const SCAN_SIDE_PIXELS: u32 = 1_600;

/// Why there is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QrError {
    /// The file cannot be read.
    Unreadable,
    /// The file or its picture is too large.
    TooLarge,
    /// Neither PNG nor JPEG, or broken.
    NotAnImage,
    /// A picture without a QR code.
    NoCode,
    /// A QR code that cannot be read.
    Damaged,
}

impl std::fmt::Display for QrError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "This file cannot be read. Choose another, or paste the link as text.",
            Self::TooLarge => "This picture is too large. Take a screenshot of the code alone and choose that.",
            Self::NotAnImage => "This is no PNG or JPEG picture. Save the code as one of them, or paste the link as text.",
            Self::NoCode => "There is no QR code in this picture. Choose one that shows the whole code with a light edge.",
            Self::Damaged => "The QR code in this picture cannot be read. Take a sharper one, or paste the link as text.",
        })
    }
}

impl std::error::Error for QrError {}

/// The content of the first readable QR code in a PNG or JPEG file. Blocks: not for the UI thread.
pub fn read_qr_file(path: &Path) -> Result<String, QrError> {
    let file = std::fs::File::open(path).map_err(|_| QrError::Unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|_| QrError::Unreadable)?;
    read_qr(&bytes)
}

/// The content of the first readable QR code in a PNG or JPEG.
pub fn read_qr(bytes: &[u8]) -> Result<String, QrError> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(QrError::TooLarge);
    }
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|_| QrError::Unreadable)?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err(QrError::NotAnImage);
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_PIXELS_MAX);
    limits.max_image_height = Some(SIDE_PIXELS_MAX);
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(limits);
    let decoded = reader.decode().map_err(|error| match error {
        image::ImageError::Limits(_) => QrError::TooLarge,
        _ => QrError::NotAnImage,
    })?;
    let scaled = if decoded.width().max(decoded.height()) > SCAN_SIDE_PIXELS {
        decoded.thumbnail(SCAN_SIDE_PIXELS, SCAN_SIDE_PIXELS)
    } else {
        decoded
    };
    scan(&over_white(&scaled.into_rgba8()))
}

/// Transparent parts are light: codes are often saved without a background.
fn over_white(image: &image::RgbaImage) -> image::GrayImage {
    image::GrayImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0.map(u32::from);
        let light = (red * 54 + green * 183 + blue * 19) / 256;
        image::Luma([u8::try_from((light * alpha + 255 * (255 - alpha)) / 255).unwrap_or(u8::MAX)])
    })
}

fn scan(image: &image::GrayImage) -> Result<String, QrError> {
    let side = |pixels: u32| usize::try_from(pixels).unwrap_or(0);
    let (width, height) = (side(image.width()), side(image.height()));
    let mut found = false;
    for inverted in [false, true] {
        let mut prepared = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
            let light = image.as_raw()[y * width + x];
            if inverted { 255 - light } else { light }
        });
        for grid in prepared.detect_grids() {
            found = true;
            if let Ok((_, content)) = grid.decode() {
                return Ok(content);
            }
        }
    }
    Err(if found { QrError::Damaged } else { QrError::NoCode })
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GrayImage, Luma, Rgba, RgbaImage};

    use super::*;

    const LINK: &str = "kith:1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0jqscdrv4";

    fn code(dark: u8, light: u8) -> GrayImage {
        let code = qrcode::QrCode::new(LINK).expect("short enough");
        let (width, colors) = (code.width(), code.to_colors());
        let side = u32::try_from((width + 8) * 4).expect("small");
        GrayImage::from_fn(side, side, |x, y| {
            let (x, y) = ((x / 4) as usize, (y / 4) as usize);
            let inside = (4..width + 4).contains(&x) && (4..width + 4).contains(&y);
            let is_dark = inside && colors[(y - 4) * width + x - 4] == qrcode::Color::Dark;
            Luma([if is_dark { dark } else { light }])
        })
    }

    fn file(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).expect("encodes");
        bytes.into_inner()
    }

    #[test]
    fn codes_are_read_from_png_and_jpeg_and_by_night() {
        let plain = DynamicImage::from(code(0, 255));
        assert_eq!(read_qr(&file(&plain, ImageFormat::Png)).as_deref(), Ok(LINK));
        assert_eq!(read_qr(&file(&plain, ImageFormat::Jpeg)).as_deref(), Ok(LINK));
        let inverted = DynamicImage::from(code(230, 20));
        assert_eq!(read_qr(&file(&inverted, ImageFormat::Png)).as_deref(), Ok(LINK));
        let transparent =
            RgbaImage::from_fn(code(0, 255).width(), code(0, 255).height(), |x, y| {
                Rgba([0, 0, 0, 255 - code_pixel(x, y)])
            });
        assert_eq!(read_qr(&file(&transparent.into(), ImageFormat::Png)).as_deref(), Ok(LINK));
    }

    fn code_pixel(x: u32, y: u32) -> u8 {
        static CODE: std::sync::OnceLock<GrayImage> = std::sync::OnceLock::new();
        CODE.get_or_init(|| code(0, 255)).get_pixel(x, y).0[0]
    }

    #[test]
    fn large_photographs_are_scaled_and_read() {
        let mut photo = GrayImage::from_pixel(2400, 1800, Luma([200]));
        let large =
            image::imageops::resize(&code(0, 255), 900, 900, image::imageops::FilterType::Nearest);
        image::imageops::overlay(&mut photo, &large, 600, 500);
        assert_eq!(read_qr(&file(&photo.into(), ImageFormat::Jpeg)).as_deref(), Ok(LINK));
    }

    #[test]
    fn what_is_no_code_is_told_apart() {
        let blank = DynamicImage::from(GrayImage::from_pixel(64, 64, Luma([255])));
        assert_eq!(read_qr(&file(&blank, ImageFormat::Png)), Err(QrError::NoCode));
        assert_eq!(read_qr(b"GIF89a..."), Err(QrError::NotAnImage));
        assert_eq!(read_qr(b""), Err(QrError::NotAnImage));
        let cut = file(&code(0, 255).into(), ImageFormat::Png);
        assert_eq!(read_qr(&cut[..cut.len() / 2]), Err(QrError::NotAnImage));
        assert_eq!(read_qr_file(Path::new("/no/such/file")), Err(QrError::Unreadable));
    }

    #[test]
    fn bombs_are_refused_before_they_are_decoded() {
        // A header that promises 60,000 × 60,000 pixels.
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60, 8, 6, 0, 0, 0]);
        let crc = crc(&png[12..]);
        png.extend(crc.to_be_bytes());
        png.extend(b"\0\0\0\0IDAT\x35\xAF\x06\x1E");
        assert_eq!(read_qr(&png), Err(QrError::TooLarge));
        assert_eq!(
            read_qr(&vec![0; usize::try_from(FILE_BYTES_MAX).unwrap() + 1]),
            Err(QrError::TooLarge)
        );
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 }
            })
        })
    }
}
