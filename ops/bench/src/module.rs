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
}
