//! Files of all formats, whole and broken: each gives the right text, or an error that says what is wrong.
#![cfg(feature = "documents")]

#[path = "../../../tests/support/documents.rs"]
mod documents;

use coco_text::{ExtractErrorKind, extract_pages, extract_text};
use documents::{docx, epub, pdf, pdf_of_objects, pptx, stream, xlsx, zip};

fn text(content: &[u8]) -> String {
    extract_text(content, None).unwrap_or_else(|e| panic!("{e:?}"))
}

fn fails(content: &[u8]) -> (ExtractErrorKind, String) {
    match extract_text(content, None) {
        Ok(text) => panic!("the text is {:?}", text.chars().take(200).collect::<String>()),
        Err(e) => (e.kind, format!("{}: {}", e.message, e.detail.unwrap_or_default())),
    }
}

#[test]
fn a_pdf_file_has_pages() {
    let file = pdf(&["The moon pulls the sea.\nThe sea follows.", "", "Stones (do) not."]);
    let pages = extract_pages(&file, None).unwrap();
    assert_eq!(pages, ["The moon pulls the sea.\nThe sea follows.", "", "Stones (do) not."]);
    assert_eq!(text(&file), "The moon pulls the sea.\nThe sea follows.\n\nStones (do) not.");
    assert_eq!(extract_pages(&file, Some("application/pdf")).unwrap().len(), 3);
}

#[test]
fn images_in_a_pdf_file_are_left_out() {
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Count 1 /Kids [3 0 R] >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> /XObject << /I 6 0 R >> >> >>".to_owned(),
        stream("", b"/I Do BT /F1 12 Tf 72 720 Td (One.) Tj ET"),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
        stream("/Type /XObject /Subtype /Image /Width 1 /Height 1 /Filter /DCTDecode", b"\x01\x02(<[{ BT ) Tj"),
    ];
    assert_eq!(text(&pdf_of_objects(&objects, "")), "One.");
}

#[test]
fn broken_pdf_files_are_errors() {
    let whole = pdf(&["One."]);
    for (case, file) in [
        ("only a header", b"%PDF-1.4\n".to_vec()),
        ("half a file", whole[..whole.len() / 2].to_vec()),
        (
            "no pages",
            pdf_of_objects(
                &[
                    "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
                    "<< /Type /Pages /Count 0 /Kids [] >>".to_owned(),
                ],
                "",
            ),
        ),
        ("no page tree", pdf_of_objects(&["<< /Type /Catalog >>".to_owned()], "")),
        (
            "pages that contain themselves",
            pdf_of_objects(
                &[
                    "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
                    "<< /Type /Pages /Count 1 /Kids [2 0 R] >>".to_owned(),
                ],
                "",
            ),
        ),
        (
            "garbage",
            [b"%PDF-1.7\n".to_vec(), (0..5000u32).map(|n| (n * 37 % 251) as u8).collect()].concat(),
        ),
    ] {
        let (kind, said) = fails(&file);
        assert_eq!(kind, ExtractErrorKind::Damaged, "{case}: {said}");
        assert!(said.starts_with("content is not a valid PDF file: "), "{case}: {said}");
    }
}

#[test]
fn an_encrypted_pdf_file_is_an_error() {
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Count 1 /Kids [3 0 R] >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R >>".to_owned(),
        stream("", b"BT ET"),
    ];
    let key = "00".repeat(32);
    objects.push(format!("<< /Filter /Standard /V 1 /R 2 /O <{key}> /U <{key}> /P -4 >>"));
    let id = "/Encrypt 5 0 R /ID [<00112233445566778899aabbccddeeff> <00112233445566778899aabbccddeeff>]";
    let (kind, said) = fails(&pdf_of_objects(&objects, id));
    assert_eq!(kind, ExtractErrorKind::Encrypted, "{said}");
}

#[test]
fn html_gives_the_main_content_as_markdown() {
    let page = r##"<!DOCTYPE html><html><head><title>Tides &amp; stones</title><style>p { x }</style></head>
      <body><nav><a href="/">Home</a></nav><header>Site</header><main>
      <h2>The <em>sea</em></h2><p>The moon pulls
        the <a href="https://example.org/sea">sea</a>.<br>It <a href="#x">follows</a>.</p>
      <ul><li>one<ul><li>inner</li></ul></li><li>two</li></ul><ol><li>first</li></ol>
      <table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td><p>2</p><p>3</p></td></tr></table>
      <pre>if x:
    y</pre><script>alert(1)</script></main><footer>End</footer></body></html>"##;
    assert_eq!(
        text(page.as_bytes()),
        "# Tides & stones\n\n## The sea\n\nThe moon pulls the [sea](https://example.org/sea).\nIt follows.\n\n\
         - one\n  - inner\n- two\n\n1. first\n\na | b\n1 | 2 3\n\n```\nif x:\n    y\n```"
    );
    // Without a marked main content, all but navigation and the like.
    assert_eq!(
        text(
            b"<html><body><nav>Menu</nav><p>One.</p><aside>Ad</aside><p>Two.</p><footer>x</footer>"
        ),
        "One.\n\nTwo."
    );
    assert_eq!(
        text(
            "<html><meta charset=iso-8859-1><p>Gr\u{f6}\u{df}e"
                .chars()
                .map(|c| c as u8)
                .collect::<Vec<_>>()
                .as_slice()
        ),
        "Größe"
    );
    assert_eq!(text(b"<html></html>"), "");
    assert_eq!(extract_text(b"<p>x</p>", Some("text/html; charset=utf-8")).unwrap(), "x");
}

#[test]
fn html_may_be_nested_deeply_and_broken() {
    let deep = format!("<html>{}x", "<div>".repeat(2_000));
    assert_eq!(text(deep.as_bytes()), "x");
    assert_eq!(text(b"<html><p>a<b>b</p>c</i></table></td>d<"), "ab\n\ncd<");
    let entities = b"<!DOCTYPE html [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><p>a&x;b";
    assert!(!text(entities).contains("root"));
}

#[test]
fn a_docx_file_gives_markdown() {
    let file = docx(
        r#"<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Tides</w:t></w:r></w:p>
           <w:p><w:r><w:t xml:space="preserve">The moon </w:t></w:r><w:r><w:t>pulls &amp; lets &#x67;o.</w:t></w:r></w:p>
           <w:p><w:pPr><w:pStyle w:val="berschrift2"/></w:pPr><w:r><w:t>More</w:t></w:r></w:p>
           <w:p><w:pPr><w:numPr><w:ilvl w:val="0"/></w:numPr></w:pPr><w:r><w:t>one</w:t></w:r></w:p>
           <w:p><w:pPr><w:numPr><w:ilvl w:val="1"/></w:numPr></w:pPr><w:r><w:t>two</w:t></w:r></w:p>
           <w:p><w:r><w:t>See </w:t></w:r><w:hyperlink r:id="rId1"><w:r><w:t>this</w:t></w:r></w:hyperlink><w:r><w:t>.</w:t></w:r></w:p>
           <w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc></w:tr></w:tbl>
           <w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"#,
    );
    assert_eq!(
        text(&file),
        "# Tides\n\nThe moon pulls & lets go.\n\n## More\n\n- one\n  - two\n\nSee [this](https://example.org/).\n\na | b"
    );
}

#[test]
fn a_pptx_file_has_slides_in_their_order() {
    let slide = |title: &str, body: &str| {
        format!(
            r#"<p:sp><p:nvPr><p:ph type="title"/></p:nvPr><p:txBody><a:p><a:r><a:t>{title}</a:t></a:r></a:p></p:txBody></p:sp>
               <p:sp><p:txBody><a:p><a:r><a:t>{body}</a:t></a:r></a:p><a:p><a:r><a:t>more</a:t></a:r></a:p></p:txBody></p:sp>
               <p:sp><p:nvPr><p:ph type="sldNum"/></p:nvPr><p:txBody><a:p><a:r><a:t>7</a:t></a:r></a:p></p:txBody></p:sp>"#
        )
    };
    let (one, two) = (slide("First", "one"), slide("Second", "two"));
    assert_eq!(
        extract_pages(&pptx(&[&one, &two]), None).unwrap(),
        ["# First\n\none\nmore", "# Second\n\ntwo\nmore"]
    );
}

#[test]
fn an_xlsx_file_has_sheets() {
    let rows = r#"<row r="1"><c r="A1" t="inlineStr"><is><t>name</t></is></c><c r="B1" t="inlineStr"><is><t>n</t></is></c></row>
        <row r="3"><c r="A3" t="str"><v>moon</v></c><c r="C3"><v>1.5</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>"#;
    let file = xlsx(&[("Tides", rows), ("Empty", "")]);
    assert_eq!(
        extract_pages(&file, None).unwrap(),
        ["# Tides\n\nname | n\nmoon | 1.5\n2", "# Empty"]
    );
}

#[test]
fn an_epub_file_has_chapters() {
    let file = epub(&["<h1>One</h1><p>The moon.</p>", "", "<p>The <i>sea</i>.</p>"]);
    assert_eq!(extract_pages(&file, None).unwrap(), ["# One\n\nThe moon.", "", "The sea."]);
}

#[test]
fn a_message_has_headers_and_a_body() {
    let message = "From: =?utf-8?q?J=C3=B6rg?= <j@example.org>\r\nTo: a@example.org, b@example.org\r\n\
        Subject: Tides\r\nDate: Tue, 2 Dec 2025 10:00:00 +0100\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=F6=DFe.\r\n--x\r\n\
        Content-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nJVBERg==\r\n--x--\r\n";
    assert_eq!(
        text(message.as_bytes()),
        "Subject: Tides\nFrom: Jörg <j@example.org>\nTo: a@example.org, b@example.org\n\
         Date: 2025-12-02T10:00:00+01:00\n\nGröße.\n\nAttachment: a.pdf"
    );
    let html = "From: a@b\nSubject: x\nContent-Type: text/html\n\n<p>One.<p>Two.";
    assert_eq!(text(html.as_bytes()), "Subject: x\nFrom: a@b\n\nOne.\n\nTwo.");
    // Messages within messages, endlessly.
    let nested = "Subject: x\nFrom: a@b\nContent-Type: message/rfc822\n\n".repeat(5000);
    assert!(text(nested.as_bytes()).starts_with("Subject: x\nFrom: a@b"));
}

#[test]
fn an_rtf_file_has_text() {
    let file = br"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial;}}{\*\generator x;}
{\info{\title hidden}}\f0 Gr\'f6\'dfe\par {\b bold} text\line \u8364?5 and {\f1\'cf\'f0} \{x\}\cell y\row\uc2\u-10179??\u-8704??}";
    assert_eq!(text(file), "Größe\nbold text\n€5 and Пр {x} | y\n😀");
    assert!(fails(b"{\\rtf1 abc").1.contains("The file ends within 1 open groups."));
    assert_eq!(fails("{\\rtf1".repeat(20_000).as_bytes()).0, ExtractErrorKind::TooLarge);
    // Binary data that is longer than the file.
    assert_eq!(fails(b"{\\rtf1 a\\bin99999999999 x}").0, ExtractErrorKind::Damaged);
    assert_eq!(text(b"{\\rtf1 a\\bin2 xxb}"), "ab");
}

#[test]
fn plain_text_is_decoded() {
    assert_eq!(text("Größe".as_bytes()), "Größe");
    assert_eq!(
        text(b"Gr\xf6\xdfe der B\xe4ume, \xfcber die Stra\xdfe"),
        "Größe der Bäume, über die Straße"
    );
    assert_eq!(text(b"\xff\xfeG\0r\0\xf6\0"), "Grö");
    assert_eq!(text(b""), "");
    assert_eq!(extract_pages(b"", None).unwrap(), [""]);
    assert_eq!(extract_text(b"a\0b", Some("text/plain")).unwrap(), "ab");
    assert_eq!(extract_text(b"\xe4", Some("text/plain; charset=iso-8859-1")).unwrap(), "ä");
}

#[test]
fn what_has_no_text_is_an_error() {
    for (content, detail) in [
        (&b"\x89PNG\r\n\x1a\n"[..], "The content is a PNG image."),
        (b"\x1f\x8b\x08\0\0", "The content is compressed (gzip)."),
        (b"\0\x01\x02\x03\x04", "The content is binary data."),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0",
            "The content is a file of an older Microsoft program (DOC, PPT or MSG).",
        ),
        (&zip(&[("a.txt", b"x")]), "The content is a ZIP archive."),
    ] {
        let (kind, said) = fails(content);
        assert_eq!(kind, ExtractErrorKind::Unsupported);
        assert!(said.ends_with(detail), "{said}");
    }
    let wrong = extract_text(b"x", Some("image/png")).unwrap_err();
    assert_eq!(wrong.message, "media type \"image/png\" is not supported");
    let mut encrypted = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
    encrypted.extend("EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes));
    assert_eq!(fails(&encrypted).0, ExtractErrorKind::Encrypted);
}

#[test]
fn broken_archives_are_errors() {
    let whole = docx("<w:p><w:r><w:t>One</w:t></w:r></w:p>");
    let kinds = [
        ("half a file", whole[..whole.len() / 2].to_vec(), "DOCX file"),
        ("no document", zip(&[("word/document2.xml", b"<a/>")]), "DOCX file"),
        ("broken XML", docx("<w:p><w:r></w:p>"), "DOCX file"),
        ("open XML", zip(&[("word/document.xml", b"<a><b>")]), "DOCX file"),
        ("no slides' file", zip(&[("ppt/presentation.xml", b"<a")]), "PPTX file"),
        ("no workbook", zip(&[("xl/workbook.xml", b"<a")]), "spreadsheet"),
        ("no package", zip(&[("META-INF/container.xml", b"<a/>")]), "EPUB file"),
        (
            "a missing package",
            zip(&[("META-INF/container.xml", b"<rootfile full-path='x'/>")]),
            "EPUB file",
        ),
    ];
    for (case, file, format) in kinds {
        let (kind, said) = fails(&file);
        assert_eq!(kind, ExtractErrorKind::Damaged, "{case}: {said}");
        assert!(said.starts_with(&format!("content is not a valid {format}: ")), "{case}: {said}");
    }
    let deep = docx(&"<w:p>".repeat(100_000));
    assert_eq!(fails(&deep).0, ExtractErrorKind::TooLarge);
}

#[test]
fn no_entity_is_expanded_in_xml() {
    let laughs = r#"<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>
      <w:document xmlns:w="w"><w:p><w:r><w:t>x&b;&f;y</w:t></w:r></w:p></w:document>"#;
    assert_eq!(text(&zip(&[("word/document.xml", laughs.as_bytes())])), "xy");
}

#[test]
fn a_file_that_grows_too_large_is_an_error() {
    // 300 MB of zeros, as the deflate format's longest matches.
    let bomb = documents::zip_of_packed(&[documents::Packed {
        name: "word/document.xml",
        method: 8,
        crc: 0,
        size: 300 << 20,
        data: deflated_zeros(300 << 20),
    }]);
    assert!(bomb.len() < 3 << 20, "{}", bomb.len());
    let (kind, said) = fails(&bomb);
    assert_eq!(kind, ExtractErrorKind::TooLarge, "{said}");
}

/// Bytes that are zero, in the deflate format: one literal, and then matches of 258 bytes.
fn deflated_zeros(length: usize) -> Vec<u8> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    let mut push = |value: u32, width: u32, out: &mut Vec<u8>| {
        bits |= value << count;
        count += width;
        while count >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            count -= 8;
        }
    };
    // A final block with fixed codes; the literal 0 is 00110000, most significant bit first.
    push(0b011, 3, &mut out);
    push(0b0000_1100, 8, &mut out);
    for _ in 0..length / 258 {
        // Length 258 is 11000101, and distance 1 is 00000.
        push(0b1010_0011, 8, &mut out);
        push(0, 5, &mut out);
    }
    push(0, 7, &mut out);
    push(0, 7, &mut out);
    out
}
