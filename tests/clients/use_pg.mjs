// node-postgres: parameters, named prepared statements, a pool, errors.
import assert from "node:assert/strict";
import pg from "pg";

const pool = new pg.Pool({ max: 4 });
await pool.query("create table node_source (id int primary key, body text not null)");
await pool.query("insert into node_source values (1, 'one'), (2, 'two')");
await pool.query(
  "select coco.create_flow($1, source => $2::text::regclass, query => $3, target => $4, key => $5)",
  ["node", "node_source", "select id, upper(body) as body from node_source", "node_target", ["id"]],
);
const update = { name: "update", text: "select evaluated, upserted, failed from coco.update($1)" };
const counts = async (flow) => (await pool.query({ ...update, values: [flow] })).rows[0];
// bigint comes as text, which node-postgres does for all of them.
assert.deepEqual(await counts("node"), { evaluated: "2", upserted: "2", failed: "0" });
for (let n = 0; n < 8; n++) {
  await pool.query("update node_source set body = $1 where id = 2", [`two ${n}`]);
  assert.deepEqual(await counts("node"), { evaluated: "1", upserted: "1", failed: "0" });
}
const { rows } = await pool.query("select body from node_target order by id");
assert.deepEqual(rows, [{ body: "ONE" }, { body: "TWO 7" }]);
const tracked = await pool.query("select source_key from coco.tracking where flow = 'node' order by 1 limit 1");
assert.deepEqual(tracked.rows[0].source_key, { id: 1 });
await assert.rejects(counts("nobody"), { code: "42704", message: 'flow "nobody" does not exist' });
await pool.query("select coco.drop_flow($1, keep_targets => false)", ["node"]);
await pool.end();
