//! Finds the encoding of a text, and decodes it.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// How much of a text is looked at to guess its encoding.
const LOOKED_AT: usize = 1 << 20;

/// Decodes a text. Its encoding is that of its byte order mark, the given one, UTF-8 if it is valid
/// UTF-8, UTF-16 if every second byte is zero, or what the frequencies of its bytes suggest.
pub fn decode(content: &[u8], charset: Option<&str>) -> String {
    let encoding = match Encoding::for_bom(content) {
        Some((marked, _)) => marked,
        None => declared(charset).unwrap_or_else(|| guess(content)),
    };
    encoding.decode(content).0.into_owned()
}

/// Decodes an HTML document, which may name its encoding itself.
#[cfg(feature = "html")]
pub fn decode_html(content: &[u8], charset: Option<&str>) -> String {
    if charset.is_some() || std::str::from_utf8(content).is_ok() {
        return decode(content, charset);
    }
    let start = String::from_utf8_lossy(&content[..content.len().min(1024)]).to_ascii_lowercase();
    let named = ["charset=", "encoding="].iter().find_map(|word| {
        let after = &start[start.find(word)? + word.len()..];
        let after = after.trim_start_matches(['"', '\'', ' ']);
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && !"-_:.".contains(c));
        Some(after[..end.unwrap_or(after.len())].to_owned())
    });
    decode(content, named.as_deref())
}

/// Decodes bytes of a numbered code page of Windows.
pub(crate) fn decode_code_page(bytes: &[u8], page: u32) -> String {
    let label = match page {
        932 => "shift_jis".to_owned(),
        936 => "gbk".to_owned(),
        949 => "euc-kr".to_owned(),
        950 => "big5".to_owned(),
        874 => "windows-874".to_owned(),
        10000 => "macintosh".to_owned(),
        65001 => "utf-8".to_owned(),
        page => format!("windows-{page}"),
    };
    let encoding = Encoding::for_label(label.as_bytes()).unwrap_or(encoding_rs::WINDOWS_1252);
    encoding.decode_without_bom_handling(bytes).0.into_owned()
}

fn declared(charset: Option<&str>) -> Option<&'static Encoding> {
    Encoding::for_label(charset?.as_bytes())
}

fn guess(content: &[u8]) -> &'static Encoding {
    if std::str::from_utf8(content).is_ok() && !content.contains(&0) {
        return UTF_8;
    }
    if let Some(wide) = guess_utf16(content) {
        return wide;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    let part = &content[..content.len().min(LOOKED_AT)];
    detector.feed(part, part.len() == content.len());
    detector.guess(None, Utf8Detection::Allow)
}

/// Returns UTF-16 if most bytes at even or at odd positions are zero, as in Latin text.
pub(crate) fn guess_utf16(content: &[u8]) -> Option<&'static Encoding> {
    let part = &content[..content.len().min(4096) & !1];
    let zeros = |first: usize| part.iter().skip(first).step_by(2).filter(|b| **b == 0).count();
    let (high_first, low_first) = (zeros(0), zeros(1));
    let most = part.len() * 2 / 5;
    if part.len() < 4 || content.len() % 2 == 1 {
        return None;
    }
    if low_first > most && high_first == 0 {
        Some(UTF_16LE)
    } else if high_first > most && low_first == 0 {
        Some(UTF_16BE)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_of_a_text_is_found() {
        let text = "Größe und Maß: naïve Übung über Bäume, für Österreich. ";
        assert_eq!(decode(text.as_bytes(), None), text);
        let (latin, _, _) = encoding_rs::WINDOWS_1252.encode(text);
        assert_eq!(decode(&latin, None), text);
        assert_eq!(decode(&latin, Some("iso-8859-1")), text);
        let wide = |to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
        assert_eq!(decode(&wide(u16::to_le_bytes), None), text);
        assert_eq!(decode(&wide(u16::to_be_bytes), None), text);
        assert_eq!(decode(b"\xef\xbb\xbfabc", None), "abc");
        assert_eq!(decode(b"\xff\xfea\0b\0", Some("utf-8")), "ab");
        assert_eq!(decode(b"", None), "");
        let japanese = "これは日本語の文章です。文字の符号化方式を見つけます。";
        let (coded, _, _) = encoding_rs::SHIFT_JIS.encode(japanese);
        assert_eq!(decode(&coded, None), japanese);
    }
}
