//! Takes a client's mask off.

/// Takes the mask off in place; the mask's first byte is that of the payload's first. Whether all of it is
/// ASCII is known for one more instruction a word, and then nobody has to look for UTF-8.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) -> bool {
    let [a, b, c, d] = mask;
    let mask = [a, b, c, d, a, b, c, d];
    let word = u64::from_ne_bytes(mask);
    let (words, rest) = payload.as_chunks_mut::<8>();
    let mut seen = 0;
    for bytes in words {
        let plain = u64::from_ne_bytes(*bytes) ^ word;
        seen |= plain;
        *bytes = plain.to_ne_bytes();
    }
    let mut seen_in_rest = 0;
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
        seen_in_rest |= *byte;
    }
    seen & HIGH_BITS == 0 && seen_in_rest.is_ascii()
}

const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);

/// The mask for what follows a payload of this length.
pub(super) fn advance(mask: [u8; 4], by: usize) -> [u8; 4] {
    let bits = (by % 4) as u32 * 8;
    u32::from_be_bytes(mask).rotate_left(bits).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_every_cut_is_unmasked_as_the_rfc_says() {
        let mask = [0x12, 0x00, 0xff, 0x80];
        let plain: Vec<u8> = (0..64).map(|n: u8| n.wrapping_mul(37)).collect();
        let masked: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        for length in 0..=masked.len() {
            for cut in 0..=length {
                let mut payload = masked[..length].to_vec();
                let (front, back) = payload.split_at_mut(cut);
                let front_is_ascii = unmask(front, mask);
                let back_is_ascii = unmask(back, advance(mask, cut));
                assert_eq!(payload, plain[..length], "{length} bytes, cut at {cut}");
                assert_eq!(
                    (front_is_ascii, back_is_ascii),
                    (plain[..cut].is_ascii(), plain[cut..length].is_ascii())
                );
            }
        }
    }

    #[test]
    fn one_byte_that_is_not_ascii_is_seen_wherever_it_stands() {
        for length in 1..40 {
            for at in 0..length {
                let mut payload = vec![b'a'; length];
                assert!(unmask(&mut payload, [0; 4]));
                payload[at] = 0x80;
                assert!(!unmask(&mut payload, [0; 4]), "byte {at} of {length}");
            }
        }
    }
}
