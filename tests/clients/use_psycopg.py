"""psycopg 3: declares a flow with parameters, updates it with prepared statements, reads errors and notices."""

import psycopg

notices = []
with psycopg.connect(autocommit=True, prepare_threshold=1) as db:
    db.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    db.execute("create table psycopg_source (id int primary key, body text not null)")
    db.execute("insert into psycopg_source values (1, 'one'), (2, 'two')")
    declare = "select coco.create_flow(%s, source => %s::regclass, query => %s, target => %s, key => %s)"
    query = "select id, upper(body) as body from psycopg_source"
    db.execute(declare, ["psycopg", "psycopg_source", query, "psycopg_target", ["id"]])

    update = "select evaluated, upserted, deleted, failed from coco.update(%s)"
    assert db.execute(update, ["psycopg"]).fetchone() == (2, 2, 0, 0)
    for n in range(6):
        db.execute("update psycopg_source set body = %s where id = 1", [f"one {n}"])
        assert db.execute(update, ["psycopg"]).fetchone() == (1, 1, 0, 0)
    assert db.execute("select body from psycopg_target order by id").fetchall() == [("ONE 5",), ("TWO",)]

    # The prepared statements go on with another query, which adds a column.
    db.execute(
        "select coco.set_query(%s, %s, %s)",
        ["psycopg", "psycopg_target", "select id, lower(body) as body, length(body) as n from psycopg_source"],
    )
    assert db.execute(update, ["psycopg"]).fetchone() == (2, 2, 0, 0)
    assert db.execute("select body, n from psycopg_target order by id").fetchall() == [("one 5", 5), ("two", 3)]

    # An update is a part of the transaction that runs it.
    with db.transaction(force_rollback=True):
        db.execute("delete from psycopg_source where id = 2")
        assert db.execute(update, ["psycopg"]).fetchone() == (0, 0, 1, 0)
    assert db.execute("select count(*) from psycopg_target").fetchone() == (2,)

    try:
        db.execute(update, ["nobody"])
        raise AssertionError("no error")
    except psycopg.errors.UndefinedObject as error:
        assert error.diag.message_primary == 'flow "nobody" does not exist', error.diag.message_primary
    key = db.execute("select source_key from coco.tracking where flow = 'psycopg' order by source_key").fetchone()
    assert key == ({"id": 1},), key
    db.execute("select coco.drop_flow(%s, keep_targets => false)", ["psycopg"])
