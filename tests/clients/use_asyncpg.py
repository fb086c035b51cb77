"""asyncpg: its prepared statements and binary results; several connections at a time update one flow."""

import asyncio

import asyncpg


async def main():
    db = await asyncpg.connect()
    await db.execute("create table asyncpg_source (id int primary key, body text not null)")
    await db.execute("insert into asyncpg_source select n, 'row ' || n from generate_series(1, 100) n")
    await db.execute(
        "select coco.create_flow($1, source => $2::text::regclass, query => $3, target => $4, key => $5)",
        "asyncpg",
        "asyncpg_source",
        "select id, upper(body) as body from asyncpg_source",
        "asyncpg_target",
        ["id"],
    )
    update = "select evaluated, upserted, failed, elapsed from coco.update($1)"
    first = await db.fetchrow(update, "asyncpg")
    assert (first["evaluated"], first["upserted"], first["failed"]) == (100, 100, 0), first
    assert first["elapsed"].total_seconds() > 0

    # Each writes a row and updates; the flow's updates wait for each other.
    async def write(n):
        mine = await asyncpg.connect()
        try:
            await mine.execute("update asyncpg_source set body = $2 where id = $1", n, f"changed {n}")
            await mine.fetchrow(update, "asyncpg")
        finally:
            await mine.close()

    await asyncio.gather(*(write(n) for n in range(1, 9)))
    off = "select count(*) from asyncpg_source s full join asyncpg_target t using (id) where upper(s.body) is distinct from t.body"
    assert await db.fetchval(off) == 0
    assert await db.fetchval("select count(*) from coco.verify('asyncpg')") == 0

    try:
        await db.fetchrow(update, "nobody")
        raise AssertionError("no error")
    except asyncpg.UndefinedObjectError as error:
        assert error.message == 'flow "nobody" does not exist', error.message
    await db.execute("select coco.drop_flow($1, keep_targets => false)", "asyncpg")
    await db.close()


asyncio.run(main())
