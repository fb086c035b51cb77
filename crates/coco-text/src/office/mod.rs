//! Formats that are ZIP archives of XML files: DOCX, PPTX, spreadsheets and EPUB.

mod archive;
pub mod docx;
pub mod epub;
pub mod pptx;
mod relationships;
pub mod spreadsheet;
mod xml;
