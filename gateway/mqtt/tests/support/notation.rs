//! Packet bytes as text, written from the standard and independent of the crate's
//! own encoder.
//!
//! | token | bytes |
//! | --- | --- |
//! | `20`, `2002` | hexadecimal |
//! | `"abc"` | the text's bytes |
//! | `'abc'` | two bytes of length, then the text |
//! | `{ … }` | what is inside, led by its length as a variable byte integer |
//! | `61*300` | those bytes, 300 times |

/// The bytes that the text stands for.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut stack = vec![Vec::new()];
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let out = stack.last_mut().expect("the outermost level");
        match first {
            '"' | '\'' => {
                let end = rest[1..].find(first).expect("a closing quote") + 1;
                let inner = &rest.as_bytes()[1..end];
                if first == '\'' {
                    out.extend((inner.len() as u16).to_be_bytes());
                }
                out.extend(inner);
                rest = &rest[end + 1..];
            }
            '{' => {
                stack.push(Vec::new());
                rest = &rest[1..];
            }
            '}' => {
                let inner = stack.pop().expect("a level");
                let out = stack.last_mut().expect("an opening brace");
                put_variable_integer(out, inner.len());
                out.extend(inner);
                rest = &rest[1..];
            }
            _ => {
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '*')
                    .unwrap_or(rest.len());
                assert!(end > 0, "not a token: {rest}");
                hexadecimal(&rest[..end], out);
                rest = &rest[end..];
            }
        }
        rest = rest.trim_start();
    }
    assert_eq!(stack.len(), 1, "unclosed brace: {text}");
    stack.remove(0)
}

fn hexadecimal(token: &str, out: &mut Vec<u8>) {
    let (digits, times) = match token.split_once('*') {
        Some((digits, times)) => (digits, times.parse().expect("a count")),
        None => (token, 1),
    };
    assert!(
        digits.len().is_multiple_of(2),
        "odd number of digits: {token}"
    );
    for _ in 0..times {
        for at in (0..digits.len()).step_by(2) {
            out.push(u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal"));
        }
    }
}

/// Appends a variable byte integer, by the algorithm printed in the standard
/// (1.5.5).
pub fn put_variable_integer(out: &mut Vec<u8>, mut x: usize) {
    loop {
        let mut encoded = (x % 128) as u8;
        x /= 128;
        if x > 0 {
            encoded |= 128;
        }
        out.push(encoded);
        if x == 0 {
            return;
        }
    }
}

/// Bytes as hexadecimal text.
pub fn show(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}
