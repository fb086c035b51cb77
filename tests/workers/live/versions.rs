//! A library of another version than the extension.

use super::{WORKERS, started};
use crate::support::explain;
use crate::support::server::{Server, Session, until};

/// Gives the extension in this database another version, as a library that is newer or older finds it.
fn set_version(db: &mut Session, version: &str) {
    db.run(&format!(
        "set allow_system_table_mods = on;
         update pg_extension set extversion = '{version}' where extname = 'coco';
         reset allow_system_table_mods"
    ));
}

#[test]
fn a_library_of_another_version_says_so_and_writers_go_on() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("versions");
    started(&mut db, "f");
    let version = db.text("select extversion from pg_extension where extname = 'coco'");
    let left = format!("select count(*) = 0 from ({WORKERS}) as w");
    for (other, hint) in [
        ("0.0.9", "Run ALTER EXTENSION coco UPDATE."),
        ("99.0.0", "Install the library of that version, and restart the server"),
    ] {
        set_version(&mut db, other);
        let says = format!(
            "coco's library is version {version}, the extension in this database is {other}"
        );
        db.until(&left);
        let said = || server.log().lines().filter(|line| line.contains(&says)).count();
        until("the worker says it", || said() > 0);
        let mut session = server.connect("versions");
        let before = said();
        for call in [
            "select * from coco.update('f')",
            "select coco.drop_flow('f')",
            "select coco.start('f')",
            "select coco.wait('f')",
            "select * from coco.status",
            "select * from coco.verify('f')",
        ] {
            let error = session.0.batch_execute(call).expect_err(call);
            let text = explain(&error);
            assert!(text.contains(&says) && text.contains(hint), "{call}: {text}");
        }
        // Writers are captured all the same.
        session.run("update f_s set v = v + 1 where id <= 10; insert into f_s select max(id) + 1, 0 from f_s");
        session.run("truncate f_s; insert into f_s select i, i from generate_series(1, 100) i");
        session.run("update f_s set v = v + 1 where id <= 10");
        // The worker has said it once.
        assert_eq!(before, 1, "{}", server.log());
        set_version(&mut db, &version);
        let mut session = server.connect("versions");
        session.run("select coco.start('f')");
        session.settle("f");
        let off = "select count(*) from f_s s full join f_t t using (id) where s.v * 2 is distinct from t.v";
        assert_eq!(session.number(off), 0);
    }
}
