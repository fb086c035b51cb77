//! Small files of several formats, made by code: PDF, ZIP archives, and what Office programs put into them.

/// A PDF file with a page for each text. A line of the text is a line of the page; letters are those of ASCII.
pub fn pdf(pages: &[&str]) -> Vec<u8> {
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!(
            "<< /Type /Pages /Count {} /Kids [{}] >>",
            pages.len(),
            (0..pages.len()).map(|n| format!("{} 0 R ", 4 + 2 * n)).collect::<String>()
        ),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
            .to_owned(),
    ];
    for (n, text) in pages.iter().enumerate() {
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {} 0 R /Resources << /Font << /F1 3 0 R >> >> >>",
            5 + 2 * n
        ));
        let mut content = "BT /F1 12 Tf 14 TL 72 720 Td".to_owned();
        for line in text.lines() {
            let line = line.replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)");
            content.push_str(&format!(" ({line}) Tj T*"));
        }
        content.push_str(" ET");
        objects.push(stream("", content.as_bytes()));
    }
    pdf_of_objects(&objects, "")
}

/// A stream of a PDF file, with more entries of its dictionary.
pub fn stream(entries: &str, content: &[u8]) -> String {
    format!(
        "<< /Length {} {entries} >>\nstream\n{}\nendstream",
        content.len(),
        String::from_utf8_lossy(content)
    )
}

/// A PDF file of numbered objects, the first of which is the catalog.
pub fn pdf_of_objects(objects: &[String], trailer: &str) -> Vec<u8> {
    let mut out = "%PDF-1.4\n".to_owned();
    let mut places = Vec::new();
    for (n, object) in objects.iter().enumerate() {
        places.push(out.len());
        out.push_str(&format!("{} 0 obj\n{object}\nendobj\n", n + 1));
    }
    let xref = out.len();
    out.push_str(&format!("xref\n0 {}\n0000000000 65535 f \n", places.len() + 1));
    for place in &places {
        out.push_str(&format!("{place:010} 00000 n \n"));
    }
    out.push_str(&format!(
        "trailer\n<< /Size {} /Root 1 0 R {trailer} >>\nstartxref\n{xref}\n%%EOF\n",
        places.len() + 1
    ));
    out.into_bytes()
}

/// A ZIP archive whose files are not compressed.
pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let stored: Vec<Packed> = files
        .iter()
        .map(|(name, content)| Packed {
            name,
            method: 0,
            crc: crc32(content),
            size: content.len(),
            data: content.to_vec(),
        })
        .collect();
    zip_of_packed(&stored)
}

/// A file as it stands in a ZIP archive.
pub struct Packed<'a> {
    pub name: &'a str,
    /// 0: stored, 8: deflated.
    pub method: u16,
    pub crc: u32,
    pub size: usize,
    pub data: Vec<u8>,
}

pub fn zip_of_packed(files: &[Packed<'_>]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for file in files {
        let place = out.len() as u32;
        let mut fields = Vec::new();
        fields.extend(20u16.to_le_bytes());
        fields.extend(0u16.to_le_bytes());
        fields.extend(file.method.to_le_bytes());
        fields.extend([0; 4]);
        fields.extend(file.crc.to_le_bytes());
        fields.extend((file.data.len() as u32).to_le_bytes());
        fields.extend((file.size as u32).to_le_bytes());
        fields.extend((file.name.len() as u16).to_le_bytes());
        fields.extend(0u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&fields);
        out.extend(file.name.as_bytes());
        out.extend(&file.data);
        directory.extend(b"PK\x01\x02");
        directory.extend(20u16.to_le_bytes());
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend(place.to_le_bytes());
        directory.extend(file.name.as_bytes());
    }
    let place = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06");
    out.extend([0; 4]);
    out.extend((files.len() as u16).to_le_bytes());
    out.extend((files.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(place.to_le_bytes());
    out.extend(0u16.to_le_bytes());
    out
}

fn crc32(content: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in content {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// A DOCX file with a body of WordprocessingML.
pub fn docx(body: &str) -> Vec<u8> {
    let document = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w="w" xmlns:r="r"><w:body>{body}</w:body></w:document>"#
    );
    let links = r#"<Relationships><Relationship Id="rId1" Type="x/hyperlink" Target="https://example.org/" TargetMode="External"/></Relationships>"#;
    let styles = r#"<w:styles xmlns:w="w"><w:style w:styleId="berschrift2"><w:name w:val="heading 2"/></w:style></w:styles>"#;
    zip(&[
        ("[Content_Types].xml", b"<Types/>"),
        ("word/document.xml", document.as_bytes()),
        ("word/_rels/document.xml.rels", links.as_bytes()),
        ("word/styles.xml", styles.as_bytes()),
    ])
}

/// A PPTX file with a slide for each shape tree, in reverse order of its files.
pub fn pptx(slides: &[&str]) -> Vec<u8> {
    let mut ids = String::new();
    let mut relationships = String::new();
    let mut files = vec![("[Content_Types].xml".to_owned(), "<Types/>".to_owned())];
    for (n, shapes) in slides.iter().enumerate() {
        let file = slides.len() - n;
        ids.push_str(&format!(r#"<p:sldId id="{}" r:id="rId{file}"/>"#, 256 + n));
        relationships.push_str(&format!(
            r#"<Relationship Id="rId{file}" Type="x/slide" Target="slides/slide{file}.xml"/>"#
        ));
        files.push((
            format!("ppt/slides/slide{file}.xml"),
            format!(r#"<p:sld xmlns:p="p" xmlns:a="a"><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>"#),
        ));
    }
    files.push((
        "ppt/presentation.xml".to_owned(),
        format!(r#"<p:presentation xmlns:p="p" xmlns:r="r"><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>"#),
    ));
    files.push((
        "ppt/_rels/presentation.xml.rels".to_owned(),
        format!("<Relationships>{relationships}</Relationships>"),
    ));
    zip_of_texts(&files)
}

/// An XLSX file with a sheet for each text of rows.
pub fn xlsx(sheets: &[(&str, &str)]) -> Vec<u8> {
    const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    const REL: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006/relationships";
    let (mut names, mut relationships, mut files) = (String::new(), String::new(), Vec::new());
    for (n, (name, rows)) in sheets.iter().enumerate() {
        let id = n + 1;
        names.push_str(&format!(r#"<sheet name="{name}" sheetId="{id}" r:id="rId{id}"/>"#));
        relationships.push_str(&format!(
            r#"<Relationship Id="rId{id}" Type="{REL}/worksheet" Target="worksheets/sheet{id}.xml"/>"#
        ));
        files.push((
            format!("xl/worksheets/sheet{id}.xml"),
            format!(r#"<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>"#),
        ));
    }
    files.push(("[Content_Types].xml".to_owned(), "<Types/>".to_owned()));
    files.push((
        "_rels/.rels".to_owned(),
        format!(r#"<Relationships xmlns="{PACKAGE}"><Relationship Id="rId1" Type="{REL}/officeDocument" Target="xl/workbook.xml"/></Relationships>"#),
    ));
    files.push((
        "xl/workbook.xml".to_owned(),
        format!(r#"<workbook xmlns="{MAIN}" xmlns:r="{REL}"><sheets>{names}</sheets></workbook>"#),
    ));
    files.push((
        "xl/_rels/workbook.xml.rels".to_owned(),
        format!(r#"<Relationships xmlns="{PACKAGE}">{relationships}</Relationships>"#),
    ));
    zip_of_texts(&files)
}

/// An EPUB file with a document for each body.
pub fn epub(chapters: &[&str]) -> Vec<u8> {
    let (mut items, mut order) = (String::new(), String::new());
    let mut files = vec![
        ("mimetype".to_owned(), "application/epub+zip".to_owned()),
        (
            "META-INF/container.xml".to_owned(),
            r#"<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>"#
                .to_owned(),
        ),
    ];
    for (n, body) in chapters.iter().enumerate() {
        items.push_str(&format!(r#"<item id="c{n}" href="text/c%20{n}.xhtml"/>"#));
        order.push_str(&format!(r#"<itemref idref="c{n}"/>"#));
        files.push((
            format!("OEBPS/text/c {n}.xhtml"),
            format!(r#"<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body>{body}</body></html>"#),
        ));
    }
    files.push((
        "OEBPS/book.opf".to_owned(),
        format!("<package><manifest>{items}</manifest><spine>{order}</spine></package>"),
    ));
    zip_of_texts(&files)
}

fn zip_of_texts(files: &[(String, String)]) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    zip(&files)
}
