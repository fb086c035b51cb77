//! The text of RTF files.

use std::collections::HashMap;

use crate::MAX_TEXT;
use crate::encoding::decode_code_page;
use crate::error::ExtractError;
use crate::media::Format;

/// Most groups that may be open at once.
const DEPTH: usize = 10_000;

/// Groups whose content is not the document's text.
const SKIPPED: [&str; 17] = [
    "colortbl",
    "stylesheet",
    "info",
    "pict",
    "object",
    "header",
    "headerl",
    "headerr",
    "headerf",
    "footer",
    "footerl",
    "footerr",
    "footerf",
    "listtable",
    "listoverridetable",
    "themedata",
    "fldinst",
];

/// What a group inherits from the group around it.
#[derive(Clone, Copy)]
struct Group {
    skipped: bool,
    in_font_table: bool,
    font: i32,
    /// The number of characters after a Unicode character that replace it for older readers.
    replaced_by: usize,
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    groups: Vec<Group>,
    group: Group,
    code_page: u32,
    /// Code pages of fonts.
    fonts: HashMap<i32, u32>,
    /// Bytes of one code page that are not decoded yet.
    bytes: Vec<u8>,
    /// First half of a character outside the basic plane.
    surrogate: Option<u16>,
    /// Characters that are skipped, because a Unicode character replaces them.
    to_skip: usize,
    out: String,
}

/// Returns the text of an RTF file.
pub fn text(content: &[u8]) -> Result<String, ExtractError> {
    let group = Group { skipped: false, in_font_table: false, font: -1, replaced_by: 1 };
    let mut reader = Reader {
        input: content,
        at: 0,
        groups: Vec::new(),
        group,
        code_page: 1252,
        fonts: HashMap::new(),
        bytes: Vec::new(),
        surrogate: None,
        to_skip: 0,
        out: String::new(),
    };
    if !content.trim_ascii_start().starts_with(b"{\\rtf") {
        let why = "The content does not begin with {\\rtf.".to_owned();
        return Err(ExtractError::damaged(Format::Rtf, why));
    }
    reader.read()?;
    reader.flush();
    let lines: Vec<&str> = reader.out.lines().map(str::trim_end).collect();
    Ok(lines.join("\n").trim().to_owned())
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), ExtractError> {
        while let Some(&byte) = self.input.get(self.at) {
            self.at += 1;
            match byte {
                b'{' => {
                    self.flush();
                    self.to_skip = 0;
                    self.groups.push(self.group);
                    if self.groups.len() > DEPTH {
                        return Err(ExtractError::too_deep(Format::Rtf));
                    }
                }
                b'}' => {
                    self.flush();
                    self.to_skip = 0;
                    match self.groups.pop() {
                        Some(group) => self.group = group,
                        None => break,
                    }
                    // What follows the document is not part of it.
                    if self.groups.is_empty() {
                        return Ok(());
                    }
                }
                b'\\' => self.control(),
                b'\r' | b'\n' => {}
                byte => self.byte(byte),
            }
            if self.out.len() > MAX_TEXT {
                return Err(ExtractError::too_large(Format::Rtf));
            }
        }
        match self.groups.len() {
            0 => Ok(()),
            open => Err(ExtractError::damaged(
                Format::Rtf,
                format!("The file ends within {open} open groups."),
            )),
        }
    }

    /// Reads a control word or symbol; the backslash has been read.
    fn control(&mut self) {
        let Some(&first) = self.input.get(self.at) else { return };
        if !first.is_ascii_alphabetic() {
            self.at += 1;
            return self.symbol(first);
        }
        let rest = &self.input[self.at..];
        let length = rest.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let word = String::from_utf8_lossy(&rest[..length.min(40)]).into_owned();
        let rest = &rest[length..];
        let sign = usize::from(rest.first() == Some(&b'-'));
        let digits = rest[sign..].iter().take_while(|b| b.is_ascii_digit()).count();
        let number = match digits {
            0 => None,
            _ => std::str::from_utf8(&rest[..sign + digits.min(15)]).ok().and_then(|n| {
                let number: i64 = n.parse().ok()?;
                Some(number.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
            }),
        };
        let used = if digits > 0 { sign + digits } else { 0 };
        let blank = usize::from(rest.get(used) == Some(&b' '));
        self.at += length + used + blank;
        if word == "bin" {
            let length = number.map_or(0, |n: i32| usize::try_from(n).unwrap_or(0));
            self.at = self.at.saturating_add(length).min(self.input.len());
            return;
        }
        self.word(&word, number);
    }

    fn symbol(&mut self, symbol: u8) {
        match symbol {
            b'\'' => {
                let digits = self.input.get(self.at..self.at + 2).unwrap_or_default();
                let value = std::str::from_utf8(digits).ok();
                if let Some(byte) = value.and_then(|d| u8::from_str_radix(d, 16).ok()) {
                    self.at += 2;
                    self.byte(byte);
                }
            }
            b'*' => self.group.skipped = true,
            b'~' => self.text("\u{a0}"),
            b'_' => self.text("-"),
            b'\r' | b'\n' => self.text("\n"),
            b'\\' | b'{' | b'}' => self.byte(symbol),
            _ => {}
        }
    }

    fn word(&mut self, word: &str, number: Option<i32>) {
        match (word, number) {
            ("par" | "line" | "sect" | "page" | "row", _) => self.text("\n"),
            ("tab", _) => self.text("\t"),
            ("cell" | "nestcell", _) => self.text(" | "),
            ("emdash", _) => self.text("—"),
            ("endash", _) => self.text("–"),
            ("lquote", _) => self.text("‘"),
            ("rquote", _) => self.text("’"),
            ("ldblquote", _) => self.text("“"),
            ("rdblquote", _) => self.text("”"),
            ("bullet", _) => self.text("•"),
            ("emspace" | "enspace" | "qmspace", _) => self.text(" "),
            ("u", Some(code)) => self.unicode(code as u16),
            ("uc", Some(count)) => {
                self.group.replaced_by = usize::try_from(count).unwrap_or(1).min(100)
            }
            ("ansicpg", Some(page)) => self.code_page = u32::try_from(page).unwrap_or(1252),
            ("mac", _) => self.code_page = 10000,
            ("f", Some(font)) => {
                self.flush();
                self.group.font = font;
            }
            ("fcharset", Some(set)) if self.group.in_font_table => {
                if let Some(page) = code_page_of(set) {
                    self.fonts.insert(self.group.font, page);
                }
            }
            ("fonttbl", _) => {
                self.group.in_font_table = true;
                self.group.skipped = true;
            }
            _ if SKIPPED.contains(&word) => self.group.skipped = true,
            _ => {}
        }
    }

    fn byte(&mut self, byte: u8) {
        if self.to_skip > 0 {
            self.to_skip -= 1;
        } else if !self.group.skipped {
            self.bytes.push(byte);
        }
    }

    fn unicode(&mut self, unit: u16) {
        self.flush();
        self.to_skip = self.group.replaced_by;
        if self.group.skipped {
            return;
        }
        let decoded = match self.surrogate.take() {
            Some(high) => char::decode_utf16([high, unit]).next(),
            None if (0xd800..0xdc00).contains(&unit) => {
                self.surrogate = Some(unit);
                return;
            }
            None => char::decode_utf16([unit]).next(),
        };
        self.out.push(decoded.and_then(|c| c.ok()).unwrap_or('\u{fffd}'));
    }

    fn text(&mut self, text: &str) {
        self.flush();
        if self.to_skip > 0 {
            self.to_skip -= 1;
        } else if !self.group.skipped {
            self.out.push_str(text);
        }
    }

    /// Decodes the bytes that were read.
    fn flush(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let page = self.fonts.get(&self.group.font).copied().unwrap_or(self.code_page);
        self.out.push_str(&decode_code_page(&self.bytes, page));
        self.bytes.clear();
    }
}

/// Returns the code page of a font's character set.
fn code_page_of(character_set: i32) -> Option<u32> {
    Some(match character_set {
        0 => 1252,
        77 => 10000,
        128 => 932,
        129 => 949,
        134 => 936,
        136 => 950,
        161 => 1253,
        162 => 1254,
        163 => 1258,
        177 => 1255,
        178 => 1256,
        186 => 1257,
        204 => 1251,
        222 => 874,
        238 => 1250,
        _ => return None,
    })
}
