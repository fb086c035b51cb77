//! Rows that a target rejects, and items that fail: the others arrive.

use super::sent;
use crate::http::{Fault, Receiver};
use crate::sides::{UPPER, counted, declare, expected, text, with_hook};
use crate::support::server::until;

#[test]
fn a_row_that_is_refused_waits_and_the_others_arrive() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_refused", &receiver);
    db.run("insert into docs select i, case when i = 7 then 'poison' else 'b' end from generate_series(1, 20) i");
    declare(&mut db, "f");
    receiver.refuse(422, "POISON");
    assert_eq!(counted(&mut db, "f"), (20, 20, 0, 1));
    assert_eq!(receiver.rows("f", "out").len(), 19);
    let error =
        "select target || ' ' || target_key::text || ' ' || attempts || ' ' || (next_retry > now())
                   from coco.errors where flow = 'f' and source is null";
    assert_eq!(text(&mut db.client, error), "out {\"id\": 7} 1 true");
    receiver.forget_requests();
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0), "it is not due");
    assert_eq!(sent(&receiver).0.len(), 0);
    let counts = db.update("f", "retry").remove(0);
    assert_eq!(counts.failed, 1);
    assert_eq!(text(&mut db.client, error), "out {\"id\": 7} 2 true");

    // Mended here: the newer row goes through, and the older one is forgotten.
    db.run("update docs set body = 'well' where id = 7");
    assert_eq!(counted(&mut db, "f"), (1, 1, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.errors"), "0");

    // Mended there.
    db.run("update docs set body = 'poison' where id = 8");
    assert_eq!(counted(&mut db, "f"), (1, 1, 0, 1));
    receiver.refuse_nothing();
    assert_eq!(db.update("f", "retry")[0].failed, 0);
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.errors"), "0");
}

/// A row that cannot be encoded, as one whose JSON text is over 1 GB: here a value raises an error as it becomes JSON.
#[test]
fn a_row_that_has_no_json_text_is_refused_and_the_others_arrive() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_unfit", &receiver);
    db.run(
        "create type mood as enum ('fine', 'broken');
         create function mood_json(m mood) returns json language plpgsql as $$
           begin
             if m = 'broken' then raise exception 'a text too long' using errcode = '54000'; end if;
             return to_json(m::text);
           end $$;
         create cast (mood as json) with function mood_json(mood);
         create table moods (id int primary key, m mood not null);
         insert into moods select i, case when i in (1, 7, 8) then 'broken' else 'fine' end::mood from generate_series(1, 20) i;
         select coco.create_flow('f', 'moods', 'select id, m from moods', 'out', '{id}', server => 'hook')",
    );
    let errors = "select string_agg(concat_ws(' ', target, target_key->>'id', sqlstate, message, attempts), ', ' order by target_key->>'id')
                    from coco.errors where flow = 'f' and source is null";
    let refused = |attempts: i32, keys: &[i32]| {
        let rows: Vec<String> =
            keys.iter().map(|k| format!("out {k} 54000 a text too long {attempts}")).collect();
        rows.join(", ")
    };
    // A first fill, which the worker sends by itself.
    assert_eq!(counted(&mut db, "f"), (20, 20, 0, 3));
    assert_eq!(receiver.rows("f", "out").len(), 17);
    assert_eq!(text(&mut db.client, errors), refused(1, &[1, 7, 8]));
    let waits = "select queued || ' ' || rejected from coco.delivery_status where flow = 'f'";
    assert_eq!(text(&mut db.client, waits), "0 3");
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0), "it is not due");
    assert_eq!(db.update("f", "retry")[0].failed, 3);
    assert_eq!(text(&mut db.client, errors), refused(2, &[1, 7, 8]));

    // Out of the outbox: one among others, and one alone.
    db.run("update moods set m = 'broken' where id = 9; insert into moods values (21, 'fine')");
    assert_eq!(counted(&mut db, "f"), (2, 2, 0, 1));
    assert!(
        receiver.rows("f", "out").contains_key("{\"id\":21}"),
        "{:?}",
        receiver.rows("f", "out")
    );
    db.run("update moods set m = 'broken' where id = 10");
    assert_eq!(counted(&mut db, "f"), (1, 1, 0, 1));
    assert_eq!(text(&mut db.client, waits), "0 5");

    // Mended: the newer rows go through, and the older ones are forgotten.
    db.run("update moods set m = 'fine'");
    // An older one that is due by now is tried once more, and counted, before the newer one overtakes it.
    assert_eq!(db.update("f", "normal")[0].upserted, 5);
    assert_eq!(receiver.rows("f", "out").len(), 21);
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.errors"), "0");
}

#[test]
fn two_items_with_one_key_send_one_row_and_one_error() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_claims", &receiver);
    db.run("insert into docs values (1, 'same'), (2, 'same'), (3, 'other')");
    db.run("select coco.create_flow('f', 'docs', 'select body, id from docs', 'out', '{body}', server => 'hook')");
    assert_eq!(counted(&mut db, "f"), (3, 2, 0, 1));
    assert_eq!(receiver.rows("f", "out").len(), 2);
    // When the owner lets go of it, the other takes it over.
    db.run("update docs set body = 'mine' where id = 1");
    db.update("f", "normal");
    let rows = receiver.rows("f", "out");
    assert_eq!(rows, expected(&mut db.client, "select body, id from docs", "q.body"), "{rows:?}");
}

#[test]
fn what_is_refused_while_that_cannot_be_noted_is_not_lost() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_noted", &receiver);
    db.run(
        "insert into docs select i, case i when 1 then 'poison' else 'b' end from generate_series(1, 5000) i;
         create table way as select 1 as x;
         create function public.in_the_way() returns trigger language plpgsql as $$ begin
             if exists (select from public.way) then raise 'it cannot be noted'; end if;
             return new;
           end $$;
         create trigger in_the_way before update of sent on coco_internal.delivery_state
           for each row execute function public.in_the_way()",
    );
    declare(&mut db, "f");
    receiver.refuse(200, "POISON");
    // Several batches; and so late that the next is read meanwhile.
    receiver.always(Some(Fault::Late(std::time::Duration::from_millis(300))));
    db.run("select coco.start('f')");
    until("it is sent", || receiver.requests().len() >= 3);
    db.run("delete from way");
    receiver.always(None);
    db.run("select coco.wait('f', '60 s')");
    assert_eq!(receiver.rows("f", "out").len(), 4999);
    let error = "select target_key::text from coco.errors where flow = 'f' and target = 'out'";
    assert_eq!(text(&mut db.client, error), "{\"id\": 1}");
}
