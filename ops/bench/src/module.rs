//! Modules that differ in nothing but their bytes, so that each has an artifact of its own.

/// The same component with a custom section more, which says a number and is run by nobody.
pub fn numbered(component: &[u8], number: u32) -> Vec<u8> {
    const NAME: &[u8] = b"bench";
    const CUSTOM: u8 = 0;
    let number = number.to_le_bytes();
    let size = 1 + NAME.len() + number.len();
    // Both lengths are below 128, and so one byte of LEB128 each.
    let head = [CUSTOM, size as u8, NAME.len() as u8];
    [component, &head, NAME, &number].concat()
}

/// The same component with a custom section of zeros behind it, so that it has so many bytes.
pub fn padded(component: &[u8], bytes: usize) -> Vec<u8> {
    const NAME: &[u8] = b"\x03pad";
    const CUSTOM: u8 = 0;
    /// The section's length in LEB128, always in five bytes.
    const LENGTH_BYTES: usize = 5;
    let section = bytes - component.len() - 1 - LENGTH_BYTES;
    let mut padded = component.to_vec();
    padded.push(CUSTOM);
    padded.extend((0..LENGTH_BYTES as u32 - 1).map(|at| (section >> (7 * at)) as u8 | 0x80));
    padded.push((section >> 28) as u8);
    padded.extend_from_slice(NAME);
    padded.resize(bytes, 0);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_as_long_as_it_says() {
        let numbered = numbered(b"component", 7);
        let section = numbered.strip_prefix(b"component").unwrap();
        assert_eq!(section[1] as usize, section.len() - 2);
        assert_eq!(section, b"\0\x0a\x05bench\x07\0\0\0");
    }
    #[test]
    fn a_padded_module_is_as_long_as_it_should_be() {
        let padded = padded(b"component", 1_000);
        assert_eq!(padded.len(), 1_000);
        let section = padded.strip_prefix(b"component").unwrap();
        let bytes = (0..5).map(|at| usize::from(section[1 + at] & 0x7f) << (7 * at)).sum::<usize>();
        assert_eq!((section[0], bytes), (0, section.len() - 6));
    }
}
