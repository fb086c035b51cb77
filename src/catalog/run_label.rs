//! The label of the code, `coco.label`: a version or commit that a migration or CI sets. coco records
//! it with the runs and the logics of flows.

use pgrx::guc::GucSetting;
use std::cell::RefCell;
use std::ffi::CString;

/// `coco.label`.
pub static LABEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// Bytes. coco uses the beginning of a longer label, because a request to a worker has no more space.
const LONGEST: usize = 60;

/// Where the label of this process comes from.
enum LabelOrigin {
    /// The setting of the session.
    Setting,
    /// The session for which this background process works, if there is one.
    Session(Option<String>),
}

thread_local! {
    static ORIGIN: RefCell<LabelOrigin> = const { RefCell::new(LabelOrigin::Setting) };
}

/// Makes this background process use the label of the session for which it works, instead of the
/// setting: a process keeps the value that a database's setting had when the process started.
pub fn use_label_of_session(label: Option<String>) {
    ORIGIN.replace(LabelOrigin::Session(label));
}

/// Returns the label under which this process declares and updates flows, if it has one.
pub fn current_label() -> Option<String> {
    ORIGIN.with_borrow(|origin| match origin {
        LabelOrigin::Session(label) => label.clone(),
        LabelOrigin::Setting => {
            let label = LABEL.get()?;
            beginning(label.to_str().ok()?).map(str::to_owned)
        }
    })
}

/// Returns the beginning of a label, in whole characters; `None` if the label is empty.
fn beginning(label: &str) -> Option<&str> {
    let end = (0..=label.len().min(LONGEST)).rev().find(|end| label.is_char_boundary(*end));
    Some(&label[..end.unwrap_or(0)]).filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_label_is_cut_between_characters() {
        assert_eq!(beginning(""), None);
        assert_eq!(beginning("a1b2c3"), Some("a1b2c3"));
        assert_eq!(beginning(&"a".repeat(61)), Some("a".repeat(60).as_str()));
        let wide = format!("{}é", "a".repeat(59));
        assert_eq!(beginning(&wide), Some("a".repeat(59).as_str()));
    }
}
