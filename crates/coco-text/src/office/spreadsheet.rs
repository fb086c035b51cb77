//! The text of spreadsheets, sheet by sheet: XLSX, XLSB, XLS and ODS.

use calamine::{Data, DataRef, ExcelDateTime, Reader, Sheets, Xlsx, XlsxError};
use std::io::Cursor;

use crate::MAX_TEXT;
use crate::error::ExtractError;
use crate::media::Format;

/// The text of one sheet. Rows and cells arrive in order.
struct Sheet {
    text: String,
    row: Option<u32>,
}

impl Sheet {
    fn new(name: &str) -> Sheet {
        Sheet { text: format!("# {name}\n"), row: None }
    }

    fn push(&mut self, row: u32, value: &str) {
        if value.is_empty() {
            return;
        }
        self.text.push_str(if self.row == Some(row) { " | " } else { "\n" });
        self.row = Some(row);
        // A cell is a part of one line.
        for (n, line) in value.lines().enumerate() {
            if n > 0 {
                self.text.push(' ');
            }
            self.text.push_str(line.trim());
        }
    }
}

/// Returns the texts of the sheets.
pub fn sheets(content: &[u8]) -> Result<Vec<String>, ExtractError> {
    let damaged = |why: String| ExtractError::damaged(Format::Spreadsheet, format!("{why}."));
    let mut book = calamine::open_workbook_auto_from_rs(Cursor::new(content)).map_err(|e| {
        let why = e.to_string();
        match why.to_lowercase().contains("password") {
            true => ExtractError::encrypted(Format::Spreadsheet),
            false => damaged(why),
        }
    })?;
    let names = book.sheet_names();
    let mut sheets = Vec::new();
    let mut total = 0;
    for name in names {
        let mut sheet = Sheet::new(&name);
        match &mut book {
            Sheets::Xlsx(book) => stream(book, &name, &mut sheet, MAX_TEXT - total)?,
            other => {
                let range = other.worksheet_range(&name).map_err(|e| damaged(e.to_string()))?;
                let first = range.start().map_or(0, |(row, _)| row);
                for (row, cells) in range.rows().enumerate() {
                    for cell in cells {
                        sheet.push(first.saturating_add(row as u32), &shown(cell));
                    }
                    if sheet.text.len() > MAX_TEXT - total {
                        break;
                    }
                }
            }
        }
        total += sheet.text.len();
        if total > MAX_TEXT {
            return Err(ExtractError::too_large(Format::Spreadsheet));
        }
        sheets.push(sheet.text.trim_end().to_owned());
    }
    Ok(sheets)
}

/// Reads the cells of an XLSX sheet one by one: two cells far apart need no memory between them.
fn stream(
    book: &mut Xlsx<Cursor<&[u8]>>,
    name: &str,
    sheet: &mut Sheet,
    most: usize,
) -> Result<(), ExtractError> {
    let damaged = |e: XlsxError| ExtractError::damaged(Format::Spreadsheet, format!("{e}."));
    let mut cells = match book.worksheet_cells_reader(name) {
        Ok(cells) => cells,
        // A sheet that is a chart.
        Err(XlsxError::NotAWorksheet(_)) => return Ok(()),
        Err(e) => return Err(damaged(e)),
    };
    while let Some(cell) = cells.next_cell().map_err(damaged)? {
        let (row, _) = cell.get_position();
        match cell.get_value() {
            DataRef::SharedString(text) => sheet.push(row, text),
            other => sheet.push(row, &shown(&Data::from(other.clone()))),
        }
        if sheet.text.len() > most {
            break;
        }
    }
    Ok(())
}

fn shown(value: &Data) -> String {
    match value {
        Data::DateTime(at) => shown_time(at),
        other => other.to_string(),
    }
}

fn shown_time(at: &ExcelDateTime) -> String {
    if !at.is_datetime() {
        return at.to_string();
    }
    let (year, month, day, hour, minute, second, _) = at.to_ymd_hms_milli();
    match (hour, minute, second) {
        (0, 0, 0) => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"),
    }
}
