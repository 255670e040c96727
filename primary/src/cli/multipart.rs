//! A `multipart/form-data` body that is streamed: its length is known before its first byte is
//! read, and no file is ever in memory.
//!
//! Writes what it is given under the names that it is given; which names Hearth takes is for the
//! caller to know.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Cursor, Read};

/// The parts, in their order.
pub struct Multipart {
    boundary: String,
    pieces: VecDeque<Piece>,
    length: u64,
}

enum Piece {
    Text(Cursor<Vec<u8>>),
    /// Exactly so many bytes of the file.
    File {
        file: File,
        left: u64,
    },
}

impl Multipart {
    pub fn new() -> Self {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the kernel has random numbers");
        let boundary = format!("hearth-{:032x}", u128::from_be_bytes(random));
        Self { boundary, pieces: VecDeque::new(), length: 0 }
    }

    pub fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// Of everything, once [`Multipart::end`] was called.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn file(&mut self, name: &str, file: File, length: u64) {
        self.head(&format!(
            "name=\"file\"; filename=\"{}\"\r\nContent-Type: application/wasm",
            quoted(name)
        ));
        self.length += length;
        self.pieces.push_back(Piece::File { file, left: length });
        self.text("\r\n".to_owned());
    }

    pub fn json(&mut self, name: &str, json: &str) {
        self.head(&format!("name=\"{}\"\r\nContent-Type: application/json", quoted(name)));
        self.text(format!("{json}\r\n"));
    }

    pub fn end(mut self) -> Self {
        self.text(format!("--{}--\r\n", self.boundary));
        self
    }

    fn head(&mut self, disposition: &str) {
        let boundary = &self.boundary;
        self.text(format!("--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"));
    }

    fn text(&mut self, text: String) {
        self.length += text.len() as u64;
        self.pieces.push_back(Piece::Text(Cursor::new(text.into_bytes())));
    }
}

/// As browsers quote names in these heads.
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

impl Read for Multipart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(piece) = self.pieces.front_mut() {
            let read = match piece {
                Piece::Text(text) => text.read(buffer)?,
                Piece::File { left: 0, .. } => 0,
                Piece::File { file, left } => {
                    let read = file.take(*left).read(buffer)?;
                    if read == 0 {
                        let error = "the file got shorter while it was read";
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
                    }
                    *left -= read as u64;
                    read
                }
            };
            if read > 0 {
                return Ok(read);
            }
            self.pieces.pop_front();
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn the_body_and_its_length() {
        let mut body = Multipart::new();
        body.file("a.wasm", file(b"\0asm\r\n"), 6);
        body.file("b \"x\".wasm.zst", file(b""), 0);
        body.json("options", "{}");
        let mut body = body.end();
        let (length, boundary) = (body.length(), body.boundary.clone());
        assert_eq!(body.content_type(), format!("multipart/form-data; boundary={boundary}"));
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, length);
        let expected = [
            "--BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wasm\"\r\n",
            "Content-Type: application/wasm\r\n\r\n\0asm\r\n\r\n",
            "--BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"; filename=\"b %22x%22.wasm.zst\"\r\n",
            "Content-Type: application/wasm\r\n\r\n\r\n",
            "--BOUNDARY\r\nContent-Disposition: form-data; name=\"options\"\r\n",
            "Content-Type: application/json\r\n\r\n{}\r\n",
            "--BOUNDARY--\r\n",
        ];
        let expected = expected.concat().replace("BOUNDARY", &boundary);
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_not_sent_as_if_it_had_not() {
        let mut body = Multipart::new();
        body.file("a.wasm", file(b"123"), 4);
        let error = body.end().read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let mut body = Multipart::new();
        body.file("a.wasm", file(b"12345"), 4);
        let mut body = body.end();
        let (length, mut bytes) = (body.length(), Vec::new());
        body.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, length);
    }

    #[test]
    fn no_two_boundaries_are_alike() {
        assert_ne!(Multipart::new().boundary, Multipart::new().boundary);
    }
}
