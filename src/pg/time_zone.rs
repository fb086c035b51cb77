//! Time zones as the server knows them, for times that people write in local time.

use pgrx::pg_sys;
use std::ffi::CString;

use coco_core::cron::TimeZone;

/// A time zone of the server.
pub struct ServerTimeZone(*const pg_sys::pg_tz);

impl ServerTimeZone {
    /// Returns the zone with a name that the setting TimeZone accepts; UTC if the server knows no
    /// such zone.
    pub fn named(name: &str) -> ServerTimeZone {
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: the name ends with a zero byte. The server keeps a zone that it has loaded until
        // the process ends.
        ServerTimeZone(unsafe { pg_sys::pg_tzset(name.as_ptr()) })
    }
}

impl TimeZone for ServerTimeZone {
    fn offset_at(&self, time: i64) -> i64 {
        if self.0.is_null() {
            return 0;
        }
        // SAFETY: the zone comes from the server. The result, if there is one, is in memory of the
        // server, which the next call overwrites.
        unsafe { pg_sys::pg_localtime(&raw const time, self.0).as_ref() }
            .map_or(0, |local| local.tm_gmtoff)
    }
}
