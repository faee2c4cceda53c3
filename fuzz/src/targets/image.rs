//! Images of the tables: the input as it is, and its records with an end that fits them.

use terraform_core::catalog::Tables;
use terraform_core::catalog::image::{ImageDecoder, ImageEncoder, ImageError};
use terraform_core::wire::checksum::crc32;

/// The tag of the record that ends an image.
const END: u8 = 255;

/// Whatever is accepted survives its own image, in blocks of any size.
pub fn image(data: &[u8]) {
    for whole in [data, &sealed(data)] {
        let Ok(tables) = decoded(std::iter::once(whole)) else { continue };
        let mut encoder = ImageEncoder::new(tables.clone());
        let blocks: Vec<_> = std::iter::from_fn(|| encoder.next_block(data.len() % 300)).collect();
        let again = decoded(blocks.iter().map(|block| &**block));
        assert_eq!(again, Ok(tables), "tables survive their image");
    }
}

fn decoded<'a>(blocks: impl Iterator<Item = &'a [u8]>) -> Result<Tables, ImageError> {
    let mut decoder = ImageDecoder::default();
    for block in blocks {
        decoder.block(block)?;
    }
    decoder.finish()
}

/// The whole records that `data` begins with, up to an end, and an end that counts them: no input
/// finds a checksum by chance.
fn sealed(data: &[u8]) -> Vec<u8> {
    let (mut rest, mut count) = (data, 0_u64);
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        match behind.split_at_checked(length) {
            Some(([tag, ..], behind)) if *tag != END => (rest, count) = (behind, count + 1),
            Some(_) | None => break,
        }
    }
    let mut image = data.strip_suffix(rest).unwrap_or(data).to_vec();
    let crc = crc32(&image);
    image.extend_from_slice(&[0, 0, 0, 13, END]);
    image.extend_from_slice(&count.to_be_bytes());
    image.extend_from_slice(&crc.to_be_bytes());
    image
}
